"""The company's past campaigns as cohorts: who was contacted, who was not, what they brought before and after."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import numpy as np
import pandas as pd

from features.programme import Programme
from features.schema import CONTROL
from training.labels import between
from training.logged.observational import ObservationalEffect, observational_effect
from training.promotion import Verdict, judge_campaign


@dataclass(frozen=True)
class JudgedCampaign:
    """Hold an effect as far as it can be known, and what the gate says of acting on it."""

    effect: ObservationalEffect
    gate: Verdict


def cohorts(
    contacts: pd.DataFrame, visits: pd.DataFrame, *, snapshots: Sequence[datetime], programme: Programme
) -> dict[str, pd.DataFrame]:
    """Give for every offer one row per campaign and member active a horizon before it.

    Features are to be taken at `as_of`, the last of `snapshots` at least a horizon before the contact: then the horizon
    before the contact can be the placebo.

    Returns
    -------
    offer -> member_id, as_of, treated (0 or 1), outcome (margin within the horizon after the contact), placebo_outcome
    (margin within the horizon before it)
    """
    found: dict[str, list[pd.DataFrame]] = {}
    groups = contacts[contacts["treatment"] != CONTROL].groupby(["treatment", "contacted_at"], sort=True)
    for key, contacted in groups:
        offer, start = cast("tuple[str, pd.Timestamp]", key)
        begin = start.to_pydatetime()
        before, after = (
            programme.days_before(begin, days) for days in (programme.horizon_days, -programme.horizon_days)
        )
        known = [as_of for as_of in snapshots if as_of <= before]
        if known and after <= snapshots[-1]:
            times = (known[-1], before, begin, after)
            cohort = _cohort(visits, contacted["member_id"], times, programme)
            found.setdefault(offer, []).append(cohort)
    return {offer: pd.concat(parts, ignore_index=True) for offer, parts in found.items()}


def judge_campaigns(
    found: dict[str, pd.DataFrame],
    with_features: Callable[[pd.DataFrame], pd.DataFrame],
    *,
    features: Sequence[str],
    contact_cost: Mapping[str, float],
    programme: Programme,
    rng: np.random.Generator,
) -> dict[str, JudgedCampaign]:
    """Estimate what each offer's campaigns brought, whether that can be known, and whether to act on it.

    What a contact costs is nothing where it is not known.
    """
    judged = {}
    for offer, cohort in found.items():
        effect = observational_effect(with_features(cohort), features=features, rng=rng, money=programme.money)
        gate = judge_campaign(effect, contact_cost=contact_cost.get(offer, 0.0), money=programme.money)
        judged[offer] = JudgedCampaign(effect, gate)
    return judged


def _cohort(
    visits: pd.DataFrame,
    contacted: pd.Series,
    times: tuple[datetime, datetime, datetime, datetime],
    programme: Programme,
) -> pd.DataFrame:
    as_of, before, start, after = times
    active = between(visits, programme.days_before(as_of, programme.activity_days), as_of)["member_id"].unique()
    members = pd.Index(np.sort(active), name="member_id")

    def margin(begin: datetime, end: datetime) -> np.ndarray:
        total = between(visits, begin, end).groupby("member_id")["margin"].sum()
        return total.reindex(members, fill_value=0).to_numpy(dtype=np.float64)

    return pd.DataFrame(
        {
            "member_id": members.to_numpy(),
            "as_of": pd.Timestamp(as_of).as_unit("us"),
            "treated": members.isin(contacted).astype(np.int8),
            "outcome": margin(start, after),
            "placebo_outcome": margin(before, start),
        }
    )
