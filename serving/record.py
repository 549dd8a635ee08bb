"""What is known of members, and decisions about them, as the log and the caller get them: explained plain values."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from features.decisions import Decided, Decision
from features.log.standing import Standing
from features.rules import known_facts
from features.schema import CONTROL
from serving.decide import FALLBACKS, INVALID, SOURCES, UNAVAILABLE, UNKNOWN, Choice, Decider, Members, Occasion, Worth
from training.constraints import CONSENT, OPTED_OUT, REFUSALS
from training.policy import HELD_OUT, RANDOM

if TYPE_CHECKING:
    from features.store import MemberFeatures

Floats = NDArray[np.float64]
Reasons = tuple[dict[str, Any], ...]

_WORDS: Final = np.array(REFUSALS, dtype=object)


@dataclass(frozen=True)
class File:
    """Hold what was looked up of members, and why each is at risk, a row each."""

    member_ids: tuple[str, ...]
    members: Members
    reasons: tuple[Reasons, ...]
    segment: tuple[str | None, ...]
    lifecycle_stage: tuple[str | None, ...]
    event_timestamp: tuple[datetime | None, ...]

    def rows(self, part: slice) -> "File":
        """Give some of the members."""
        told = (self.segment[part], self.lifecycle_stage[part], self.event_timestamp[part])
        return File(self.member_ids[part], self.members.rows(part), self.reasons[part], *told)


@dataclass(frozen=True)
class Request:
    """Hold what is decided on beside members, and where ids come from; what callers sent stands by each member."""

    occasion: Occasion
    uniform: Floats  # (n_members,)
    context: Sequence[Mapping[str, Any]]  # (n_members,)
    idempotency_key: Sequence[str | None]  # (n_members,)
    new_id: Callable[[], str]


def open_file(decider: Decider, features: "MemberFeatures", standing: Standing) -> File:
    """Take what the feature store knows; who is unknown, or has an infinite feature, can't be scored.

    Features of a member who opted out are left out: nothing is made of them.
    """
    infinite = np.isinf(features.X).any(axis=1)
    fallback = np.where(~features.known, UNKNOWN, np.where(infinite, INVALID, 0)).astype(np.int8)
    members = Members(features.X, fallback, *decider.drawn(features.member_ids), features.facts, standing)
    members.X[members.opted_out] = np.nan
    told = (features.segment, features.lifecycle_stage, features.event_timestamp)
    return File(features.member_ids, members, reasons_of(decider, members), *told)


def blank_file(
    decider: Decider, member_ids: Sequence[str], standing: Standing, fallback_code: int = UNAVAILABLE
) -> File:
    """Say that nothing of members can be had."""
    n = len(member_ids)
    X = np.full((n, len(decider.release.feature_names)), np.nan, dtype=np.float32)
    facts = {name: fact_column(name, [None] * n) for name in decider.facts}
    fallback = np.full(n, fallback_code, dtype=np.int8)
    members = Members(X, fallback, *decider.drawn(member_ids), facts, standing)
    return File(tuple(member_ids), members, ((),) * n, *((None,) * n,) * 3)


def silent_file(
    decider: Decider, member_ids: Sequence[str], standing: Standing, *, known: File | None, places: NDArray[np.intp]
) -> File:
    """Put what was looked up of some in their places; the others opted out, and nothing of them was read.

    Parameters
    ----------
    known : a row for each of `places`; None where there is none
    """
    n = len(member_ids)
    X = np.full((n, len(decider.release.feature_names)), np.nan, dtype=np.float32)
    facts = {name: fact_column(name, [OPTED_OUT if name == CONSENT else None] * n) for name in decider.facts}
    fallback = np.zeros(n, dtype=np.int8)
    told: list[list[Any]] = [[()] * n, *([None] * n for _ in range(3))]
    if known is not None:
        X[places], fallback[places] = known.members.X, known.members.fallback
        for name, column in facts.items():
            column[places] = known.members.facts[name]
        for words, values in zip(told, _told(known), strict=True):
            for place, value in zip(places.tolist(), values, strict=True):
                words[place] = value
    members = Members(X, fallback, *decider.drawn(member_ids), facts, standing)
    return File(tuple(member_ids), members, *map(tuple, told))


def marked(file: File, fallback_code: int, where: NDArray[np.bool_]) -> File:
    """Say of some members that they can't be scored after all, and give no reasons for what nobody says."""
    fallback = np.where(where, np.int8(fallback_code), file.members.fallback)
    reasons = tuple(() if gone else told for gone, told in zip(where.tolist(), file.reasons, strict=True))
    return replace(file, members=replace(file.members, fallback=fallback), reasons=reasons)


def reasons_of(decider: Decider, members: Members) -> tuple[Reasons, ...]:
    """Say why each member is at risk, `(n_members,)`; nothing of whom the models were not asked about."""
    scored = members.own
    if not scored.any():
        return ((),) * len(scored)
    X = members.X if scored.all() else members.X[scored]
    found = iter(decider.explainer.reasons(X, decider.release.models.shares(X)))
    return tuple(next(found) if fine else () for fine in scored.tolist())


def _told(file: File) -> tuple[Sequence[Any], ...]:
    return file.reasons, file.segment, file.lifecycle_stage, file.event_timestamp


def fact_column(name: str, values: Sequence[float | str | None]) -> NDArray[Any]:
    """Lay out what is known of members, `(n_members,)`: numbers, missing as NaN, or words, missing as None."""
    return np.array(values, dtype=np.float64 if known_facts().get(name) == "number" else object)


def known_of(file: File, worth: Worth, net_value: Floats) -> list[dict[str, Any]]:
    """Give what is known of each member, in plain values, under the names of the log."""
    scored = file.members.scored.tolist()
    columns = zip(
        file.member_ids,
        file.members.fallback.tolist(),
        worth.churn_probability.tolist(),
        np.rint(worth.value).astype(np.int64).tolist(),
        np.rint(worth.uplift).astype(np.int64).tolist(),
        np.rint(net_value).astype(np.int64).tolist(),
        file.segment,
        file.lifecycle_stage,
        file.reasons,
        file.event_timestamp,
        scored,
        file.members.source.tolist(),
        _stood_in(file.members),
        strict=True,
    )
    return [
        {
            "member_id": member_id,
            "fallback_reason": FALLBACKS[fallback],
            "churn_probability": churn if fine else None,
            "value": value if fine else None,
            "uplift": tuple(uplift) if fine else (),
            "net_value": tuple(net) if fine else (),
            "segment": segment,
            "lifecycle_stage": stage,
            "reasons": reasons,
            "event_timestamp": time,
            "source": SOURCES[whose],
            "scores": given,
        }
        for member_id, fallback, churn, value, uplift, net, segment, stage, reasons, time, fine, whose, given in columns
    ]


def record(decider: Decider, file: File, *, worth: Worth, choice: Choice, request: Request) -> tuple[Decision, ...]:
    """Make what the log keeps of decisions."""
    occasion = request.occasion
    shared: dict[str, Any] = {
        "campaign_id": occasion.campaign_id,
        "decided_at": occasion.now,
        "release_id": decider.release.release_id,
        "catalogue_id": decider.catalogue.catalogue_id,
        "asked": occasion.asked,
        "price": occasion.purse.price,
        "stock_prices": tuple(occasion.purse.stock_prices.tolist()),
    }
    rows = zip(
        known_of(file, worth, choice.net_value),
        _outcomes(file.members),
        _treatments(decider, file.members, worth, choice),
        request.uniform.tolist(),
        _facts(file.members),
        _standings(decider, file.members.standing, choice, apart=occasion.purse.apart),
        file.members.X.astype("<f4"),
        request.context,
        request.idempotency_key,
        strict=True,
    )
    return tuple(
        Decision(
            **known,
            **drawn,
            **shared,
            decision_id=request.new_id(),
            outcome=outcome,
            draw=number,
            facts=facts,
            standing=standing,
            features=X.tobytes(),
            context=dict(context),
            idempotency_key=key,
        )
        for known, outcome, drawn, number, facts, standing, X, context, key in rows
    )


def _stood_in(members: Members) -> list[bytes]:
    """Give the numbers that stood in for the models', as the log keeps them; nothing where none did."""
    if members.stand_in is None:
        return [b""] * len(members.fallback)
    stood_in = (members.scored & ~members.own).tolist()
    rows = members.stand_in.scores.astype("<f8")
    return [row.tobytes() if there else b"" for there, row in zip(stood_in, rows, strict=True)]


def _outcomes(members: Members) -> Iterator[Decided]:
    arms: dict[int, Decided] = {int(HELD_OUT): "hold_out", int(RANDOM): "random"}
    for fallback, opted_out, arm in zip(members.fallback, members.opted_out, members.arm.tolist(), strict=True):
        yield "opt_out" if opted_out else "fallback" if fallback else arms.get(arm, "model")


def _treatments(decider: Decider, members: Members, worth: Worth, choice: Choice) -> Iterator[dict[str, Any]]:
    """Say what was possible for each member, with which probability, and what was drawn."""
    columns = zip(
        choice.chosen.tolist(),
        choice.probabilities.tolist(),
        _WORDS[choice.refusals].tolist(),
        worth.cost.astype(np.int64).tolist(),
        members.scored.tolist(),
        members.known.tolist(),
        choice.fell_back.tolist(),
        strict=True,
    )
    for index, probabilities, refusals, cost, scored, known, fell_back in columns:
        if not known:
            yield _fallback(decider, int(fell_back))
            continue
        yield {
            "treatment": decider.treatments[index],
            "propensity": probabilities[index],
            "treatments": decider.treatments,
            "probabilities": tuple(probabilities),
            "refusals": tuple(refusals),
            "cost": tuple(cost) if scored else (),
        }


def _fallback(decider: Decider, index: int) -> dict[str, Any]:
    """Say what a member gets of whom nothing is known: control, or the fallback offer."""
    offer = decider.fallback
    treatments = (CONTROL,) if offer is None else (CONTROL, offer.offer_id)
    return {
        "treatment": treatments[index],
        "propensity": 1.0,
        "treatments": treatments,
        "probabilities": tuple(float(place == index) for place in range(len(treatments))),
        "refusals": (),
        "cost": () if offer is None else (offer.contact_cost,),
    }


def _facts(members: Members) -> Iterator[dict[str, float | str | None]]:
    names = tuple(members.facts)
    columns = [_plain(column) for column in members.facts.values()]
    return (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))


def _standings(decider: Decider, standing: Standing, choice: Choice, *, apart: bool) -> list[dict[str, Any]]:
    """Give what caps, budget and stock saw: only what limits something, null for what is infinite."""
    columns: dict[str, list[Any]] = {}
    if decider.constraints.longest_days:
        columns["since_offer"] = [_finite(row) for row in standing.since_offer.tolist()]
        columns["since_any"] = _finite(standing.since_any.tolist())
        columns["in_period"] = standing.in_period.tolist()
    if np.isfinite(choice.budget).any():
        columns["budget"] = choice.budget.tolist()
    if decider.constraints.stock:
        columns["stock"] = [_finite(row) for row in choice.stock.tolist()]
    if apart:
        columns["apart"] = [True] * len(standing.since_any)
    if not columns:
        return [{}] * len(standing.since_any)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _finite(numbers: list[float]) -> list[float | None]:
    return [None if number == float("inf") else number for number in numbers]


def _plain(column: NDArray[Any]) -> list[float | str | None]:
    """Give JSON values: a missing number is null."""
    values: list[float | str | None] = column.tolist()
    return values if column.dtype == object else [None if value != value else value for value in values]  # noqa: PLR0124 (NaN)
