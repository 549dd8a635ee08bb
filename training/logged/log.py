"""The log that uplift is learned from: who got which offer with what probability, and what followed."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from features import complete_journey
from features.schema import CONTROL
from features.synthetic import OfferTerms, overlay_experiment
from features.warehouse import Warehouse
from training import splits
from training.judging.estimators import Log
from training.logged import contacts
from training.logged.balance import balance_p, sample_ratio_p
from training.preparation import Prepared
from training.releases.manifest import OfferSpec
from training.uplift import FEWEST_MEMBERS

BELIEVED_P: Final = 0.001  # below it, contacts were not drawn as their propensities say
SIMULATED, RANDOMISED, NONE = "simulated", "randomised", "none"


@dataclass(frozen=True)
class ExperimentLog:
    """Hold what uplift is learned from and judged on, and how far it can be believed.

    Attributes
    ----------
    experiment
        `simulated`, `randomised`, or `none`: then nothing says what the offers bring, and a release makes no offer
    offers
        those that were tried often enough in both parts, by id
    train, test
        a row per contact: member_id, as_of, features, treatment, propensity, outcome (margin within the horizon less
        redemption costs), retained (0 or 1), redeemed (0 or 1; 0 for control)
    reasons
        why nothing can be learned, or an offer is left out
    left_out
        how many contacts were, by reason
    sample_ratio_p, balance_p
        of the arms' sizes, and of the features within them
    fewest_of_an_arm
        members who had the rarest treatment, before or after the split
    """

    experiment: str
    offers: tuple[OfferSpec, ...] = ()
    train: pd.DataFrame = field(default_factory=pd.DataFrame)
    test: pd.DataFrame = field(default_factory=pd.DataFrame)
    reasons: tuple[str, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)
    sample_ratio_p: float | None = None
    balance_p: float | None = None
    fewest_of_an_arm: int | None = None


Join = Callable[[pd.DataFrame], pd.DataFrame]


def experiment_log(
    prepared: Prepared, join: Join, offers: tuple[OfferSpec, ...], rng: np.random.Generator
) -> ExperimentLog:
    """Give the log of a programme: of its randomised contacts, or of the experiment that is simulated on built-in data.

    Parameters
    ----------
    join : gives rows of member_id and as_of their features, point in time
    """
    if prepared.warehouse.source == complete_journey.SOURCE:
        return _judged(SIMULATED, prepared, offers, simulate_log(prepared, simulated_terms(offers), rng))
    if not offers or "contacts" not in prepared.warehouse.tables:
        missing = "offers" if not offers else "contacts"
        return ExperimentLog(NONE, reasons=(f"there are no {missing}: nothing says what an offer would bring",))
    rows = contacts.contact_rows(prepared, offers)
    if not len(rows.frame):
        told = "; ".join(f"{count:,} contacts: {reason}" for reason, count in rows.left_out.items())
        return ExperimentLog(NONE, reasons=(f"no contact says what an offer brings ({told})",), left_out=rows.left_out)
    parts = split_contacts(rows.frame, prepared)
    found = _judged(RANDOMISED, prepared, offers, {name: join(part) for name, part in parts.items()})
    return replace(found, left_out=rows.left_out)


def split_contacts(frame: pd.DataFrame, prepared: Prepared) -> dict[str, pd.DataFrame]:
    """Judge on the contacts of the test dates, and learn from those whose horizon was over when they began."""
    programme = prepared.programme
    test = frame[frame["contacted_at"] >= pd.Timestamp(prepared.split.test[0])]
    start = test["contacted_at"].min() if len(test) else pd.Timestamp(prepared.known_until)
    before = programme.days_before(start.to_pydatetime(), programme.label_days - programme.lead_days)
    train = frame[frame["contacted_at"] <= pd.Timestamp(before)]
    return {"train": train.reset_index(drop=True), "test": test.reset_index(drop=True)}


def simulate_log(prepared: Prepared, terms: Sequence[OfferTerms], rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """Overlay the simulated experiment on waves whose horizons do not overlap; the later ones are for judging."""
    waves = {
        name: splits.disjoint(dates, programme=prepared.programme)
        for name, dates in (("train", prepared.split.train), ("test", prepared.split.test))
    }
    rows = pd.concat(
        [prepared.part(tuple(dates)).assign(part=name) for name, dates in waves.items()], ignore_index=True
    )
    log = overlay_experiment(rows, offers=terms, rng=rng)
    return {name: log[log["part"] == name].reset_index(drop=True) for name in waves}


def simulated_terms(offers: Sequence[OfferSpec]) -> list[OfferTerms]:
    """Say how members respond to each offer in the simulated experiment."""
    response = complete_journey.RESPONSES
    return [OfferTerms(o.offer_id, o.contact_cost, o.redemption_cost, response[o.offer_id]) for o in offers]


def offer_specs(warehouse: Warehouse) -> tuple[OfferSpec, ...]:
    """Read the offers, ordered by id; money as plain integers, times in ISO 8601. None where there is no such table."""
    if "offers" not in warehouse.tables:
        return ()
    rows: list[dict[str, Any]] = json.loads(
        warehouse.frame("offers").sort_values("offer_id").to_json(orient="records", date_format="iso", date_unit="s")
    )
    names = [column.name for column in fields(OfferSpec)]
    return tuple(OfferSpec(**{name: row[name] for name in names}) for row in rows)


def log_of(log: pd.DataFrame, offers: Sequence[OfferSpec]) -> Log:
    """Write a frame's log as arrays; treatment 0 is control."""
    index = {CONTROL: 0} | {offer.offer_id: i + 1 for i, offer in enumerate(offers)}
    return Log(
        treatment=log["treatment"].map(index).to_numpy().astype(np.int64),
        propensity=log["propensity"].to_numpy(dtype=np.float64),
        outcome=log["outcome"].to_numpy(dtype=np.float64),
        contact_cost=np.array([0.0, *[float(offer.contact_cost) for offer in offers]]),
        member_ids=log["member_id"].to_numpy(),
    )


def _judged(
    experiment: str, prepared: Prepared, offers: tuple[OfferSpec, ...], parts: dict[str, pd.DataFrame]
) -> ExperimentLog:
    """Leave out offers that too few members had, and look whether the rest was drawn as the log says."""
    fewest = {name: _fewest(parts, name) for name in (CONTROL, *[offer.offer_id for offer in offers])}
    thin = {name: n for name, n in fewest.items() if n < FEWEST_MEMBERS}
    told = f"members before and after the split, at least {FEWEST_MEMBERS} were wanted of each"
    reasons = tuple(f"{name!r} is left out: it had {n} {told}" for name, n in thin.items())
    kept = tuple(offer for offer in offers if offer.offer_id not in thin)
    if CONTROL in thin or not kept:
        return ExperimentLog(NONE, reasons=reasons)
    train, test = (
        part[~part["treatment"].isin(list(thin))].reset_index(drop=True) for part in (parts["train"], parts["test"])
    )
    both = pd.concat([train, test], ignore_index=True)
    drawn = log_of(both, kept)
    sizes, balance = sample_ratio_p(drawn), balance_p(drawn, both[list(prepared.features)].to_numpy(dtype=np.float64))
    if min(sizes, balance) < BELIEVED_P:
        why = f"contacts were not drawn as their propensities say: arms' sizes p {sizes:.4f}, features p {balance:.4f}"
        return ExperimentLog(NONE, reasons=(*reasons, why), sample_ratio_p=sizes, balance_p=balance)
    least = min(fewest[name] for name in (CONTROL, *[offer.offer_id for offer in kept]))
    found = ExperimentLog(experiment, kept, train, test, reasons)
    return replace(found, sample_ratio_p=sizes, balance_p=balance, fewest_of_an_arm=least)


def _fewest(parts: dict[str, pd.DataFrame], treatment: str) -> int:
    return min(part.loc[part["treatment"] == treatment, "member_id"].nunique() for part in parts.values())
