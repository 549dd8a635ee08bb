"""The HTTP contract, version 1: what a request may hold, and what an answer holds.

Requests are read strictly: no unknown fields, no number that comes as text. Answers are described here for the OpenAPI
document; money is integer minor units of `currency`, times are UTC.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from features.decisions import Decided
from features.schema import ID_LENGTH

MEMBERS: Final = 500
OFFERS: Final = 100
ROWS: Final = 500
AMOUNT: Final = 10**12
YEARS: Final = (1970, 2200)

Id = Annotated[str, StringConstraints(min_length=1, max_length=ID_LENGTH)]
Word = Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9_]{0,63}$")]
Ids = Annotated[tuple[Id, ...], Field(min_length=1, max_length=MEMBERS, description="each at most once")]
Offers = Annotated[tuple[Id, ...], Field(min_length=1, max_length=OFFERS)]
ContextValue = Annotated[str, StringConstraints(max_length=256)] | bool | int | float | None
Money = Annotated[int, Field(ge=-AMOUNT, le=AMOUNT)]
Count = Annotated[int, Field(ge=0, le=AMOUNT)]
Text = Annotated[str, StringConstraints(max_length=256)]
Fallback = Literal[
    "unknown_member",
    "features_unavailable",
    "features_invalid",
    "features_late",
    "features_too_old",
    "model_unavailable",
]
Source = Literal["model", "last_score", "segment_default", "nothing"]


def _plausible(time: datetime) -> datetime:
    if not YEARS[0] < time.year < YEARS[1]:
        raise ValueError(f"a time between {YEARS[0]} and {YEARS[1]} was wanted")
    return time.astimezone(UTC)


Time = Annotated[AwareDatetime, AfterValidator(_plausible), Field(description="ISO 8601 with its offset from UTC")]
RowStatus = Literal["accepted", "duplicate", "waiting"]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ScoresRequest(_Request):
    """Ask what is known of members."""

    members: Ids
    offers: Offers | None = Field(None, description="only these offers; without it, every offer of the release")

    @field_validator("members", "offers")
    @classmethod
    def _once(cls, ids: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if ids and len(set(ids)) < len(ids):
            raise ValueError("an id came more than once; send each once")
        return ids


class DecisionsRequest(ScoresRequest):
    """Ask for one decision per member."""

    campaign_id: Id | None = None
    context: dict[Id, ContextValue] = Field(
        default_factory=dict,
        max_length=50,
        description="what the caller wants kept with the decision; no deeper values",
    )


class OutcomeRequest(_Request):
    """Say what followed a decision or a contact."""

    outcome_id: Id
    decision_id: Id | None = None
    contact_id: Id | None = None
    kind: Word = Field(description="such as purchase, redemption, visit, cancellation")
    occurred_at: Time
    amount: Money | None = Field(None, description="minor units")

    @model_validator(mode="after")
    def _one_cause(self) -> Self:
        if (self.decision_id is None) == (self.contact_id is None):
            raise ValueError("one of decision_id and contact_id was wanted")
        return self


class PreferencesRequest(_Request):
    """Say what a member wants."""

    personalisation: bool = Field(
        description="false: from the next decision on no feature of the member is read, and the treatment is control"
    )


class _Row(_Request):
    member_id: Id
    occurred_at: Time


class TransactionRow(_Row):
    """One line of a purchase, as in the table `transactions`; amounts in minor units."""

    transaction_id: Id = Field(description="of the purchase; all its lines come in one request")
    amount: Money = Field(description="below 0 for a refund")
    margin: Money | None = None
    discount: Count | None = None
    quantity: Count | None = None
    category: Text | None = None
    channel: Text | None = None


class EventRow(_Row):
    """One event, as in the table `events`."""

    event_id: Id
    kind: Text
    value: Money | None = None


class TransactionsRequest(_Request):
    """Say what members bought."""

    rows: Annotated[tuple[TransactionRow, ...], Field(min_length=1, max_length=ROWS)]


class EventsRequest(_Request):
    """Say what members did."""

    rows: Annotated[tuple[EventRow, ...], Field(min_length=1, max_length=ROWS)]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Reason(_Answer):
    """Name a feature that moved a member's risk."""

    feature: str
    value: float | None = Field(description="null where nothing is known")
    effect: float = Field(
        description="on the log-odds of leaving: above 0 raises the risk; the effects of all features add up"
    )
    text: str


class _Known(_Answer):
    member_id: str
    churn_probability: float | None = Field(
        description="null, as all that follows from it, where only a fallback answers"
    )
    expected_net_value: int | None = Field(description="what it brings minus what it costs; 0 for control")
    uplift: dict[str, int] = Field(
        description="by offer: incremental margin within the horizon, after redemption costs"
    )
    segment: str | None
    lifecycle_stage: str | None
    reasons: list[Reason] = Field(description="what moves this member's risk most")
    fallback_reason: Fallback | None = Field(description="why the models were not asked about this member")
    source: Source = Field(
        description="whose the numbers are: model; last_score: what the release said of the member by the last "
        "snapshot; segment_default: the mean of the segment and life cycle stage; nothing: there are none"
    )
    release_id: str
    feature_age_seconds: int | None


class MemberScore(_Known):
    """Say what is known of a member; `expected_net_value` is that of the best eligible treatment."""


class MemberDecision(_Known):
    """Say what was decided for a member; `expected_net_value` is that of `treatment`."""

    decision_id: str
    treatment: str = Field(description="an offer's id, or control: no contact")
    propensity: float = Field(description="the probability with which this treatment was drawn, after all constraints")
    cost: dict[str, int] = Field(description="by offer: expected cost of the contact, its redemption and its points")
    refusals: dict[str, str] = Field(description="by offer, where it was not possible: the first reason why")
    outcome: Decided = Field(
        description="model: by the model; random: the member's treatment is always drawn evenly, and hold_out: the "
        "member is never contacted, so that effects can be measured; fallback: see fallback_reason; opt_out: no "
        "personalisation"
    )


class DecisionRecord(MemberDecision):
    """Show a decision as it was logged."""

    campaign_id: str | None
    decided_at: datetime
    draw: float = Field(description="the uniform number that chose among the probabilities")
    probabilities: dict[str, float] = Field(description="by treatment")
    eligible: dict[str, bool] = Field(description="by offer")
    net_value: dict[str, int] = Field(description="by offer")
    price: float = Field(description="of the campaign's budget: what one more unit would earn beyond itself")
    stock_prices: dict[str, float] = Field(description="by offer: what one more of it would earn")
    asked: list[str] | None = Field(description="the only offers that were to be considered")
    facts: dict[str, float | str | None] = Field(description="of the member, as rules and consent read them")
    standing: dict[str, Any] = Field(
        description="what limited the decision, by offer where there is a list, null where nothing did: days since the "
        "last contact, contacts in the period, what was left of budget and stock"
    )
    catalogue_id: str
    context: dict[str, ContextValue]
    language: Literal["en", "zh"]
    explanation: list[str] = Field(
        description="in plain language: what was decided and why, why not the rest, and what, changed alone, would "
        "have changed it, found by taking the decision again; none where its release is gone"
    )


class _Batch(_Answer):
    currency: str
    experiment: str = Field(
        description="where the uplift comes from: simulated, randomised, or none: then the release makes no offer, and "
        "every treatment is control"
    )


class DecisionsAnswer(_Batch):
    """Answer with one decision per member, in the order asked."""

    decisions: list[MemberDecision]


class ScoresAnswer(_Batch):
    """Answer with one row per member, in the order asked."""

    scores: list[MemberScore]


class OutcomeAnswer(_Answer):
    """Confirm an outcome."""

    outcome_id: str
    duplicate: bool = Field(description="whether the same outcome had come before")


class PreferencesAnswer(_Answer):
    """Confirm what a member wants; it is on the disk."""

    personalisation: bool


class ErasureAnswer(_Answer):
    """Give the receipt of an erasure."""

    receipt_id: str
    erased_at: datetime
    members: list[str] = Field(description="not the id: a hash of it under a key that only this installation has")
    removed: dict[str, int] = Field(description="by place: how many rows or files were removed or made nobody's")


class BegunAnswer(_Answer):
    """Say that an erasure is begun: it is noted on the disk, and will be done whatever happens to the service."""

    receipt_id: str = Field(description="`GET /v1/erasures/{receipt_id}` gives the receipt once nothing is left")


class RowsAnswer(_Answer):
    """Confirm rows: they are on the disk, and the next decision sees them.

    What compares a member with all others (the RFM scores and the segment that follows from them) stays that of the
    last snapshot; every other feature is computed anew, as of `as_of`.
    """

    as_of: datetime
    rows: list[RowStatus] = Field(
        description="in the order sent; duplicate: the same came before and counts once; waiting: kept, and counts "
        "from when an ingest has brought the member, or a first table of this kind"
    )


class OfferAnswer(_Answer):
    """Describe an offer of the release."""

    offer_id: str
    name: str
    channel: str
    contact_cost: int
    redemption_cost: int
    valid_from: str
    valid_until: str


class RefusedAnswer(_Answer):
    """Name the champion that does not serve, and say why."""

    release_id: str
    reason: str


class ReleaseAnswer(_Batch):
    """Say what is being served."""

    release_id: str
    refused: RefusedAnswer | None = Field(description="null while the champion serves")
    shadow: str | None = Field(description="the release that decides beside the champion and is obeyed by nobody")
    refused_shadow: RefusedAnswer | None = Field(description="null unless a release was named that can't be the shadow")
    reference_as_of: list[str]
    features: list[str]
    offers: list[OfferAnswer]
    catalogue_id: str = Field(description="of the offers, policy and campaigns of the moment")
    hold_out: float
    random_arm: float
    exploration: float
    clock: datetime = Field(description="the service's time; a programme of the past is replayed from its own")


class StateAnswer(_Answer):
    """Say that the service lives."""

    status: Literal["alive"]


class ReadyAnswer(_Answer):
    """Say whether the service takes requests, and how it is with what it stands on."""

    status: Literal["ready", "degraded", "not_ready"]
    checks: dict[Literal["store", "log", "release"], str]
    refused_release: str | None = Field(None, description="the champion, where the one before it serves")
