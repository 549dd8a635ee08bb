"""From a release and members' features to decisions: NumPy and dataclasses, no clock, no disk, no randomness.

What depends on the release alone is worked out once, when it is loaded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from features.decisions import Decided, Decision
from features.errors import ContractError
from features.programme import Programme
from features.schema import CONTROL
from serving.explain import Explainer, contributions
from training.artifacts import Matrix, Release
from training.policy import CONTROL_INDEX, HELD_OUT, arms, draw, net_values, treatment_probabilities

if TYPE_CHECKING:
    from features.store import MemberFeatures

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
T = TypeVar("T", bound=np.generic)

UNKNOWN: Final = "unknown_member"
UNAVAILABLE: Final = "features_unavailable"
INVALID: Final = "features_invalid"


@dataclass(frozen=True)
class Assessment:
    """Hold what is known of members and may be done to each, before anything is drawn; money in minor units.

    Rows of members who could not be scored hold zeros, and `control` is all that is possible for them.
    """

    member_ids: tuple[str, ...]
    fallback_reason: tuple[str | None, ...]
    X: Matrix
    churn_probability: Floats  # (n_members,)
    value: NDArray[np.int64]  # (n_members,)
    uplift: NDArray[np.int64]  # (n_members, n_offers)
    net_value: NDArray[np.int64]  # (n_members, n_offers)
    eligible: Flags  # (n_members, n_offers)
    held_out: Flags  # (n_members,)
    probabilities: Floats  # (n_members, 1 + n_offers), control first
    reasons: tuple[tuple[dict[str, Any], ...], ...]
    segment: tuple[str | None, ...]
    lifecycle_stage: tuple[str | None, ...]
    event_timestamp: tuple[datetime | None, ...]

    @property
    def scored(self) -> Flags:
        """Whose numbers are the models' own, `(n_members,)`."""
        return np.array([reason is None for reason in self.fallback_reason], dtype=np.bool_)


class Decider:
    """Decide by one release."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self.programme = Programme.model_validate(release.manifest.programme)
        offers = release.manifest.offers
        self.treatments = (CONTROL, *release.offer_ids)
        self._contact_cost = np.array([offer.contact_cost for offer in offers], dtype=np.float64)
        self._valid_from = np.array([_seconds(offer.valid_from) for offer in offers])
        self._valid_until = np.array([_seconds(offer.valid_until) for offer in offers])
        self._explainer = Explainer(release.manifest.features, self.programme)

    def unavailable(self, member_ids: Sequence[str]) -> Assessment:
        """Assess members whose features can't be read: `control` for all."""
        return _blank(tuple(member_ids), reasons=(UNAVAILABLE,) * len(member_ids), release=self.release)

    def assess(self, features: "MemberFeatures", *, offers: Sequence[str] | None, now: datetime) -> Assessment:
        """Score members and give each treatment its probability.

        Parameters
        ----------
        features : in the order of `release.feature_names`
        offers : the only ones to be considered, of the release; None for every one
        """
        infinite = np.isinf(features.X).any(axis=1)
        reasons = tuple(
            None if fine else INVALID if known else UNKNOWN
            for fine, known in zip(features.known & ~infinite, features.known, strict=True)
        )
        blank = _blank(features.member_ids, reasons=reasons, release=self.release)
        blank = replace(
            blank,
            segment=features.segment,
            lifecycle_stage=features.lifecycle_stage,
            event_timestamp=features.event_timestamp,
        )
        scored = blank.scored
        return (
            self._scored(replace(blank, X=features.X), scored, self._on_offer(offers, now)) if scored.any() else blank
        )

    def decide(
        self,
        assessment: Assessment,
        uniform: Floats,
        *,
        now: datetime,
        new_id: Callable[[], str],
        campaign_id: str | None,
        context: Mapping[str, Any],
        idempotency_key: str | None,
    ) -> tuple[Decision, ...]:
        """Draw one treatment per member with `uniform` `(n_members,)`."""
        chosen = draw(assessment.probabilities, uniform).tolist()
        probabilities, eligible = assessment.probabilities.tolist(), assessment.eligible.tolist()
        rows = zip(rows_of(assessment), chosen, probabilities, eligible, uniform.tolist(), assessment.X, strict=True)
        return tuple(
            Decision(
                **row,
                decision_id=new_id(),
                campaign_id=campaign_id,
                decided_at=now,
                release_id=self.release.release_id,
                treatment=self.treatments[index],
                propensity=chances[index],
                draw=number,
                treatments=self.treatments,
                probabilities=tuple(chances),
                catalogue_id="",
                asked=None,
                refusals=tuple("" if one else "excluded" for one in possible),
                cost=tuple(offer.contact_cost for offer in self.release.manifest.offers),
                price=0.0,
                stock_prices=(0.0,) * len(possible),
                facts={},
                standing={},
                features=values.astype("<f4").tobytes(),
                context=dict(context),
                idempotency_key=idempotency_key,
            )
            for row, index, chances, possible, number, values in rows
        )

    def _on_offer(self, offers: Sequence[str] | None, now: datetime) -> Flags:
        valid = (self._valid_from <= now.timestamp()) & (now.timestamp() < self._valid_until)
        wanted = np.isin(self.release.offer_ids, offers) if offers is not None else np.ones_like(valid)
        return np.asarray(valid & wanted)

    def _scored(self, blank: Assessment, scored: Flags, on_offer: Flags) -> Assessment:
        X = np.ascontiguousarray(blank.X[scored])
        scores = self.release.score(X)
        experiment = self.programme.experiment
        net_value = _spread(net_values(scores.uplift, self._contact_cost), scored)
        bar = _spread(experiment.floor * scores.uplift_error, scored)
        eligible = scored[:, None] & on_offer
        arm = arms(blank.member_ids, salt=experiment.salt, hold_out=experiment.hold_out, random_arm=0.0)
        reasons = iter(self._explainer.reasons(X, contributions(self.release.models.churn, X)))
        return replace(
            blank,
            churn_probability=_spread(scores.churn_probability, scored),
            value=_spread(np.rint(scores.value).astype(np.int64), scored),
            uplift=_spread(np.rint(scores.uplift).astype(np.int64), scored),
            net_value=np.rint(net_value).astype(np.int64),
            eligible=eligible,
            held_out=arm == HELD_OUT,
            probabilities=treatment_probabilities(
                net_value, eligible, arm, exploration=experiment.exploration, bar=bar
            ),
            reasons=tuple(next(reasons) if fine else () for fine in scored),
        )


def rows_of(assessment: Assessment) -> list[dict[str, Any]]:
    """Give what is known of each member, in plain values, under the names of the log."""
    columns = zip(
        assessment.member_ids,
        assessment.fallback_reason,
        assessment.held_out.tolist(),
        assessment.churn_probability.tolist(),
        assessment.value.tolist(),
        assessment.uplift.tolist(),
        assessment.net_value.tolist(),
        assessment.segment,
        assessment.lifecycle_stage,
        assessment.reasons,
        assessment.event_timestamp,
        strict=True,
    )
    return [
        {
            "member_id": member_id,
            "outcome": _outcome(reason, held_out=held_out),
            "fallback_reason": reason,
            "churn_probability": churn if reason is None else None,
            "value": value if reason is None else None,
            "uplift": tuple(uplift) if reason is None else (),
            "net_value": tuple(net_value) if reason is None else (),
            "segment": segment,
            "lifecycle_stage": stage,
            "reasons": reasons,
            "event_timestamp": time,
        }
        for member_id, reason, held_out, churn, value, uplift, net_value, segment, stage, reasons, time in columns
    ]


def _outcome(fallback_reason: str | None, *, held_out: bool) -> Decided:
    if fallback_reason is not None:
        return "fallback"
    return "hold_out" if held_out else "model"


def _blank(member_ids: tuple[str, ...], *, reasons: tuple[str | None, ...], release: Release) -> Assessment:
    n, k = len(member_ids), len(release.offer_ids)
    probabilities = np.zeros((n, 1 + k))
    probabilities[:, CONTROL_INDEX] = 1.0
    nothing = (None,) * n
    return Assessment(
        member_ids=member_ids,
        fallback_reason=reasons,
        X=np.full((n, len(release.feature_names)), np.nan, dtype=np.float32),
        churn_probability=np.zeros(n),
        value=np.zeros(n, dtype=np.int64),
        uplift=np.zeros((n, k), dtype=np.int64),
        net_value=np.zeros((n, k), dtype=np.int64),
        eligible=np.zeros((n, k), dtype=np.bool_),
        held_out=np.zeros(n, dtype=np.bool_),
        probabilities=probabilities,
        reasons=((),) * n,
        segment=nothing,
        lifecycle_stage=nothing,
        event_timestamp=nothing,
    )


def _spread(values: NDArray[T], scored: Flags) -> NDArray[T]:
    rows = np.zeros((len(scored), *values.shape[1:]), dtype=values.dtype)
    rows[scored] = values
    return rows


def _seconds(time: str) -> float:
    moment = datetime.fromisoformat(time)
    if moment.tzinfo is None:
        raise ContractError(f"an offer is valid from or until {time}, a time with its offset from UTC was wanted")
    return moment.timestamp()
