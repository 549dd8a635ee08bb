"""The entries of the decision log: a decision, what a request was answered, what followed, and batches."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final, Literal

Decided = Literal["model", "random", "hold_out", "opt_out", "fallback"]


@dataclass(frozen=True)
class Decision:
    """Hold one decision and all it takes to replay it; money in minor units, times in UTC.

    `refusals`, `uplift`, `cost`, `net_value` and `stock_prices` have one entry per offer, `probabilities` one per entry
    of `treatments`, where `control` stands first. Who could not be scored has none of them but `cost`, and the fallback
    beside `control` is all there is in `treatments`.
    """

    decision_id: str
    member_id: str
    campaign_id: str | None
    decided_at: datetime
    release_id: str
    catalogue_id: str
    outcome: Decided
    fallback_reason: str | None
    treatment: str
    propensity: float
    draw: float
    treatments: tuple[str, ...]
    probabilities: tuple[float, ...]
    asked: tuple[str, ...] | None  # the only offers the caller wanted considered
    refusals: tuple[str, ...]  # why an offer is not possible; "" where it is
    churn_probability: float | None
    value: int | None
    uplift: tuple[int, ...]
    cost: tuple[int, ...]  # expected: the contact, redemptions and points; what counts against a budget
    net_value: tuple[int, ...]  # expected: what it brings less its cost; the choice takes off the prices too
    price: float  # the shadow price of the campaign's budget
    stock_prices: tuple[float, ...]
    segment: str | None
    lifecycle_stage: str | None
    reasons: tuple[dict[str, Any], ...]
    features: bytes  # float32, little-endian, in the release's order, NaN where missing
    facts: dict[str, float | str | None]  # what rules and consent read
    standing: dict[str, Any]  # what caps, stock and budget saw: see `serving.decide`
    event_timestamp: datetime | None
    source: str  # whose the numbers are: model, or what stood in for it: last_score, segment_default, nothing
    scores: bytes  # what stood in: float64, little-endian, as `training.artifacts.Scores` gives rows; else empty
    context: dict[str, Any]
    idempotency_key: str | None

    @property
    def eligible(self) -> tuple[bool, ...]:
        """Which offers were possible."""
        return tuple(not refusal for refusal in self.refusals)


@dataclass(frozen=True)
class Answer:
    """Hold what a request was answered, so that its repetition gets the same bytes."""

    idempotency_key: str
    body_sha256: str
    status: int
    body: bytes


@dataclass(frozen=True)
class Outcome:
    """Hold what followed a decision or a contact; `amount` in minor units."""

    outcome_id: str
    decision_id: str | None
    contact_id: str | None
    kind: str
    occurred_at: datetime
    amount: int | None


@dataclass(frozen=True)
class Batch:
    """Name a run of decisions for a whole audience."""

    batch_id: str
    campaign_id: str | None
    decided_at: datetime
    release_id: str
    catalogue_id: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """Name one file of a batch; `path` is relative to the folder of the log, or absolute."""

    batch_id: str
    part: int
    path: str
    sha256: str
    rows: int


DECISION: Final = tuple(field.name for field in fields(Decision))
ANSWER: Final = tuple(field.name for field in fields(Answer))
OUTCOME: Final = tuple(field.name for field in fields(Outcome))
BATCH: Final = tuple(field.name for field in fields(Batch))
PART: Final = tuple(field.name for field in fields(Part))
PRICE: Final = ("campaign_id", "base_price", "stock_prices", "set_at")
