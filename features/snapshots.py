"""A snapshot: every feature of every member at one `as_of`, computed from what had happened by then.

The tables that the features of `features.transforms` see, each with a `member_id`, none with a row at or after `as_of`:

visits         one row per purchase: amount, discount, lines, weekday (0 is Monday), hour, days_ago
purchase_days  one row per local day with a purchase: gap (days since the purchase day before), days_ago
categories     one row per member and category of the last 12 weeks: amount
contacts       one row per contact that was no control: days_ago
redemptions    one row per redemption: contact_id, days_ago
member         the aggregates above, and joined_days_ago
audience       the same with the member features, and the programme's stage limits
"""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import ibis
import ibis.expr.types as ir
import pandas as pd

from features import transforms
from features.catalogue import CATALOGUE, Source
from features.errors import ContractError, NotFoundError
from features.files import fingerprint, write_json, write_whole
from features.home import Home
from features.programme import Programme, read_programme
from features.schema import CONTROL
from features.sheet import Progress
from features.warehouse import Warehouse, open_warehouse, quietly

CATEGORY_DAYS: Final = 84
STEM: Final = "%Y-%m-%dT%H%MZ"  # a snapshot's file is named after its as_of
# columns a company may not bring, and what stands for them
OPTIONAL: Final = {
    "transactions": {"discount": ibis.literal(0), "category": ibis.literal("all")},
    "redemptions": {"contact_id": ibis.null("string")},
}


def snapshot(tables: dict[str, ir.Table], *, as_of: datetime, programme: Programme) -> ir.Table:
    """Compute every feature for every member who had joined before `as_of`, as one Ibis expression.

    Parameters
    ----------
    tables : members, transactions, and contacts and redemptions if the company has them
    """
    cut = partial(_cut, as_of=as_of, programme=programme)
    lines = cut(_complete(tables, "transactions"))
    visits = _visits(lines)
    sources: dict[Source, ir.Table] = {
        "visits": visits,
        "purchase_days": _purchase_days(visits),
        "categories": _categories(lines),
    }
    if "contacts" in tables:
        sources["contacts"] = cut(
            tables["contacts"].filter(tables["contacts"].treatment != CONTROL), time="contacted_at"
        )
    if "redemptions" in tables:
        sources["redemptions"] = cut(_complete(tables, "redemptions"))
    members = cut(tables["members"], time="joined_at")
    result = members.select("member_id", joined_days_ago=members.days_ago)
    for source, table in sources.items():
        features = {name: compute(table) for name, compute in _definitions(source).items()}
        result = result.left_join(table.group_by("member_id").aggregate(**features), "member_id").drop(
            "member_id_right"
        )
    result = _with(result.mutate(_absent(result, sources)), "member")
    stages = programme.stages
    result = result.mutate(
        new_until=ibis.literal(stages.new),
        dormant_after=ibis.literal(stages.dormant),
        lapsed_after=ibis.literal(stages.lapsed),
    )
    result = _with(_with(result, "audience", words=False), "audience", words=True)
    stamps = {"event_timestamp": ibis.literal(as_of), "created_timestamp": ibis.literal(as_of)}
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
    inputs = {"inputs": fingerprint(warehouse.fingerprint, programme.model_dump(mode="json"), *_code())}
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
                write_whole(path, snapshot(tables, as_of=as_of, programme=programme).to_parquet)
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


def _code() -> tuple[Path, Path]:
    return Path(transforms.__file__), Path(__file__)


def _cut(table: ir.Table, time: str = "occurred_at", *, as_of: datetime, programme: Programme) -> ir.Table:
    """Keep what happened before `as_of`, and count local days back from it."""
    today = ibis.literal(as_of.astimezone(programme.zone).date())
    return table.filter(table[time] < ibis.literal(as_of)).mutate(
        days_ago=lambda t: today.delta(t.local_time.date(), unit="day")
    )


def _complete(tables: dict[str, ir.Table], name: str) -> ir.Table:
    table = tables[name]
    return table.mutate(**{column: value for column, value in OPTIONAL[name].items() if column not in table.columns})


def _visits(lines: ir.Table) -> ir.Table:
    return (
        lines.group_by("member_id", "transaction_id")
        .aggregate(
            amount=lines.amount.sum(),
            discount=lines.discount.sum(),
            lines=lines.count(),
            local_time=lines.local_time.min(),
            days_ago=lines.days_ago.max(),
        )
        .mutate(weekday=lambda t: t.local_time.day_of_week.index(), hour=lambda t: t.local_time.hour())
    )


def _purchase_days(visits: ir.Table) -> ir.Table:
    days = visits.distinct(on=["member_id", "days_ago"]).select("member_id", "days_ago")
    before = days.days_ago.lag().over(group_by="member_id", order_by=days.days_ago.desc())
    return days.mutate(gap=before - days.days_ago)


def _categories(lines: ir.Table) -> ir.Table:
    recent = lines.filter(lines.days_ago <= CATEGORY_DAYS)
    return recent.group_by("member_id", "category").aggregate(amount=recent.amount.sum())


def _definitions(source: Source, *, words: bool | None = None) -> dict[str, Callable[[ir.Table], ir.Value]]:
    return {
        name: feature.compute
        for name, feature in CATALOGUE.items()
        if feature.source == source and (words is None or feature.is_text == words)
    }


def _absent(result: ir.Table, sources: dict[Source, ir.Table]) -> dict[str, ir.Value]:
    """Fill counts and sums of members without a row: nothing is 0; a share or a mean of nothing stays missing."""
    values: dict[str, ir.Value] = {}
    for name, feature in CATALOGUE.items():
        if feature.source in {"member", "audience"}:
            continue
        column = result[name] if feature.source in sources else ibis.null("int64")
        counted = feature.unit in {"visits", "money", "weeks", "contacts", "redemptions", "categories"}
        values[name] = column.fill_null(0) if counted else column
    return values


def _with(table: ir.Table, source: Source, *, words: bool | None = None) -> ir.Table:
    return table.mutate(**{name: compute(table) for name, compute in _definitions(source, words=words).items()})


def _type(name: str) -> str:
    return (
        "string" if CATALOGUE[name].is_text else "float64"
    )  # exact for whole numbers below 2**53, and missing is null


def _midnight(day: date, programme: Programme) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=programme.zone).astimezone(UTC)
