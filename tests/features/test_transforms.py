"""Every feature against a second definition of it: loops over Python's own integers, dates and fractions."""

import calendar
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from features.catalogue.entries import CATALOGUE, PURPOSES
from features.programme import Programme, Tier
from features.transforms import catalogue_sheet

TIMES = {
    "contacts": "contacted_at",
    "redemptions": "occurred_at",
    "events": "occurred_at",
    "subscriptions": "started_at",
}
TIERS = (Tier(name="bronze", spend=0), Tier(name="silver", spend=9_000), Tier(name="gold", spend=30_000))
TWO_VALUED = {
    "personalisation",
    "region",
    "last_offer",
    "contacts_28d",
    "contacts_unanswered_28d",
    *(f"subscription_{name}" for name in ("renewed", "cancelled", "auto_renew", "plan", "price", "past_cancels")),
}
OWN = {
    "margin_rate": 0.3,  # no sum of powers of two: 3 x 0.1 is not 0.3
    "tiers": TIERS,
    "tier_days": 56,
    "points_expire_after_days": 70,
    "tracked_offers": ("B", "A"),  # and no third
    "tracked_categories": ("fish", "bread"),
}


def _rows(table, time, as_of, zone):
    """Give a table's rows before `as_of`, with their local time and how many local days ago that was."""
    today = as_of.astimezone(zone).date()
    for row in table.astype(object).where(table.notna(), None).to_dict(orient="records"):
        if row[time] < as_of and (row.get("known_at") is None or row["known_at"] < as_of):
            local = row[time].to_pydatetime().astimezone(zone)
            yield row | {"local": local, "ago": (today - local.date()).days}


def _by_member(rows):
    groups = defaultdict(list)
    for row in rows:
        groups[row["member_id"]].append(row)
    return groups


def _divide(above, below):
    return None if not below or above is None else above / below


def _total(values):
    given = [value for value in values if value is not None]
    return sum(given) if given else None


def _visits(lines):
    receipts = defaultdict(list)
    for line in lines:
        receipts[line["transaction_id"]].append(line)
    return [
        {
            "amount": sum(line["amount"] for line in receipt),
            "discount": _total(line.get("discount", 0) for line in receipt),
            "lines": len(receipt),
            "quantity": _total(line.get("quantity") for line in receipt),
            "margin": _total(line["margin"] for line in receipt) if "margin" in receipt[0] else None,
            "channel": min((line["channel"] for line in receipt if line.get("channel")), default=None),
            "local": min(line["local"] for line in receipt),
            "ago": max(line["ago"] for line in receipt),
        }
        for receipt in receipts.values()
    ]


def _purchases(visits, tenure, programme):
    recent = {days: [v for v in visits if v["ago"] <= days] for days in (7, 28, 56, 84, 364)}
    spend = {days: sum(v["amount"] for v in within) for days, within in recent.items()}
    count = {days: len(within) for days, within in recent.items()}
    total = sum(v["amount"] for v in visits)
    discount = _total(v["discount"] for v in recent[84])
    return {
        "recency_days": min((v["ago"] for v in visits), default=None),
        "visits_7d": count[7],
        "visits_28d": count[28],
        "visits_56d": count[56],
        "visits_84d": count[84],
        "visits_364d": count[364],
        "visits_total": len(visits),
        "spend_7d": spend[7],
        "spend_28d": spend[28],
        "spend_56d": spend[56],
        "spend_84d": spend[84],
        "spend_364d": spend[364],
        "spend_total": total,
        "historic_value": _value(visits, programme),
        "basket_mean_84d": _divide(spend[84], count[84]),
        "basket_sd_84d": _spread([v["amount"] for v in recent[84]]),
        "basket_max": max((v["amount"] for v in visits), default=0),
        "spend_per_28d": 28 * total / max(tenure, 28),
        "visits_trend_28d": _divide(count[28] - (count[56] - count[28]), count[56]),
        "spend_trend_28d": _divide(spend[28] - (spend[56] - spend[28]), spend[56]),
        "visits_pace_28d": _divide(count[7], count[28]),
        "visits_pace_84d": _divide(count[28], count[84]),
        "visits_pace_364d": _divide(count[84], count[364]),
        "spend_pace_28d": _divide(spend[7], spend[28]),
        "spend_pace_84d": _divide(spend[28], spend[84]),
        "spend_pace_364d": _divide(spend[84], spend[364]),
        **_season(recent[364]),
        **_weekdays(recent[84]),
        "weekend_share_84d": _divide(sum(v["local"].isoweekday() >= 6 for v in recent[84]), count[84]),
        "evening_share_84d": _divide(sum(v["local"].hour >= 17 for v in recent[84]), count[84]),
        "discount_share_84d": None if discount is None else _divide(discount, discount + spend[84]),
        "discounted_visits_share_84d": _divide(sum((v["discount"] or 0) > 0 for v in recent[84]), count[84]),
        "lines_per_visit_84d": _divide(sum(v["lines"] for v in recent[84]), count[84]),
        "items_per_visit_84d": _mean([v["quantity"] for v in recent[84] if v["quantity"] is not None]),
    }


def _mean(values):
    return _divide(sum(values), len(values))


def _spread(values):
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _value(visits, programme):
    brought = [v["margin"] for v in visits if v["margin"] is not None]
    return sum(brought) if brought or not visits else programme.margin_rate * sum(v["amount"] for v in visits)


def _season(year):
    season, whole = sum(v["amount"] for v in year if v["ago"] >= 337), sum(v["amount"] for v in year)
    return {"season_spend_364d": season, "season_ratio_364d": _divide(13 * season, whole)}


def _weekdays(visits):
    counts = Counter(v["local"].weekday() for v in visits)
    usual = min(counts, key=lambda day: (-counts[day], day), default=None)
    return {
        "usual_weekday": None if usual is None else calendar.day_name[usual],
        "weekday_top_share_84d": _divide(counts[usual], len(visits)),
    }


def _channels(visits, programme):
    counts = Counter(v["channel"] for v in visits if v["ago"] <= 84 and v["channel"])
    usual = min(counts, key=lambda channel: (-counts[channel], channel), default=None)
    online = sum(count for channel, count in counts.items() if channel in programme.online_channels)
    return {
        "channel_count_84d": len(counts) or None,
        "channel_top_share_84d": _divide(counts[usual], counts.total()),
        "online_share_84d": _divide(online, counts.total()),
        "usual_channel": usual,
    }


def _rhythm(visits):
    days = sorted({v["ago"] for v in visits}, reverse=True)
    gaps = [(before - day, day) for before, day in pairwise(days)]
    widths = [gap for gap, _ in gaps]
    mean = _divide(sum(widths), len(widths))
    return {
        "gap_mean_days": mean,
        "gap_sd_days": _spread(widths),
        "gap_max_days": max(widths, default=None),
        "gap_recent_max_days": max((gap for gap, day in gaps if day <= 56), default=None),
        "overdue_ratio": _divide(days[-1], mean) if gaps else None,
        "next_purchase_days": mean - days[-1] if gaps else None,
        "active_weeks_84d": len({(day - 1) // 7 for day in days if 1 <= day <= 84}),
    }


def _categories(lines, programme):
    spend = Counter()
    for line in lines:
        if line["ago"] <= 84:
            spend[line.get("category", "all")] += line["amount"]
    total = sum(spend.values())
    tracked = [*programme.tracked_categories, None, None, None][:3]
    return {
        **{
            f"category_{place}_share_84d": None if name is None else _divide(spend[name], total)
            for place, name in enumerate(tracked, 1)
        },
        "category_count_84d": len(spend),
        "category_top_share_84d": _divide(max(spend.values(), default=None), total),
        "category_concentration_84d": _divide(sum(s * s for s in spend.values()), total * total),
    }


def _contacts(contacts, redemptions, brought, programme):
    sent = [row for row in contacts if row["treatment"] != "control"]
    days = [row["ago"] for row in sent]
    named = {row["contact_id"] for row in redemptions if row.get("contact_id")}
    answered = [row["ago"] for row in sent if row["contact_id"] in named]
    tracked = [*programme.tracked_offers, None, None, None][:3]
    contacted = {
        "contacts_28d": sum(ago <= 28 for ago in days),
        "contacts_84d": sum(ago <= 84 for ago in days),
        "contacts_total": len(days),
        "contact_recency_days": min(days, default=None),
        "contacts_unanswered_28d": sum(ago <= 28 for ago in days) - sum(ago <= 28 for ago in answered),
        "response_rate_84d": _divide(sum(ago <= 84 for ago in answered), sum(ago <= 84 for ago in days)),
        "answered_recency_days": min(answered, default=None),
        "last_offer": max(
            ((row["contacted_at"], row["contact_id"], row["treatment"]) for row in sent), default=(None,)
        )[-1],
        **{
            f"offer_{place}_recency_days": min((row["ago"] for row in sent if row["treatment"] == offer), default=None)
            for place, offer in enumerate(tracked, 1)
        },
    }
    redeemed = {
        "redemptions_84d": sum(row["ago"] <= 84 for row in redemptions),
        "redemptions_total": len(redemptions),
        "redemption_recency_days": min((row["ago"] for row in redemptions), default=None),
        "responses_total": len(named),
        "response_rate": _divide(len(named), len(sent)),
    }
    return _known(contacted, "contacts" in brought) | _known(redeemed, "redemptions" in brought)


def _events(events, programme):
    def ago(*kinds):
        return [row["ago"] for row in events if row["kind"] in kinds]

    def points(*kinds, after=-1, within=10**6):
        counted = [row for row in events if row["kind"] in kinds and after < row["ago"] <= within]
        return sum(row.get("value") or 0 for row in counted)

    surveys = [(row["occurred_at"], row["event_id"], row["value"], row["ago"]) for row in events if _scored(row)]
    surveys.sort(reverse=True)
    gone, nearly = points("points_burnt", "points_expired"), programme.points_expire_after_days - 28
    return {
        "logins_28d": sum(days <= 28 for days in ago("login", "visit")),
        "logins_84d": sum(days <= 84 for days in ago("login", "visit")),
        "login_recency_days": min(ago("login", "visit"), default=None),
        "views_28d": sum(days <= 28 for days in ago("view")),
        "views_84d": sum(days <= 84 for days in ago("view")),
        "view_recency_days": min(ago("view"), default=None),
        "support_84d": sum(days <= 84 for days in ago("support")),
        "support_recency_days": min(ago("support"), default=None),
        "survey_last": surveys[0][2] if surveys else None,
        "survey_mean": _mean([score for _, _, score, _ in surveys]),
        "survey_recency_days": surveys[0][3] if surveys else None,
        "points_earned_84d": points("points_earned", within=84),
        "points_burnt_84d": points("points_burnt", within=84),
        "points_balance": points("points_earned") - gone,
        "points_expiring": max(points("points_earned", after=nearly) - gone, 0),
        "points_recency_days": min(ago("points_earned", "points_burnt"), default=None),
        "event_recency_days": min((row["ago"] for row in events), default=None),
    }


def _scored(row):
    return row["kind"] == "survey" and row.get("value") is not None


def _terms(terms, as_of):
    """Give the state of the term that began last; two that began at once are told apart by their end."""

    def whole_days(later, earlier):
        return (later - earlier) // timedelta(days=1)

    def decided(term, what):
        return term.get(what) is not None and term[what] < as_of

    order = sorted(terms, key=lambda term: (term["started_at"], term["ends_at"]))
    last = order[-1] if order else None
    return {
        "subscription_days_to_end": last and whole_days(last["ends_at"], as_of),
        "subscription_term_days": last and whole_days(as_of, last["started_at"]),
        "subscription_renewals": last and len(terms) - 1,
        "subscription_renewed": last and decided(last, "renewed_at"),
        "subscription_cancelled": last and decided(last, "cancelled_at"),
        "subscription_auto_renew": last and last.get("auto_renew"),
        "subscription_past_cancels": last and sum(decided(term, "cancelled_at") for term in order[:-1]),
        "subscription_price": last and last.get("price"),
        "subscription_plan": last and last.get("plan"),
    }


def _tiers(visits, programme):
    now = sum(v["amount"] for v in visits if v["ago"] <= programme.tier_days)
    before = sum(v["amount"] for v in visits if 28 < v["ago"] <= programme.tier_days + 28)
    reached = [tier.name for tier in programme.tiers if now >= tier.spend]
    return {
        "tier_spend": now,
        "tier_spend_before": before,
        "tier_level": len(reached),
        "tier_change": len(reached) - sum(before >= tier.spend for tier in programme.tiers),
        "tier_distance": min((tier.spend - now for tier in programme.tiers if now < tier.spend), default=None),
        "tier": reached[-1] if reached else None,
    }


def _known(values, brought):
    """Of a table that was not brought nothing is known, not even that there was nothing."""
    return {name: value if brought else None for name, value in values.items()}


def _scores(members):
    """Give each member the fifth that follows from how many others are strictly worse."""
    keys = {
        "recency_score": lambda m: -float("inf") if m["recency_days"] is None else -m["recency_days"],
        "frequency_score": lambda m: m["visits_84d"],
        "monetary_score": lambda m: m["spend_84d"],
    }
    for name, key in keys.items():
        for member in members:
            worse = sum(key(other) < key(member) for other in members)
            member[name] = min(5, 1 + 5 * worse // max(len(members) - 1, 1))


def _segment(recency, frequency, monetary):
    if min(recency, frequency, monetary) >= 4:
        return "best"
    if frequency >= 4:
        return "loyal"
    if monetary >= 4:
        return "big_basket"
    if frequency <= 2 and recency >= 4:
        return "promising"
    if recency <= 2:
        return "hibernating" if frequency <= 2 else "slipping"
    return "regular"


def _stage(member, stages):
    silent = member["tenure_days"] if member["recency_days"] is None else member["recency_days"]
    if silent > stages.lapsed:
        return "lapsed"
    if silent > stages.dormant:
        return "dormant"
    if member["tenure_days"] <= stages.new:
        return "new"
    return "returned" if (member["gap_recent_max_days"] or 0) > stages.lapsed else "active"


def expected(tables, as_of, programme):
    lines = _by_member(_rows(tables["transactions"], "occurred_at", as_of, programme.zone))
    brought = set(tables)
    contacts, redemptions, events, terms = (
        _by_member(_rows(tables[name], time, as_of, programme.zone)) if name in tables else {}
        for name, time in TIMES.items()
    )
    members = {}
    for row in _rows(tables["members"], "joined_at", as_of, programme.zone):
        name = row["member_id"]
        visits = _visits(lines[name])
        members[name] = {
            "tenure_days": row["ago"],
            **_purchases(visits, row["ago"], programme),
            **_rhythm(visits),
            **_categories(lines[name], programme),
            **_channels(visits, programme),
            **_contacts(contacts.get(name, []), redemptions.get(name, []), brought, programme),
            **_known(_events(events.get(name, []), programme), "events" in brought),
            **_known(_terms(terms.get(name, []), as_of), "subscriptions" in brought),
            **_tiers(visits, programme),
            "personalisation": "no" if row.get("personalisation") is False else "yes",
            "region": row.get("region"),
            "gender": row.get("gender"),
        }
    _scores(list(members.values()))
    for member in members.values():
        member["segment"] = _segment(*(member[f"{score}_score"] for score in ("recency", "frequency", "monetary")))
        member["lifecycle_stage"] = _stage(member, programme.stages)
    return members


def _differences(computed, wanted):
    """List what differs: whole numbers and words at all, fractions by more than 1e-12 of their size."""
    for member, values in wanted.items():
        for name, value in values.items():
            came = computed.loc[member, name]
            if value is None:
                same = pd.isna(came)
            elif isinstance(value, float):
                same = came == pytest.approx(value, rel=1e-12, abs=1e-12)
            else:
                same = came == value
            if not same:
                yield f"{member}.{name}: {came!r}, wanted {value!r}"


def _without_optional_columns(tables):
    return tables | {
        "members": tables["members"][["member_id", "joined_at"]],
        "transactions": tables["transactions"].drop(columns=["discount", "category", "quantity", "margin", "channel"]),
        "redemptions": tables["redemptions"].drop(columns="contact_id"),
        "events": tables["events"].drop(columns="value"),
        "subscriptions": tables["subscriptions"][["member_id", "started_at", "ends_at"]],
    }


def _with_late_rows(tables):
    """Let a third of all rows become known up to 200 days after they happened."""
    rng = np.random.default_rng(0)
    late = dict(tables)
    for name, time in (TIMES | {"transactions": "occurred_at"}).items():
        rows = tables[name]
        known = pd.to_datetime(rows[time]) + pd.to_timedelta(rng.integers(0, 200 * 86_400, len(rows)), unit="s")
        late[name] = rows.assign(known_at=known.where(rng.random(len(rows)) < 1 / 3))
    return late


def _only_the_required(tables):
    return {"members": tables["members"], "transactions": tables["transactions"]}


@pytest.mark.parametrize(
    ("seed", "zone", "as_of", "brought"),
    [
        (1, "America/New_York", "2017-04-02", dict),
        (2, "America/New_York", "2017-11-12", dict),
        (3, "Europe/Berlin", "2017-04-02", _without_optional_columns),
        (4, "Asia/Kathmandu", "2016-02-29", _only_the_required),
        (5, "UTC", "2017-04-02", _with_late_rows),
        (6, "Pacific/Auckland", "2017-04-02T15:30", dict),  # in the middle of a day
    ],
)
def test_every_feature_equals_its_second_definition(company, seed, zone, as_of, brought):
    programme = Programme(timezone=zone, **OWN)
    as_of = datetime.fromisoformat(as_of).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    tables = brought(company.everything(np.random.default_rng(seed), as_of=as_of, days=400 if seed % 2 else 130))
    computed, wanted = (
        company.snapshot(tables, as_of=as_of, programme=programme),
        expected(tables, as_of, programme),
    )
    assert set(computed.index) == set(wanted)
    assert all(set(values) == set(CATALOGUE) for values in wanted.values())
    assert list(_differences(computed, wanted)) == []


def test_the_worlds_of_the_second_definition_are_hard(company):
    """An oracle on easy data proves little: every feature takes several values, and each word occurs."""
    programme = Programme(timezone="America/New_York", **OWN)
    worlds = [company.everything(np.random.default_rng(1), days=days) for days in (130, 400)]
    wanted = pd.concat([pd.DataFrame(expected(tables, company.as_of, programme)).T for tables in worlds])
    assert wanted.map(lambda value: value is None).any().sum() > 15
    kinds = wanted.nunique()
    assert set(wanted.columns[kinds < 2]) == {
        "category_3_share_84d",
        "offer_3_recency_days",
    }  # nothing is tracked there
    assert set(wanted.columns[kinds == 2]) <= TWO_VALUED
    assert {"active", "dormant", "lapsed", "new"} <= set(wanted["lifecycle_stage"])


def test_a_visit_is_counted_on_the_day_people_lived_it(company):
    """22:30 on the 28th day back is the 27th in UTC; local days decide, on both sides of a clock change."""
    zone = ZoneInfo("America/New_York")
    bought = datetime(2017, 3, 4, 22, 30, tzinfo=zone)  # 29 local days before April 2nd, 28 UTC days
    tables = _only_the_required(company.everything(np.random.default_rng(0)))
    tables["members"] = pd.DataFrame({"member_id": ["m"], "joined_at": [bought]})
    tables["transactions"] = pd.DataFrame(
        {"transaction_id": ["t"], "member_id": ["m"], "occurred_at": [bought.astimezone(UTC)], "amount": [100]}
    )
    here = company.snapshot(tables, programme=Programme(timezone="America/New_York")).loc["m"]
    assert (here["recency_days"], here["visits_28d"], here["evening_share_84d"]) == (29, 0, 1)
    there = company.snapshot(tables, programme=Programme(timezone="UTC")).loc["m"]
    assert (there["recency_days"], there["visits_28d"], there["evening_share_84d"]) == (28, 1, 0)


def test_the_catalogue_is_shown_whole():
    sheet = catalogue_sheet()
    assert len(sheet.rows) == len(CATALOGUE) >= 25
    assert all(meaning and unit and purpose in PURPOSES for _, meaning, unit, _, purpose in sheet.rows)
