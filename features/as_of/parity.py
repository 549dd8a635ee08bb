"""The promise on which everything rests, checked: the number the model saw in training is the number it sees live.

Three comparisons, each of every feature, by the bits of its values; a missing value equals a missing one.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import ibis.expr.types as ir
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.as_of.canary import scrambled
from features.as_of.computing import computed_of, in_session
from features.as_of.known import ATTRIBUTES
from features.as_of.plan import compared, make_plan
from features.as_of.vectors import Vectors
from features.catalogue.entries import CATALOGUE
from features.definitions import ALL, DECISION, NUMBERS, WORDS
from features.home import Home
from features.programme import Programme, read_programme
from features.sheet import Progress, Sheet
from features.snapshots import built
from features.store import Store, open_store
from features.warehouse import open_warehouse, quietly

MOMENTS: Final = 3  # times at which live vectors are held against the definition
MEMBERS: Final = 1_000  # whose live vectors are computed at one time
CANARIES: Final = 2  # snapshots that are computed again in another future
_SCRATCH: Final = ".check-"
NAMED: Final = 5  # differences that are named
KEY: Final = ["member_id", "as_of"]


@dataclass(frozen=True)
class Difference:
    """Name one value that is not the same."""

    member_id: str
    as_of: datetime
    feature: str
    wanted: str
    found: str


@dataclass(frozen=True)
class Compared:
    """Say what was held against what, at how many points (a member at a time), and where it differs."""

    what: str
    points: int = 0
    features: int = 0
    differing: int = 0
    first: tuple[Difference, ...] = ()

    def at(self, wanted: pd.DataFrame, found: pd.DataFrame) -> "Compared":
        """Compare at further points: frames with `KEY`, of which every point and feature wanted has to be found."""
        wanted = wanted.set_index(KEY)
        found = found.set_index(KEY).reindex(wanted.index)
        unequal = np.column_stack([_unequal(wanted[name], found[name]) for name in wanted])
        rows, columns = np.nonzero(unequal)
        places = zip(rows.tolist(), columns.tolist(), strict=True)
        new = (_difference(wanted, found, row, column) for row, column in places)
        named = tuple(one for one, _ in zip(new, range(NAMED - len(self.first)), strict=False))
        return replace(
            self,
            points=self.points + len(wanted),
            features=len(wanted.columns),
            differing=self.differing + len(rows),
            first=self.first + named,
        )


def check(home: Home, *, points: int, rng: np.random.Generator, progress: Progress) -> tuple[Compared, ...]:
    """Compare offline with online, live with the definition, and snapshots with themselves in another future."""
    return (
        offline_online(home, points=points, rng=rng, progress=progress),
        live_definition(home, rng=rng, progress=progress),
        other_futures(home, rng=rng, progress=progress),
    )


def offline_online(home: Home, *, points: int, rng: np.random.Generator, progress: Progress) -> Compared:
    """Hold what training joins at members' snapshots against what the service reads once they are materialised.

    They are materialised, the drawn members of one snapshot after the other, into an online store made for it, of the
    kind that the settings name.
    """
    offline, drawn, result = open_store(home), draw(home, points, rng), Compared("offline = online")
    progress("joining offline", 0, 1)
    words = offline.training_frame(drawn, DECISION)[list(WORDS)]
    wanted = offline.training_frame(drawn, ALL).join(words).assign(event_timestamp=drawn["as_of"])
    with _scratch(offline) as online:
        dates = [as_of for as_of in built(home) if (drawn["as_of"] == as_of).any()]
        for done, as_of in enumerate(dates):
            progress("comparing with online", done, len(dates))
            rows = wanted[wanted["as_of"] == as_of]
            result = result.at(rows, _online(online, home.snapshot(as_of), rows["member_id"].tolist(), as_of))
    return result


def live_definition(home: Home, *, rng: np.random.Generator, progress: Progress) -> Compared:
    """Hold vectors that are computed from members' own rows, at random times, against the definition over all rows."""
    warehouse, programme, dates = open_warehouse(home), read_programme(home.settings), built(home)
    own, result = [*KEY, *(name for name in CATALOGUE if name not in compared())], Compared("live = definition")
    with tempfile.TemporaryDirectory(dir=home.root, prefix=_SCRATCH) as folder, quietly():
        nobody = Path(folder) / "audience.parquet"
        pq.write_table(
            pq.read_schema(home.snapshot(dates[-1])).empty_table().select(["member_id", *compared()]), nobody
        )
        vectors = Vectors(make_plan(warehouse, programme, as_of=dates[-1], audience=nobody.resolve()), warehouse)
        computed = computed_of(warehouse.paths, programme, folder=home.features)
        span = (dates[-1] - dates[0]) // timedelta(microseconds=1)
        for done in range(MOMENTS):
            progress("comparing with live", done, MOMENTS)
            as_of = dates[0] + timedelta(microseconds=int(rng.integers(span)))
            whole = _keyed(computed(as_of).to_arrow_table())
            ids = rng.choice(whole["member_id"], min(MEMBERS, len(whole)), replace=False, shuffle=False).tolist()
            result = result.at(whole[whole["member_id"].isin(ids)][own], _keyed(vectors.at(as_of, ids))[own])
        vectors.close()
    return result


def other_futures(home: Home, *, rng: np.random.Generator, progress: Progress) -> Compared:
    """Hold snapshots against the same ones computed from tables in which all that came later is made up."""
    warehouse, programme, dates = open_warehouse(home), read_programme(home.settings), built(home)
    result = Compared("as built = in another future")
    chosen = rng.choice(len(dates), min(CANARIES, len(dates)), replace=False).tolist()
    for done, as_of in enumerate(dates[place] for place in chosen):
        progress("making up another future", done, len(chosen))
        with quietly():
            tables = scrambled(warehouse, as_of, programme=programme, rng=rng)
            again = _computed(tables, as_of, programme)
        stood = pq.read_table(home.snapshot(as_of)).drop_columns(list(ATTRIBUTES))  # of the time it was built
        result = result.at(_keyed(stood), _keyed(again))
    return result


def draw(home: Home, points: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw (member_id, as_of) points at random from all snapshots, each at most once."""
    dates = built(home)
    sizes = [pq.read_metadata(home.snapshot(as_of)).num_rows for as_of in dates]
    chosen = np.sort(rng.choice(sum(sizes), min(points, sum(sizes)), replace=False, shuffle=False))
    parts = np.split(chosen, np.searchsorted(chosen, np.cumsum(sizes)[:-1]))
    starts = np.cumsum([0, *sizes])[:-1]
    frames = []
    for as_of, start, rows in zip(dates, starts, parts, strict=True):
        members = pq.read_table(home.snapshot(as_of), columns=["member_id"])["member_id"]
        frames.append(pd.DataFrame({"member_id": members.take(rows - start).to_pylist(), "as_of": as_of}))
    return pd.concat(frames, ignore_index=True).astype({"as_of": "datetime64[us, UTC]"})


def sheet(found: tuple[Compared, ...]) -> Sheet:
    """Show what was compared, and the first differences."""
    rows = tuple((one.what, f"{one.points:,}", f"{one.features}", f"{one.differing:,}") for one in found)
    notes = [
        f"{one.what}: member {it.member_id} at {it.as_of:%Y-%m-%d %H:%M} UTC, {it.feature}: {it.wanted} and {it.found}"
        for one in found
        for it in one.first
    ]
    return Sheet("Offline and online, to the bit", ("compared", "points", "features", "differing"), rows, tuple(notes))


@contextmanager
def _scratch(store: Store) -> Iterator[Store]:
    """Open an empty store whose online part is of the same kind as another's, and delete it at the end."""
    apart = store.engine.model_copy(update={"online_prefix": f"{store.engine.online_prefix}-check"})
    with tempfile.TemporaryDirectory(dir=store.home.root, prefix=_SCRATCH) as folder:
        scratch = open_store(Home(Path(folder)), apart)
        scratch.home.features.mkdir()
        scratch.forget()
        scratch.apply()
        try:
            yield scratch
        finally:
            scratch.forget()


def _online(store: Store, snapshot: Path, member_ids: list[str], as_of: datetime) -> pd.DataFrame:
    """Materialise some members of a snapshot, and read them as the service does."""
    drawn = pq.read_table(snapshot, filters=pc.field("member_id").isin(member_ids))
    pq.write_table(drawn, store.home.snapshot(as_of))
    store.materialize(as_of)
    read = store.vectors(member_ids)
    values = dict(zip(NUMBERS, read.numbers.T, strict=True)) | dict(
        zip(WORDS, zip(*read.words, strict=True), strict=True)
    )
    return pd.DataFrame({"member_id": member_ids, "as_of": as_of, **values, "event_timestamp": read.event_timestamp})


def _computed(tables: dict[str, ir.Table], as_of: datetime, programme: Programme) -> pa.Table:
    """Compute a snapshot of tables that are expressions."""
    backend = tables["members"].get_backend()
    for name, table in tables.items():
        backend.create_view(name, table, overwrite=True)
    return in_session(backend.con, tables, programme)(as_of).to_arrow_table()


def _keyed(rows: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = rows.drop_columns("created_timestamp").to_pandas()
    return frame.rename(columns={"event_timestamp": "as_of"}).astype({"as_of": "datetime64[us, UTC]"})


def _unequal(wanted: pd.Series, found: pd.Series) -> NDArray[np.bool_]:
    if pd.api.types.is_float_dtype(wanted):
        return np.asarray(_bits(wanted) != _bits(found))
    return np.asarray(wanted.ne(found) & ~(wanted.isna() & found.isna()))


def _bits(values: pd.Series) -> NDArray[np.int64]:
    numbers = values.to_numpy(dtype=np.float64, copy=True)
    numbers[np.isnan(numbers)] = np.nan  # of the many bit patterns one
    return numbers.view(np.int64)


def _difference(wanted: pd.DataFrame, found: pd.DataFrame, row: int, column: int) -> Difference:
    member_id, as_of = wanted.index[row]
    values: tuple[Any, Any] = wanted.iloc[row, column], found.iloc[row, column]
    return Difference(member_id, as_of.to_pydatetime(), str(wanted.columns[column]), *map(str, values))
