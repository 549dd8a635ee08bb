"""What members of a segment bring and cost: ARPU, lifetime value, CAC, and the return on what was spent on contacts.

A figure that nothing in the data says is not known, and never 0.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.programme import Programme
from features.sheet import Sheet
from training.evidence import estimate
from training.metrics import Estimate, bootstrap

Floats = NDArray[np.float64]

SEGMENTS: Final = ("lifecycle_stage", "tier", "segment")  # features that are words; the last one is of RFM
FEWEST_MEMBERS: Final = 10  # below, the figures are a few people's, and an interval means little
NOT_KNOWN: Final = "not known"
HEADER: Final = (
    "",
    "members",
    "ARPU, 28 days",
    "CLV, a year",
    "CAC",
    "CLV / CAC",
    "contacts cost",
    "they brought",
    "ROI",
)


@dataclass(frozen=True)
class Economics:
    """Hold a segment's figures, money in minor units per member; None: nothing says it."""

    members: int
    arpu: Estimate  # margin per 28 days
    lifetime_value: Estimate | None  # margin expected over a year
    acquisition_cost: Estimate | None
    value_to_cost: Estimate | None  # CLV / CAC
    contact_cost: Estimate | None
    incremental_margin: Estimate | None  # that an experiment gives the contacts, before their cost
    return_on_contacts: Estimate | None  # ROI: (incremental margin - contact cost) / contact cost


def by_segment(
    members: pd.DataFrame, segment: str, *, programme: Programme, rng: np.random.Generator
) -> dict[str, Economics]:
    """Sum up members by a column that names their segment; the segments of fewer than ten members are left out.

    Parameters
    ----------
    members : one row each: member_id, the segment, `margin_28d`, and of `lifetime_value`, `acquisition_cost`,
        `contact_cost` and `incremental_margin` (one term of a doubly robust estimate) whatever is known; minor units.
        Without costs of acquisition those of the settings count for everybody
    """
    known = members
    if "acquisition_cost" not in members and programme.economics.acquisition_cost is not None:
        known = members.assign(acquisition_cost=programme.economics.acquisition_cost)
    groups = known.groupby(segment, sort=True, observed=True)
    return {str(name): _economics(rows, rng) for name, rows in groups if len(rows) >= FEWEST_MEMBERS}


def _economics(rows: pd.DataFrame, rng: np.random.Generator) -> Economics:
    ids = rows["member_id"].to_numpy()
    column = {
        name: rows[name].to_numpy(dtype=np.float64)
        for name in ("margin_28d", "lifetime_value", "acquisition_cost", "contact_cost", "incremental_margin")
        if name in rows and not rows[name].isna().any()
    }

    def mean(name: str) -> Estimate | None:
        return estimate(column[name], ids) if name in column else None

    def over(numerator: str, denominator: str) -> Estimate | None:
        if not {numerator, denominator} <= set(column) or (column[denominator] > 0).sum() < FEWEST_MEMBERS:
            return None
        return bootstrap(ratio, column[numerator], column[denominator], clusters=ids, rng=rng)

    if {"incremental_margin", "contact_cost"} <= set(column):
        column["gain"] = column["incremental_margin"] - column["contact_cost"]
    return Economics(
        members=len(rows),
        arpu=estimate(column["margin_28d"], ids),
        lifetime_value=mean("lifetime_value"),
        acquisition_cost=mean("acquisition_cost"),
        value_to_cost=over("lifetime_value", "acquisition_cost"),
        contact_cost=mean("contact_cost"),
        incremental_margin=mean("incremental_margin"),
        return_on_contacts=over("gain", "contact_cost"),
    )


def ratio(numerator: Floats, denominator: Floats, *, weight: Floats | None = None) -> float:
    """Divide one sum by another, which is not the mean of the ratios.

    >>> ratio(np.array([30.0, 10.0]), np.array([10.0, 10.0]))
    2.0
    """
    return float(np.average(numerator, weights=weight) / np.average(denominator, weights=weight))


def economics_sheet(segments: dict[str, Economics], *, segment: str, programme: Programme) -> Sheet:
    """Show the segments, the most members first."""
    scale = 10**programme.currency_digits

    def row(name: str, of: Economics) -> tuple[str, ...]:
        money = [
            _shown(figure, scale)
            for figure in (of.arpu, of.lifetime_value, of.acquisition_cost, of.contact_cost, of.incremental_margin)
        ]
        value_to_cost, roi = (_shown(figure, 1) for figure in (of.value_to_cost, of.return_on_contacts))
        return name, f"{of.members:,}", *money[:3], value_to_cost, *money[3:], roi

    ordered = sorted(segments.items(), key=lambda item: -item[1].members)
    note = f"Margin and costs in {programme.currency} per member, 95 % intervals by member."
    return Sheet(f"Economics by {segment}", HEADER, tuple(row(*item) for item in ordered), (note,))


def _shown(figure: Estimate | None, scale: int) -> str:
    if figure is None:
        return NOT_KNOWN
    value, lower, upper = (f"{number / scale:,.2f}" for number in (figure.value, figure.lower, figure.upper))
    return value if lower == upper else f"{value} [{lower}, {upper}]"
