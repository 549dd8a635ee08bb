"""What members of a segment bring and cost: ARPU, lifetime value, CAC, and the return on what is spent on contacts.

A figure that nothing in the data says is not known, and never 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.programme import Programme
from features.sheet import Sheet
from training.artifacts import Scores
from training.judging.estimators import dr
from training.judging.evidence import estimate
from training.logged.log import SIMULATED, ExperimentLog, log_of
from training.metrics import Estimate, bootstrap
from training.ope import fixed

Floats = NDArray[np.float64]
Figures = TypeVar("Figures")

SEGMENTS: Final = ("lifecycle_stage", "tier", "segment")  # features that are words; the last one is of RFM
FEWEST_MEMBERS: Final = 10  # below, the figures are a few people's, and an interval means little
ARPU_DAYS: Final = 28
NOT_KNOWN: Final = "not known"
WORTH: Final = {"arpu": "ARPU, 28 days", "lifetime_value": "CLV, a year", "acquisition_cost": "CAC"}
RETURN: Final = {"contact_cost": "contacts cost", "incremental_margin": "they bring"}


@dataclass(frozen=True)
class Worth:
    """Hold what a segment's members bring and have cost, money in minor units per member; None: nothing says it."""

    members: int
    arpu: Estimate  # margin per 28 days
    lifetime_value: Estimate | None  # margin expected over a year
    acquisition_cost: Estimate | None
    value_to_cost: Estimate | None  # CLV / CAC


@dataclass(frozen=True)
class Return:
    """Hold what contacts with a segment's members cost and bring, money in minor units per decision."""

    decisions: int
    contact_cost: Estimate
    incremental_margin: Estimate  # before the cost of the contact
    return_on_contacts: Estimate | None  # ROI: (incremental margin - contact cost) / contact cost


def worth_by_segment(
    members: pd.DataFrame, segment: str, *, programme: Programme, rng: np.random.Generator
) -> dict[str, Worth]:
    """Sum up members by a column that names their segment; the segments of fewer than ten members are left out.

    Parameters
    ----------
    members : one row each: member_id, the segment, `margin_28d`, and of `lifetime_value` and `acquisition_cost`
        whatever is known; minor units. Without costs of acquisition those of the settings count for everybody
    """
    known = members
    if "acquisition_cost" not in members and programme.economics.acquisition_cost is not None:
        known = members.assign(acquisition_cost=programme.economics.acquisition_cost)
    return _by_segment(known, segment, lambda rows: _worth(rows, rng))


def return_by_segment(contacts: pd.DataFrame, segment: str, *, rng: np.random.Generator) -> dict[str, Return]:
    """Sum up decisions by the segment their members were in then; those of fewer than ten members are left out.

    Parameters
    ----------
    contacts : as `contact_terms` gives them, with the segment
    """
    return _by_segment(contacts, segment, lambda rows: _return(rows, rng))


def contact_terms(log: ExperimentLog, scores: Scores, policy: Floats) -> pd.DataFrame:
    """Give what the model's contacts would cost and bring at each decision of the log's later part.

    Parameters
    ----------
    scores : of these decisions
    policy : (n, 1 + n_offers) what the model would do, as `training.logged.experiment.served` says

    Returns
    -------
    member_id, as_of, `contact_cost`, and `incremental_margin`: the term of a doubly robust estimate of what the policy
    brings over no contact, before costs; minor units
    """
    test = log_of(log.test, log.offers)
    nothing = fixed(0, np.ones(scores.uplift.shape, dtype=np.bool_))
    q = scores.margin_by_treatment
    cost = policy @ test.contact_cost
    return log.test[["member_id", "as_of"]].assign(
        contact_cost=cost, incremental_margin=dr(test, policy, q) - dr(test, nothing, q) + cost
    )


def _by_segment(rows: pd.DataFrame, segment: str, sum_up: Callable[[pd.DataFrame], Figures]) -> dict[str, Figures]:
    groups = rows.groupby(segment, sort=True, observed=True)
    return {str(name): sum_up(of) for name, of in groups if of["member_id"].nunique() >= FEWEST_MEMBERS}


def _worth(rows: pd.DataFrame, rng: np.random.Generator) -> Worth:
    ids = rows["member_id"].to_numpy()
    column = {
        name: rows[name].to_numpy(dtype=np.float64)
        for name in ("margin_28d", "lifetime_value", "acquisition_cost")
        if name in rows and not rows[name].isna().any()
    }
    value, cost = column.get("lifetime_value"), column.get("acquisition_cost")
    return Worth(
        members=len(rows),
        arpu=estimate(column["margin_28d"], ids),
        lifetime_value=None if value is None else estimate(value, ids),
        acquisition_cost=None if cost is None else estimate(cost, ids),
        value_to_cost=None if value is None or cost is None else _ratio(value, cost, ids, rng),
    )


def _return(rows: pd.DataFrame, rng: np.random.Generator) -> Return:
    ids = rows["member_id"].to_numpy()
    cost, brought = (rows[name].to_numpy(dtype=np.float64) for name in ("contact_cost", "incremental_margin"))
    return Return(
        decisions=len(rows),
        contact_cost=estimate(cost, ids),
        incremental_margin=estimate(brought, ids),
        return_on_contacts=_ratio(brought - cost, cost, ids, rng),
    )


def _ratio(numerator: Floats, denominator: Floats, ids: NDArray[Any], rng: np.random.Generator) -> Estimate | None:
    if (denominator > 0).sum() < FEWEST_MEMBERS:
        return None
    return bootstrap(ratio, numerator, denominator, clusters=ids, rng=rng)


def ratio(numerator: Floats, denominator: Floats, *, weight: Floats | None = None) -> float:
    """Divide one sum by another, which is not the mean of the ratios.

    >>> ratio(np.array([30.0, 10.0]), np.array([10.0, 10.0]))
    2.0
    """
    return float(np.average(numerator, weights=weight) / np.average(denominator, weights=weight))


def economics_sheet(economics: Mapping[str, Any], segment: str, *, programme: Programme) -> Sheet:
    """Show what the members of each segment are worth, the most members first.

    Parameters
    ----------
    economics : the evidence, as JSON
    """
    scale = 10**programme.currency_digits
    ordered = sorted(economics["worth"][segment].items(), key=lambda item: -item[1]["members"])
    rows = tuple(
        (name, f"{of['members']:,}", *[_shown(of[key], scale) for key in WORTH], _shown(of["value_to_cost"], 1))
        for name, of in ordered
    )
    as_of = datetime.fromisoformat(economics["as_of"]).astimezone(programme.zone)
    note = (
        f"{programme.currency} of margin per member, 95 % intervals by member; that of CLV, which is predicted, is not "
        f"of the model's own error. ARPU is of the {programme.horizon_days} days that followed."
    )
    title = f"Economics by {segment}, of everybody who had bought by {as_of:%Y-%m-%d}"
    return Sheet(title, ("", "members", *WORTH.values(), "CLV / CAC"), rows, (note,))


def returns_sheet(economics: Mapping[str, Any], *, programme: Programme) -> Sheet:
    """Show what the model's contacts would cost and bring in each segment.

    Parameters
    ----------
    economics : the evidence, as JSON, of a release that makes offers
    """
    scale, kind = 10**programme.currency_digits, economics["experiment"]
    rows = tuple(
        (
            f"{segment}: {name}",
            f"{of['decisions']:,}",
            *[_shown(of[key], scale) for key in RETURN],
            _shown(of["return_on_contacts"], 1),
        )
        for segment, groups in economics["returns"].items()
        for name, of in groups.items()
    )
    source = f"a {kind.upper()} experiment{', not from customers' if kind == SIMULATED else ''}"
    note = (
        f"{programme.currency} per decision, 95 % intervals by member. What contacts bring, before their own cost, is "
        f"from {source}; ROI is what is left of it for each {programme.currency} of cost."
    )
    return Sheet("What the model's contacts return", ("", "decisions", *RETURN.values(), "ROI"), rows, (note,))


def _shown(figure: Mapping[str, float] | None, scale: int) -> str:
    if figure is None:
        return NOT_KNOWN
    value, lower, upper = (f"{figure[name] / scale:,.2f}" for name in ("value", "lower", "upper"))
    return value if lower == upper else f"{value} [{lower}, {upper}]"
