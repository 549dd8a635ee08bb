"""A world's tables as a company would bring them: what can be seen, as Arrow."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.world.law import WAVE_DAYS, YEAR_DAYS, World
from features.world.life import KINDS, Happenings, Lived, Purchases
from features.world.members import CATEGORIES, GENDERS, PLANS, REGIONS, TRAITS, Floats, Ints, Members

DAY: Final = 86_400_000_000  # microseconds
OPENS: Final = DAY // 3  # 8 o'clock
OPEN: Final = DAY // 2  # to 20 o'clock: nothing happens outside
TIME: Final = pa.timestamp("us", tz="UTC")


def member_ids(members: Members) -> pa.Array:
    """Name every member."""
    return pc.binary_join_element_wise("m", pc.utf8_lpad(pa.array(members.number).cast(pa.string()), 8, "0"), "")


def wave_tables(
    world: World, lived: Lived, treatment: NDArray[np.intp], contacted: Ints, *, wave: int, prefix: str
) -> dict[str, pa.Table]:
    """Write what a wave brought: transactions, events, contacts and redemptions.

    Parameters
    ----------
    treatment : (n_members,)
    contacted : the places of the members in the campaign, those under control among them
    prefix : what makes ids distinct from those of other waves and other groups of members
    """
    ids = member_ids(lived.members)
    tables = {
        "transactions": pa.concat_tables(
            _transactions(world, part, ids, f"{prefix}{kind}")
            for kind, part in zip("vaxp", lived.purchases, strict=True)
        ),
        "events": _events(world, lived.events, ids, prefix),
    }
    tables["contacts"] = _contacts(world, ids.take(pa.array(contacted)), treatment[contacted], wave)
    tables["redemptions"] = _redemptions(world, lived.redemptions, ids, wave)
    return tables


def members_table(world: World, members: Members) -> pa.Table:
    """Write who the members are; where traits can be observed, in whole hundredths."""
    shown = TRAITS if world.observable else ()
    return pa.table(
        {
            "member_id": member_ids(members),
            "joined_at": _times(world, members.joined),
            "personalisation": pa.array(members.personalisation),
            "birth_year": pa.array(members.birth_year),
            "region": _words(REGIONS, members.region),
            "gender": _words(GENDERS, members.gender),
        }
        | {name: np.rint(100 * getattr(members, name)).astype(np.int64) for name in shown}
    )


def offers_table(world: World) -> pa.Table:
    """Write what may be sent; an offer can be sent again after a wave."""
    offers, n = world.offers, len(world.offers)
    names = ("offer_id", "name", "channel", "contact_cost", "redemption_cost")
    return pa.table(
        {name: [getattr(offer, name) for offer in offers] for name in names}
        | {
            "valid_from": _times(world, np.zeros(n)),
            "valid_until": _times(world, np.full(n, world.days + YEAR_DAYS)),
            "min_days_between_contacts": [WAVE_DAYS] * n,
        }
    )


def subscriptions_table(world: World, members: Members, *, until: int) -> pa.Table:
    """Write one row per term that began by day `until`, as it was known then, from the term that ran on day 0."""
    term, joined = np.maximum(members.term, 1), members.joined
    first = np.maximum(-joined // term, 0)
    last = np.ceil((np.minimum(members.left, until) - joined) / term).astype(np.int64)  # terms begun, in all
    count = np.where((members.term > 0) & (members.left > 0), np.maximum(last - first, 0), 0)
    who = np.repeat(np.arange(len(members)), count)
    number = first[who] + np.arange(len(who)) - np.repeat(np.cumsum(count) - count, count)
    started, ends = joined[who] + number * term[who], joined[who] + (number + 1) * term[who]
    left, prices = members.left[who], members.price[who]
    plan = np.searchsorted(list(PLANS), members.term[who])
    return pa.table(
        {
            "member_id": member_ids(members).take(pa.array(who)),
            "started_at": _times(world, started),
            "ends_at": _times(world, ends),
            "plan": _words([name for name, _ in PLANS.values()], plan),
            "price": pa.array(prices),
            "renewed_at": _times(world, np.where((ends < left) & (ends < until), ends, np.nan)),
            "cancelled_at": _times(world, np.where((left <= ends) & (left < until), left, np.nan)),
        }
    )


def _transactions(world: World, bought: Purchases, ids: pa.Array, prefix: str) -> pa.Table:
    return pa.table(
        {
            "transaction_id": _numbered(f"t{prefix}", len(bought.who)),
            "member_id": ids.take(pa.array(bought.who)),
            "occurred_at": _times(world, bought.day),
            "amount": pa.array(bought.amount),
            "margin": pa.array(bought.margin),
            "discount": pa.array(bought.discount),
            "quantity": pa.array(bought.quantity),
            "category": _words([*CATEGORIES, "subscription"], bought.category),
            "channel": _words(("store", "online"), bought.online.astype(np.int64)),
        }
    )


def _events(world: World, events: Happenings, ids: pa.Array, prefix: str) -> pa.Table:
    return pa.table(
        {
            "event_id": _numbered(f"e{prefix}", len(events.who)),
            "member_id": ids.take(pa.array(events.who)),
            "occurred_at": _times(world, events.day),
            "kind": _words(KINDS, events.what),
            "value": pa.array(events.value, from_pandas=True).cast(pa.int64()),
        }
    )


def _contacts(world: World, ids: pa.Array, treatment: NDArray[np.intp], wave: int) -> pa.Table:
    return pa.table(
        {
            "contact_id": _contact_ids(ids, wave),
            "member_id": ids,
            "treatment": _words(world.treatments, treatment),
            "contacted_at": _times(world, np.full(len(ids), wave * WAVE_DAYS)),
            "campaign_id": pa.repeat(f"wave-{wave:02}", len(ids)),
            "propensity": pa.repeat(1 / len(world.treatments), len(ids)),
        }
    )


def _redemptions(world: World, redeemed: Happenings, ids: pa.Array, wave: int) -> pa.Table:
    who = ids.take(pa.array(redeemed.who))
    return pa.table(
        {
            "member_id": who,
            "offer_id": _words(world.treatments, redeemed.what),
            "occurred_at": _times(world, redeemed.day),
            "contact_id": _contact_ids(who, wave),
            "amount": pa.array(redeemed.value.astype(np.int64)),
        }
    )


def _contact_ids(ids: pa.Array, wave: int) -> pa.Array:
    return pc.binary_join_element_wise(f"c{wave:02}", ids, "-")


def _numbered(prefix: str, n: int) -> pa.Array:
    return pc.binary_join_element_wise(prefix, pa.array(np.arange(n)).cast(pa.string()), "-")


def _words(words: Sequence[str], places: Ints) -> pa.Array:
    return pa.array(list(words), pa.string()).take(pa.array(places))


def _times(world: World, day: Ints | Floats) -> pa.Array:
    """Write moments, in days since the start, as times within opening hours; a missing one stays missing."""
    missing = np.isnan(day)
    whole = np.floor(np.where(missing, 0, day))
    within = ((np.where(missing, 0, day) - whole) * OPEN).astype(np.int64)
    start = (world.start - datetime.fromtimestamp(0, world.start.tzinfo)) // timedelta(microseconds=1)
    return pa.array(start + whole.astype(np.int64) * DAY + OPENS + within, mask=missing).cast(TIME)
