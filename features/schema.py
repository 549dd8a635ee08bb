"""The glossary, and the tables a company brings.

One word per idea, in code, columns, tags and JSON:

member, member_id     who belongs to the programme; ids are strings of at most 128 characters
visit                 one purchase: the rows of `transactions` that share a `transaction_id`
as_of                 the moment, timezone-aware UTC, up to which something is known; `event_timestamp` in Feast
horizon               the days after `as_of` that are predicted
churned               1 if a member active before `as_of` made no purchase within the horizon. In a programme without
                      contracts most come back, so people read lapse. Predicted only as `churn_probability`
value                 margin within the horizon
treatment             what was done to a member: an offer's id, or `control`
offer                 what may be sent, with its costs and its time
propensity            the probability with which the logging policy chose the logged treatment
outcome               what followed, higher is better
uplift                outcome under an offer minus outcome under control
logging_policy        the policy that made a log; evaluation_policy: the one judged on it
policy_value          mean outcome a policy earns per member, after its costs
champion, challenger  the release that serves, and the one that wants to
reference, current    the two windows that monitoring compares
release               a verified folder of models and everything needed to serve them

Money is integer minor units (cents). Times are UTC. Higher is better, unless a name has `loss` or `error` in it.
"""

from dataclasses import dataclass
from typing import Final, Literal

CONTROL: Final = "control"
ID_LENGTH: Final = 128

Kind = Literal["id", "text", "time", "money", "count", "share", "flag"]


@dataclass(frozen=True)
class Column:
    """Describe one column of a table: its kind, and whether a table is refused without it."""

    name: str
    kind: Kind
    required: bool = True
    signed: bool = False  # money only: whether a negative amount (a refund) is allowed


@dataclass(frozen=True)
class Table:
    """Describe one table; further columns are kept as they come."""

    name: str
    columns: tuple[Column, ...]
    required: bool = False
    unique: tuple[str, ...] = ()  # the columns that name a row; () where rows may repeat
    together: tuple[str, ...] = ()  # where they may: the columns that rows share which always come together
    whole: bool = False  # whether one bad row refuses the table: a plan, whose rows count together

    @property
    def known(self) -> tuple[str, ...]:
        """Every column the contract names."""
        return tuple(column.name for column in self.columns)

    @property
    def key(self) -> tuple[str, ...]:
        """The columns by which rows that come again are known: they replace those that stand."""
        return self.unique or self.together

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns without which the table is refused."""
        return tuple(column.name for column in self.columns if column.required)


def _optional(*columns: tuple[str, Kind]) -> tuple[Column, ...]:
    return tuple(Column(name, kind, required=False) for name, kind in columns)


# when a row became known, if that was later than it happened: a backfill does not leak into the past
KNOWN_AT: Final = Column("known_at", "time", required=False)

TABLES: Final = {
    table.name: table
    for table in (
        Table(
            "members",
            (
                Column("member_id", "id"),
                Column("joined_at", "time"),
                *_optional(
                    ("personalisation", "flag"), ("birth_year", "count"), ("region", "text"), ("gender", "text")
                ),
            ),
            required=True,
            unique=("member_id",),
        ),
        Table(
            "transactions",
            (
                Column("transaction_id", "id"),
                Column("member_id", "id"),
                Column("occurred_at", "time"),
                Column("amount", "money", signed=True),
                Column("margin", "money", required=False, signed=True),
                *_optional(("discount", "money"), ("quantity", "count"), ("category", "text"), ("channel", "text")),
                KNOWN_AT,
            ),
            required=True,
            together=("transaction_id", "member_id"),
        ),
        Table(
            "subscriptions",
            (
                Column("member_id", "id"),
                Column("started_at", "time"),
                Column("ends_at", "time"),
                *_optional(("plan", "text"), ("price", "money"), ("renewed_at", "time"), ("cancelled_at", "time")),
                *_optional(("auto_renew", "flag")),
                KNOWN_AT,
            ),
            together=("member_id", "started_at"),
        ),
        Table(
            "events",
            (
                Column("event_id", "id"),
                Column("member_id", "id"),
                Column("occurred_at", "time"),
                Column("kind", "text"),
                Column("value", "money", required=False, signed=True),
                KNOWN_AT,
            ),
            unique=("event_id",),
        ),
        Table(
            "offers",
            (
                Column("offer_id", "id"),
                Column("name", "text"),
                Column("channel", "text"),
                Column("contact_cost", "money"),
                Column("redemption_cost", "money"),
                Column("valid_from", "time"),
                Column("valid_until", "time"),
                *_optional(("eligible", "text"), ("category", "text"), ("min_days_between_contacts", "count")),
                *_optional(("points", "count"), ("stock", "count"), ("mandatory", "flag"), ("excludes", "text")),
                *_optional(("price", "money"), ("public_price", "money"), ("currency", "text")),
            ),
            unique=("offer_id",),
            whole=True,
        ),
        Table(
            "contacts",
            (
                Column("contact_id", "id"),
                Column("member_id", "id"),
                Column("treatment", "id"),
                Column("contacted_at", "time"),
                *_optional(("campaign_id", "id"), ("propensity", "share"), ("decision_id", "id")),
                KNOWN_AT,
            ),
            unique=("contact_id",),
        ),
        Table(
            "redemptions",
            (
                Column("member_id", "id"),
                Column("offer_id", "id"),
                Column("occurred_at", "time"),
                *_optional(("contact_id", "id"), ("amount", "money")),
                KNOWN_AT,
            ),
            together=("member_id", "offer_id", "occurred_at"),
        ),
    )
}
