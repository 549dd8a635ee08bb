"""A snapshot: every feature of every member at one `as_of`, computed from what had happened by then."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Final

import duckdb
import ibis
import ibis.expr.types as ir
import pandas as pd

from features.as_of.inputs import fingerprints
from features.as_of.known import Moment, members_at, moment, session_moment, sources_at, visible
from features.catalogue.entries import CATALOGUE, Feature, Source
from features.errors import ContractError, NotFoundError
from features.files import alone, clear_parts, write_json, write_whole
from features.home import STEM, Home
from features.memory import within
from features.programme import Programme, read_programme
from features.sheet import Progress
from features.transforms import CODE
from features.warehouse import Warehouse, open_warehouse, quietly, refuse_other_units

ANCHOR: Final = date(2001, 1, 1)  # a Monday of the grid


def snapshot(tables: dict[str, ir.Table], *, at: Moment, programme: Programme) -> ir.Table:
    """Compute every feature for every member who had joined before a moment, as one Ibis expression.

    Parameters
    ----------
    tables : members, transactions, and whatever else of the contract the company has
    """
    tables = visible(tables)
    sources = sources_at(tables, at=at, programme=programme)
    result = members_at(tables, at=at)
    for source, table in sources.items():
        features = {f.name: f.compute(table, programme) for f in _features(source)}
        # a key of its own in each: dropping one between two joins would nest a query within a query
        counted = table.group_by(**{f"of_{source}": table.member_id}).aggregate(**features)
        result = result.left_join(counted, result.member_id == counted[f"of_{source}"])
    result = _with(result.mutate(_absent(result, sources)), "member", programme)
    for words in (False, True):
        result = _with(result, "audience", programme, words=words)
    stamps = {"event_timestamp": at.time, "created_timestamp": at.time}
    features = {name: result[name].cast(_type(name)) for name in CATALOGUE}
    return result.select("member_id", **stamps, **features).order_by("member_id")


def snapshot_query(tables: Mapping[str, ir.Table], programme: Programme) -> str:
    """Give the expression as a query of DuckDB over tables of these names, whose moment `at_moment` sets.

    It is compiled once for all tables of one shape: that takes longer than to run it on a small company's.
    """
    shape = tuple((name, table.schema()) for name, table in sorted(visible(dict(tables)).items()))
    return _compiled(shape, programme.model_dump_json())


def at_moment(
    session: duckdb.DuckDBPyConnection, query: str, as_of: datetime, *, programme: Programme
) -> duckdb.DuckDBPyRelation:
    """Run a query as of a moment in a session that has the tables."""
    session.execute("SET VARIABLE as_of = $1::TIMESTAMPTZ", [as_of])
    session.execute("SET VARIABLE today = $1::DATE", [as_of.astimezone(programme.zone).date()])
    return session.sql(query)


def in_session(
    paths: Mapping[str, Path], programme: Programme, *, folder: Path
) -> Callable[[datetime], duckdb.DuckDBPyRelation]:
    """Give what computes a snapshot of tables in Parquet files, in a session of its own that spills into a folder."""
    backend = ibis.duckdb.connect(**within(folder))
    tables = {name: backend.read_parquet(path, table_name=name) for name, path in paths.items()}
    return partial(at_moment, backend.con, snapshot_query(tables, programme), programme=programme)


def as_of_dates(warehouse: Warehouse, programme: Programme) -> list[datetime]:
    """Give the `as_of`s of the grid, as far back as a history reaches, and the midnight after the last purchase.

    The grid's are local midnights, `snapshot_days` apart: new data add to it and move nothing. The last `as_of`, which
    is the one that is served, may stand between two of the grid.
    """
    return as_ofs_between(*_span(warehouse), programme)


def as_ofs_between(first: datetime, last: datetime, programme: Programme) -> list[datetime]:
    """Give the same for the times of the first and the last purchase."""
    earliest = programme.days_before(first, -programme.history_days)
    day, dates = last.astimezone(programme.zone).date() + timedelta(days=1), []
    while (as_of := _midnight(day, programme)) >= earliest:
        dates.append(as_of)
        day -= timedelta(days=_days_since_grid(day, programme) or programme.snapshot_days)
    if not dates:
        raise ContractError(
            f"transactions span {(last - first).days} days; history_days ({programme.history_days}) were wanted; "
            "ingest a longer history, or say a smaller history_days in holdfast.toml"
        )
    return dates[::-1]


def on_grid(as_of: datetime, programme: Programme) -> bool:
    """Say whether an `as_of` is one of those that are `snapshot_days` apart, and stays when newer data come."""
    return not _days_since_grid(as_of.astimezone(programme.zone).date(), programme)


def build(home: Home, *, progress: Progress) -> list[datetime]:
    """Write every snapshot that is missing or whose inputs changed, and give the `as_of` of all."""
    warehouse, programme = open_warehouse(home), read_programme(home.settings)
    refuse_other_units(warehouse, programme)
    dates, of_spark = as_of_dates(warehouse, programme), programme.engine.features == "spark"
    told = partial(progress, "waiting for another build to end", 0, 1)
    with alone(home.features, waiting=told), quietly():
        clear_parts(home.features)
        tables = {name: warehouse.expression(name) for name in warehouse.tables}
        progress("looking for what changed", 0, 1)
        inputs = fingerprints(tables, dates, programme=programme, code=[*CODE, Path(__file__)])
        manifest = _keep_fresh(home, {home.snapshot(as_of).stem: key for as_of, key in inputs.items()})
        stale = [as_of for as_of in dates if home.snapshot(as_of).stem not in manifest]
        if stale:  # or there is no engine to start
            write = (_spark_writer if of_spark else _writer)(warehouse, programme)
        for done, as_of in enumerate(stale):
            progress("computing features", done, len(stale))
            write_whole(home.snapshot(as_of), partial(write, as_of))
            manifest[home.snapshot(as_of).stem] = inputs[as_of]
            write_json(_manifest(home), manifest)
    progress("computing features", 1, 1)
    return dates


def built(home: Home) -> list[datetime]:
    """Give the `as_of` of every snapshot that is there, oldest first.

    Raises
    ------
    NotFoundError
        If there is none.
    """
    if not (dates := built_if_any(home)):
        raise NotFoundError(f"{home.features} holds no snapshots yet; `holdfast features build` computes them")
    return dates


def built_if_any(home: Home) -> list[datetime]:
    """Give the same, and nothing where nothing was built yet: to whoever only looks."""
    names = sorted(path.stem for path in home.features.glob("*.parquet"))
    return [datetime.strptime(name, STEM).replace(tzinfo=UTC) for name in names]


def read_snapshots(home: Home, dates: Sequence[datetime]) -> pd.DataFrame:
    """Read whole snapshots: `member_id`, `as_of` and every feature, a row per member and date."""
    missing = [f"{as_of:%Y-%m-%d}" for as_of in dates if not home.snapshot(as_of).exists()]
    if missing:
        raise NotFoundError(f"there are no snapshots of {', '.join(missing)}; `holdfast features build` computes them")
    frames = [pd.read_parquet(home.snapshot(as_of)).drop(columns="created_timestamp") for as_of in dates]
    return pd.concat(frames, ignore_index=True).rename(columns={"event_timestamp": "as_of"})


def _keep_fresh(home: Home, inputs: dict[str, str]) -> dict[str, str]:
    """Delete the snapshots that are of other inputs, and give the fingerprints of those that stay.

    A snapshot counts once the manifest names it, and it is named after it is written: a kill leaves none too many.
    """
    manifest = _manifest(home)
    noted = json.loads(manifest.read_bytes()) if manifest.exists() else {}
    there = {path.stem: path for path in home.features.glob("*.parquet")}
    # what was the newest stays as it is: the attributes it was built with were those of its time
    fresh = {name: noted[name] for name, key in inputs.items() if name in there and noted.get(name, "").startswith(key)}
    if fresh != noted:
        write_json(manifest, fresh)
    for name in there.keys() - fresh.keys():
        there[name].unlink()
    return fresh


@cache
def _compiled(shape: tuple[tuple[str, ibis.Schema], ...], settings: str) -> str:
    tables = {name: ibis.table(schema, name=name) for name, schema in shape}
    programme = Programme.model_validate_json(settings)
    return str(ibis.to_sql(snapshot(tables, at=session_moment(), programme=programme), dialect="duckdb"))


def _writer(warehouse: Warehouse, programme: Programme) -> Callable[[datetime, Path], None]:
    computed = in_session(warehouse.paths, programme, folder=warehouse.home.features)
    return lambda as_of, path: computed(as_of).write_parquet(str(path))


def _spark_writer(warehouse: Warehouse, programme: Programme) -> Callable[[datetime, Path], None]:
    """Compute the same expression on Spark, compiled anew for each moment: Spark has no variables that Ibis knows."""
    from features.spark import read_tables, write_parquet

    tables = read_tables(programme.engine.spark, warehouse.paths)

    def write(as_of: datetime, path: Path) -> None:
        write_parquet(snapshot(tables, at=moment(as_of, programme), programme=programme), path)

    return write


def _manifest(home: Home) -> Path:
    return home.features / "manifest.json"


def _features(source: Source, *, words: bool | None = None) -> list[Feature]:
    return [f for f in CATALOGUE.values() if f.source == source and (words is None or f.is_text == words)]


def _absent(result: ir.Table, sources: Collection[Source]) -> dict[str, ir.Value]:
    """Fill counts and sums of members without a row: nothing is 0; a share or a mean of nothing stays missing.

    Of a table that the company does not bring nothing is known: not even that there was nothing.
    """
    values: dict[str, ir.Value] = {}
    for feature in CATALOGUE.values():
        if feature.source in sources:
            column = result[feature.name]
            values[feature.name] = column.fill_null(0) if feature.zero else column
        elif feature.source not in {"member", "audience"}:
            values[feature.name] = ibis.null("string" if feature.is_text else "int64")
    return values


def _with(table: ir.Table, source: Source, programme: Programme, *, words: bool | None = None) -> ir.Table:
    return table.mutate(**{f.name: f.compute(table, programme) for f in _features(source, words=words)})


def _type(name: str) -> str:
    # float64 is exact for whole numbers below 2**53, and missing is null
    return "string" if CATALOGUE[name].is_text else "float64"


def _span(warehouse: Warehouse) -> tuple[datetime, datetime]:
    with quietly():
        lines = warehouse.expression("transactions")
        (row,) = lines.aggregate(first=lines.occurred_at.min(), last=lines.occurred_at.max()).to_pyarrow().to_pylist()
    return row["first"], row["last"]


def _days_since_grid(day: date, programme: Programme) -> int:
    return (day - ANCHOR).days % programme.snapshot_days


def _midnight(day: date, programme: Programme) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=programme.zone).astimezone(UTC)
