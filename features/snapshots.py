"""A snapshot: every feature of every member at one `as_of`, computed from what had happened by then."""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import pandas as pd

from features.as_of import expression
from features.as_of.computing import Write, spark_writer, writer
from features.as_of.inputs import fingerprints
from features.errors import ContractError, NotFoundError
from features.files import alone, clear_parts, write_json, write_whole
from features.home import STEM, Home
from features.programme import Programme, read_programme
from features.sheet import Progress
from features.transforms import CODE
from features.warehouse import Warehouse, open_warehouse, quietly, refuse_other_units

ANCHOR: Final = date(2001, 1, 1)  # a Monday of the grid


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
    dates = as_of_dates(warehouse, programme)
    told = partial(progress, "waiting for another build to end", 0, 1)
    with alone(home.features, waiting=told), quietly():
        clear_parts(home.features)
        tables = {name: warehouse.expression(name) for name in warehouse.tables}
        progress("looking for what changed", 0, 1)
        inputs = fingerprints(tables, dates, programme=programme, code=[*CODE, Path(expression.__file__)])
        manifest = _keep_fresh(home, {home.snapshot(as_of).stem: key for as_of, key in inputs.items()})
        stale = [as_of for as_of in dates if home.snapshot(as_of).stem not in manifest]
        if stale:  # or there is no engine to start
            write = _writer(warehouse, programme)
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


def _writer(warehouse: Warehouse, programme: Programme) -> Write:
    if programme.engine.features == "spark":
        return spark_writer(warehouse.paths, programme)
    return writer(warehouse.paths, programme, folder=warehouse.home.features)


def _manifest(home: Home) -> Path:
    return home.features / "manifest.json"


def _span(warehouse: Warehouse) -> tuple[datetime, datetime]:
    with quietly():
        lines = warehouse.expression("transactions")
        (row,) = lines.aggregate(first=lines.occurred_at.min(), last=lines.occurred_at.max()).to_pyarrow().to_pylist()
    return row["first"], row["last"]


def _days_since_grid(day: date, programme: Programme) -> int:
    return (day - ANCHOR).days % programme.snapshot_days


def _midnight(day: date, programme: Programme) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=programme.zone).astimezone(UTC)
