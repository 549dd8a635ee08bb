"""A snapshot: every feature of every member at one `as_of`, computed from what had happened by then."""

import json
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

import ibis
import ibis.expr.types as ir
import pandas as pd

from features.catalogue import CATALOGUE, Feature, Source
from features.errors import ContractError, NotFoundError
from features.files import fingerprint, write_json, write_whole
from features.home import Home
from features.known import Moment, members_at, moment, sources_at
from features.programme import Programme, read_programme
from features.sheet import Progress
from features.transforms import CODE
from features.warehouse import Warehouse, open_warehouse, quietly

STEM: Final = "%Y-%m-%dT%H%MZ"  # a snapshot's file is named after its as_of


def snapshot(tables: dict[str, ir.Table], *, at: Moment, programme: Programme) -> ir.Table:
    """Compute every feature for every member who had joined before a moment, as one Ibis expression.

    Parameters
    ----------
    tables : members, transactions, and whatever else of the contract the company has
    """
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


def as_of_dates(warehouse: Warehouse, programme: Programme) -> list[datetime]:
    """Give the weekly `as_of`s, back from the local midnight after the last purchase as far as a history reaches."""
    times = warehouse.frame("transactions", ["occurred_at"])["occurred_at"]
    first, last = times.min().to_pydatetime(), times.max().to_pydatetime()
    earliest = programme.days_before(first, -programme.history_days)
    day, dates = last.astimezone(programme.zone).date() + timedelta(days=1), []
    while (as_of := _midnight(day, programme)) >= earliest:
        dates.append(as_of)
        day -= timedelta(days=programme.snapshot_days)
    if not dates:
        raise ContractError(
            f"transactions span {(last - first).days} days; history_days ({programme.history_days}) were wanted"
        )
    return dates[::-1]


def build(home: Home, *, progress: Progress) -> list[datetime]:
    """Write the snapshot of every week that is missing or whose inputs changed, and give the `as_of` of all."""
    warehouse, programme = open_warehouse(home), read_programme(home.settings)
    inputs = {"inputs": fingerprint(warehouse.fingerprint, programme.model_dump(mode="json"), *CODE, Path(__file__))}
    dates = as_of_dates(warehouse, programme)
    paths = {as_of: _path(home, as_of) for as_of in dates}
    manifest = home.features / "manifest.json"
    fresh = manifest.exists() and json.loads(manifest.read_bytes()) == inputs
    for path in home.features.glob("*.parquet"):
        if not fresh or path not in paths.values():
            path.unlink()
    if not fresh:
        write_json(manifest, inputs)
    tables = {name: warehouse.expression(name) for name in warehouse.tables}
    for done, (as_of, path) in enumerate(paths.items()):
        progress("computing features", done, len(paths))
        if not path.exists():
            with quietly():
                write_whole(path, snapshot(tables, at=moment(as_of, programme), programme=programme).to_parquet)
    progress("computing features", len(paths), len(paths))
    return dates


def built(home: Home) -> list[datetime]:
    """Give the `as_of` of every snapshot that is there, oldest first.

    Raises
    ------
    NotFoundError
        If there is none.
    """
    names = sorted(path.stem for path in home.features.glob("*.parquet"))
    if not names:
        raise NotFoundError(f"{home.features} holds no snapshots yet; `holdfast features build` computes them")
    return [datetime.strptime(name, STEM).replace(tzinfo=UTC) for name in names]


def read_snapshots(home: Home, dates: Sequence[datetime]) -> pd.DataFrame:
    """Read whole snapshots: `member_id`, `as_of` and every feature, a row per member and date."""
    missing = [f"{as_of:%Y-%m-%d}" for as_of in dates if not _path(home, as_of).exists()]
    if missing:
        raise NotFoundError(f"there are no snapshots of {', '.join(missing)}; `holdfast features build` computes them")
    frames = [pd.read_parquet(_path(home, as_of)).drop(columns="created_timestamp") for as_of in dates]
    return pd.concat(frames, ignore_index=True).rename(columns={"event_timestamp": "as_of"})


def _path(home: Home, as_of: datetime) -> Path:
    return home.features / f"{as_of.astimezone(UTC):{STEM}}.parquet"


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


def _midnight(day: date, programme: Programme) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=programme.zone).astimezone(UTC)
