"""The tables that features see, cut at one `as_of`: what had happened by then, as far as it was known by then.

Each has a `member_id`, and none has a row at or after `as_of`, nor one that became known (`known_at`) at or after it.
A table that the company does not bring is not there; then all its features are missing.

visits         one row per purchase: amount, discount, lines, quantity, [margin], weekday (0 is Monday), hour, days_ago
purchase_days  one row per local day with a purchase: days_ago, before (days_ago of the purchase day before it), gap
categories     one row per member and category of the last 12 weeks: amount
channels       one row per member and channel of the last 12 weeks: visits
contacts       one row per contact that was no control: treatment, days_ago, place (in the order of time), answered
               (whether a redemption named it)
redemptions    one row per redemption: contact_id, days_ago
events         one row per event: kind, value, days_ago, place (in the order of time), survey (whether it has a score)
terms          one row per term of a subscription: days_ago, days_to_end, renewed, cancelled, auto_renews (0 or 1),
               price, plan, newest (whether it began last)
member         the aggregates of the above, joined_days_ago, and of `members` personalisation, region, gender
audience       the same with the member features, and the bounds of `features.catalogue.segments`
"""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

import ibis
import ibis.expr.types as ir

from features.catalogue.entries import Source
from features.programme import Programme
from features.schema import CONTROL

RECENT_DAYS: Final = 84
ATTRIBUTES: Final = ("personalisation", "region", "gender")  # of `members`: as they stand, since no row says since when
# what features read of each table, as far as a company brings it: the time of a row, then the rest
READ: Final = {
    "members": ("joined_at", *ATTRIBUTES),
    "transactions": (
        *("occurred_at", "transaction_id", "amount", "margin", "discount", "quantity", "category", "channel"),
    ),
    "contacts": ("contacted_at", "contact_id", "treatment"),
    "redemptions": ("occurred_at", "contact_id"),
    "events": ("occurred_at", "event_id", "kind", "value"),
    "subscriptions": ("started_at", "ends_at", "plan", "price", "renewed_at", "cancelled_at", "auto_renew"),
}
READ_OF_ALL: Final = ("member_id", "local_time", "known_at")
DAY_SECONDS: Final = 86_400
# columns a company may not bring, and what stands for them
OPTIONAL: Final = {
    "members": {
        "personalisation": ibis.null("boolean"),
        "region": ibis.null("string"),
        "gender": ibis.null("string"),
    },
    "transactions": {"discount": ibis.literal(0), "category": ibis.literal("all"), "quantity": ibis.null("int64")},
    "redemptions": {"contact_id": ibis.null("string")},
    "events": {"value": ibis.null("int64")},
    "subscriptions": {
        "plan": ibis.null("string"),
        "price": ibis.null("int64"),
        "renewed_at": ibis.null("timestamp('UTC')"),
        "cancelled_at": ibis.null("timestamp('UTC')"),
        "auto_renew": ibis.null("boolean"),
    },
}


@dataclass(frozen=True)
class Moment:
    """Hold an `as_of` as expressions: a snapshot's are literals, those of members who did something just now vary."""

    time: ir.Scalar  # timestamp in UTC
    today: ir.Scalar  # date: the programme's local day at that time


def moment(as_of: datetime, programme: Programme) -> Moment:
    """Fix an `as_of`."""
    return Moment(ibis.literal(as_of), ibis.literal(as_of.astimezone(programme.zone).date()))


@ibis.udf.scalar.builtin(name="getvariable", signature=(("string",), "string"))  # type: ignore[untyped-decorator]
def variable(name: str) -> None:
    """Read a variable of a DuckDB session, which has no type before it is set."""


def session_moment() -> Moment:
    """Leave the moment to the variables `as_of` and `today` of a DuckDB session: then one query serves many."""
    return Moment(variable("as_of").cast("timestamp('UTC')"), variable("today").cast("date"))


def visible(tables: dict[str, ir.Table]) -> dict[str, ir.Table]:
    """Keep of each table the columns that features read: nothing else can move a value."""
    return {
        name: table.select([column for column in (*READ_OF_ALL, *READ[name]) if column in table.columns])
        for name, table in tables.items()
        if name in READ
    }


def members_at(tables: dict[str, ir.Table], *, at: Moment) -> ir.Table:
    """Give everybody who had joined before the moment: member_id, joined_days_ago, and the attributes."""
    members = _cut(_complete(tables, "members"), "joined_at", at=at)
    return members.select("member_id", *ATTRIBUTES, joined_days_ago=members.days_ago)


def sources_at(tables: dict[str, ir.Table], *, at: Moment, programme: Programme) -> dict[Source, ir.Table]:
    """Give the tables that features aggregate."""
    cut = partial(_cut, at=at)
    lines = cut(_complete(tables, "transactions"))
    visits = _visits(lines, at)
    sources: dict[Source, ir.Table] = {
        "visits": visits,
        "purchase_days": _purchase_days(visits),
        "categories": _categories(lines),
    }
    if "channel" in lines.columns:
        sources["channels"] = _channels(visits)
    if "redemptions" in tables:
        sources["redemptions"] = cut(_complete(tables, "redemptions"))
    if "contacts" in tables:
        contacts = tables["contacts"]
        sent = cut(contacts.filter(contacts.treatment != CONTROL), "contacted_at")
        sources["contacts"] = _contacts(sent, sources.get("redemptions"))
    if "events" in tables:
        sources["events"] = _events(cut(_complete(tables, "events")), programme)
    if "subscriptions" in tables:
        sources["terms"] = _terms(_complete(tables, "subscriptions"), at)
    return sources


def _cut(table: ir.Table, time: str = "occurred_at", *, at: Moment) -> ir.Table:
    """Keep what happened and was known before the moment, and count local days back from it."""
    return _known(table, time, at).mutate(days_ago=lambda t: _days_ago(t, at))


def _days_ago(table: ir.Table, at: Moment) -> ir.Value:
    return at.today.delta(table.local_time.date(), unit="day")


def _known(table: ir.Table, time: str, at: Moment) -> ir.Table:
    """Keep the rows before the moment; one that does not say when it became known was known when it happened."""
    happened = table.filter(table[time] < at.time)
    if "known_at" not in happened.columns:
        return happened
    return happened.filter(happened.known_at.isnull() | (happened.known_at < at.time))


def _complete(tables: dict[str, ir.Table], name: str) -> ir.Table:
    table = tables[name]
    return table.mutate(**{column: value for column, value in OPTIONAL[name].items() if column not in table.columns})


def _visits(lines: ir.Table, at: Moment) -> ir.Table:
    brought = {name: lines[name] for name in ("margin", "channel") if name in lines.columns}
    more = {name: column.sum() if name == "margin" else column.min() for name, column in brought.items()}
    return (
        lines.group_by("member_id", "transaction_id")
        .aggregate(
            amount=lines.amount.sum(),
            discount=lines.discount.sum(),
            lines=lines.count(),
            quantity=lines.quantity.sum(),
            local_time=lines.local_time.min(),
            **more,
        )
        .mutate(
            weekday=lambda t: t.local_time.day_of_week.index(),
            hour=lambda t: t.local_time.hour(),
            days_ago=lambda t: _days_ago(t, at),
        )
    )


def _purchase_days(visits: ir.Table) -> ir.Table:
    days = visits.select("member_id", "days_ago").distinct()
    before = days.days_ago.lag().over(group_by="member_id", order_by=days.days_ago.desc())
    return days.mutate(before=before).mutate(gap=lambda t: t.before - t.days_ago)


def _categories(lines: ir.Table) -> ir.Table:
    recent = lines.filter(lines.days_ago <= RECENT_DAYS)
    return recent.group_by("member_id", "category").aggregate(amount=recent.amount.sum())


def _channels(visits: ir.Table) -> ir.Table:
    recent = visits.filter((visits.days_ago <= RECENT_DAYS) & visits.channel.notnull())
    return recent.group_by("member_id", "channel").aggregate(visits=recent.count())


def _contacts(contacts: ir.Table, redemptions: ir.Table | None) -> ir.Table:
    contacts = contacts.mutate(place=_place(contacts, "contacted_at", "contact_id"))
    if redemptions is None:
        return contacts.mutate(answered=ibis.literal(False))
    named = redemptions.filter(redemptions.contact_id.notnull())
    answers = named.select("member_id", "contact_id").distinct().mutate(answered=True)
    joined = contacts.left_join(answers, ["member_id", "contact_id"])
    return joined.select("member_id", "treatment", "days_ago", "place", answered=joined.answered.fill_null(False))


def _events(events: ir.Table, programme: Programme) -> ir.Table:
    survey = events.kind.isin(programme.events.survey) & events.value.notnull()
    return events.mutate(survey=survey, place=_place(events, "occurred_at", "event_id"))


def _terms(terms: ir.Table, at: Moment) -> ir.Table:
    begun = _known(terms, "started_at", at)
    return begun.select(
        "member_id",
        "plan",
        "price",
        days_ago=_days_between(begun.started_at, at.time),
        days_to_end=_days_between(at.time, begun.ends_at),
        renewed=(begun.renewed_at < at.time).fill_null(False).cast("int64"),
        cancelled=(begun.cancelled_at < at.time).fill_null(False).cast("int64"),
        auto_renews=begun.auto_renew.cast("int64"),
        newest=_newest(begun, "started_at", "ends_at", "price", "plan"),
    )


def _days_between(first: ir.Value, second: ir.Value) -> ir.Value:
    """Count days of 24 hours, rounded down.

    Spark's seconds are whole and DuckDB's are not: parts of them, which both can write, decide over the last one.
    """
    seconds = second.truncate("s").epoch_seconds() - first.truncate("s").epoch_seconds()
    lacking = (second.strftime("%f") < first.strftime("%f")).cast("int64")
    return (seconds - lacking) // DAY_SECONDS


def _place(table: ir.Table, *order: str) -> ir.Value:
    """Say where a row stands in time; the second column decides between rows of one moment."""
    return ibis.struct({column: table[column] for column in order})


def _newest(table: ir.Table, *order: str) -> ir.Value:
    """Mark the last row of each member; the columns after the first decide between rows of one moment."""
    by = [table[column].desc() for column in order]
    return ibis.row_number().over(group_by="member_id", order_by=by) == 0
