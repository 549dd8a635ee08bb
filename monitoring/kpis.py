"""The tree of figures in three layers, by week, month and quarter: results, the process they come from, and its base.

Sales are a product, exactly: members x share who bought x purchases of each x average basket. Whoever sees sales move
sees which of the four moved them. A period counts once it is over; the running one is left out, for it would always
look worse.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.errors import NotFoundError
from features.home import Home
from features.programme import Length, Programme
from features.snapshots import built_if_any
from features.warehouse import Warehouse, open_warehouse

Floats = NDArray[np.float64]
Layer = Literal["results", "process", "base"]
Unit = Literal["money", "share", "number", "decimal"]

PERIODS: Final[dict[Length, tuple[str, int]]] = {"week": ("W-SUN", 13), "month": ("M", 12), "quarter": ("Q", 5)}
WATCHED: Final = ("dormant", "lapsed")  # the stages whose share is a figure
LAYERS: Final[dict[str, tuple[Layer, Unit]]] = {
    "sales": ("results", "money"),
    "margin": ("results", "money"),
    "sales_per_member": ("results", "money"),
    "retained": ("results", "share"),
    "active_share": ("process", "share"),
    "frequency": ("process", "decimal"),
    "basket": ("process", "money"),
    "dormant_share": ("process", "share"),
    "lapsed_share": ("process", "share"),
    "contacts": ("process", "number"),
    "redemptions": ("process", "number"),
    "members": ("base", "number"),
    "joined": ("base", "number"),
    "buyers": ("base", "number"),
}


@dataclass(frozen=True)
class Kpi:
    """Hold one figure over the periods that are over, the latest last; None where it has no meaning."""

    name: str
    layer: Layer
    unit: Unit
    course: tuple[float | None, ...]

    @property
    def latest(self) -> float | None:
        """The last period's figure."""
        return self.course[-1]

    @property
    def change(self) -> float | None:
        """By which share it is above the period before: of a share, by how many points."""
        if len(self.course) < 2 or (now := self.course[-1]) is None or (before := self.course[-2]) is None:  # noqa: PLR2004 (the last two)
            return None
        if self.unit == "share":
            return now - before
        return now / before - 1 if before else None


@dataclass(frozen=True)
class View:
    """Hold the tree by one length of period; a period is named by its first day."""

    length: Length
    periods: tuple[datetime, ...]
    kpis: tuple[Kpi, ...]

    def of(self, layer: Layer) -> tuple[Kpi, ...]:
        """Give the figures of a layer that have a value."""
        return tuple(kpi for kpi in self.kpis if kpi.layer == layer and any(v is not None for v in kpi.course))


def gather_kpis(home: Home, programme: Programme) -> tuple[View, ...]:
    """Count by week, month and quarter of the programme's wall clock.

    Raises
    ------
    NotFoundError
        If nothing was ingested, or no period is over.
    """
    warehouse = open_warehouse(home)
    visits, joined = _visits(warehouse, programme), _local(warehouse.frame("members")["joined_at"], programme)
    stages = _stages(home, programme)
    views = tuple(
        view
        for length in PERIODS
        if (view := _view(length, visits, joined, stages, warehouse=warehouse, programme=programme))
    )
    if not views:
        raise NotFoundError("not one whole week of transactions is there yet")
    return views


def _view(
    length: Length,
    visits: pd.DataFrame,
    joined: pd.Series,
    stages: pd.DataFrame,
    *,
    warehouse: Warehouse,
    programme: Programme,
) -> View | None:
    rule, most = PERIODS[length]
    first, last = visits["at"].min().to_period(rule), visits["at"].max().to_period(rule)
    over = last if visits["at"].max().normalize() >= last.end_time.normalize() else last - 1
    whole = first if visits["at"].min().normalize() <= first.start_time else first + 1
    if over < whole:
        return None
    periods = pd.period_range(max(whole, over - most), over, freq=rule)  # one more than is shown, to compare with
    counts = _counts(visits.assign(period=visits["at"].dt.to_period(rule)), joined.dt.to_period(rule), periods)
    counts |= _contacted(warehouse, periods, programme, rule)
    at_end = stages.groupby(pd.DatetimeIndex(stages.index).to_period(rule)).last().reindex(periods)
    counts |= {str(name): at_end[name].to_numpy() for name in at_end}
    shown = periods[-most:]
    kpis = tuple(
        Kpi(name, layer, unit, tuple(_known(value) for value in counts[name][-len(shown) :]))
        for name, (layer, unit) in LAYERS.items()
        if name in counts
    )
    return View(length, tuple(one.start_time.to_pydatetime().replace(tzinfo=programme.zone) for one in shown), kpis)


def _counts(visits: pd.DataFrame, joined: pd.Series, periods: pd.PeriodIndex) -> dict[str, Floats]:
    grouped = visits.groupby("period")

    def by_period(values: Any) -> Floats:  # noqa: ANN401 (a series)
        return np.asarray(values.reindex(periods, fill_value=0), dtype=np.float64)

    sales, margin = by_period(grouped["amount"].sum()), by_period(grouped["margin"].sum())
    buyers, purchases = by_period(grouped["member_id"].nunique()), by_period(grouped.size())
    came = joined.value_counts().sort_index()
    members = np.array([float(came[came.index <= period].sum()) for period in periods])
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "sales": sales,
            "margin": margin,
            "sales_per_member": sales / members,
            "retained": np.fromiter(_retained(visits, periods), dtype=np.float64),
            "active_share": buyers / members,
            "frequency": purchases / buyers,
            "basket": sales / purchases,
            "members": members,
            "joined": by_period(came),
            "buyers": buyers,
        }


def _retained(visits: pd.DataFrame, periods: pd.PeriodIndex) -> Iterator[float]:
    """Give the share of each period's predecessor's buyers who bought again; of the first nobody knows."""
    bought: dict[Any, set[str]] = {period: set(ids) for period, ids in visits.groupby("period")["member_id"]}
    for period in periods:
        before = bought.get(period - 1, set())
        yield len(before & bought.get(period, set())) / len(before) if before else np.nan


def _contacted(warehouse: Warehouse, periods: pd.PeriodIndex, programme: Programme, rule: str) -> dict[str, Floats]:
    """Count contacts and redemptions."""
    if "contacts" not in warehouse.tables:
        return {}
    contacts = _local(warehouse.frame("contacts", ["contacted_at"])["contacted_at"], programme)
    sent = contacts.dt.to_period(rule).value_counts().reindex(periods, fill_value=0).to_numpy(dtype=np.float64)
    if "redemptions" not in warehouse.tables:
        return {"contacts": sent}
    redeemed = _local(warehouse.frame("redemptions", ["occurred_at"])["occurred_at"], programme)
    came = redeemed.dt.to_period(rule).value_counts().reindex(periods, fill_value=0).to_numpy(dtype=np.float64)
    return {"contacts": sent, "redemptions": came}


def _stages(home: Home, programme: Programme) -> pd.DataFrame:
    """Give the shares of members in a stage, a row per snapshot, by the last moment that it knows of."""
    dates = built_if_any(home)
    rows = [_in_stages(home.snapshot(as_of)) for as_of in dates]
    known = _local(pd.Series(pd.DatetimeIndex(dates, tz="UTC")), programme) - pd.Timedelta(1, "ms")
    return pd.DataFrame(rows, columns=[f"{stage}_share" for stage in WATCHED], index=pd.DatetimeIndex(known))


def _in_stages(snapshot: Path) -> list[float]:
    stages = pq.read_table(snapshot, columns=["lifecycle_stage"])["lifecycle_stage"]
    return [(pc.sum(pc.equal(stages, stage)).as_py() or 0) / max(len(stages), 1) for stage in WATCHED]


def _visits(warehouse: Warehouse, programme: Programme) -> pd.DataFrame:
    """Give one row per purchase: member_id, at (wall clock), amount, margin."""
    columns = ["member_id", "transaction_id", "occurred_at", "amount"]
    brought = "margin" in warehouse.expression("transactions").columns
    lines = warehouse.frame("transactions", columns + ["margin"] * brought)
    lines = lines if brought else lines.assign(margin=lines["amount"] * programme.margin_rate)
    visits = lines.groupby(["member_id", "transaction_id"], sort=False, as_index=False).agg(
        at=("occurred_at", "min"), amount=("amount", "sum"), margin=("margin", "sum")
    )
    return visits.assign(at=_local(visits["at"], programme))


def _local(times: pd.Series, programme: Programme) -> pd.Series:
    """Show times as the wall clock does, without their zone: a period is of the wall clock."""
    local: pd.Series = times.dt.tz_convert(programme.timezone).dt.tz_localize(None)
    return local


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
