import json
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import ContractError
from features.programme import Programme
from training.labels import label, label_rows, ledger_rows, margins, mature, maturity, maturity_sheet, spells

ZONE = ZoneInfo("America/New_York")
PROGRAMME = Programme(timezone="America/New_York")  # horizon 28 days, active in the 56 before
LATER = datetime(2019, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def midnight(day: date) -> datetime:
    return datetime.combine(day, time(), ZONE).astimezone(UTC)


def visits_of(*rows: tuple[str, datetime, int]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["member_id", "occurred_at", "margin"])
    frame["occurred_at"] = pd.to_datetime(frame["occurred_at"], utc=True).astype("datetime64[us, UTC]")
    return frame.sort_values("occurred_at", ignore_index=True)


def labelled(visits, as_of):
    rows = label(visits, [as_of], known_until=LATER, programme=PROGRAMME)
    return rows.set_index("member_id")[["churned", "margin", "previous_margin"]].T.to_dict("list")


# Clocks go forward on 2017-03-12 and back on 2017-11-05: 28 local days are then 671 and 673 hours.
@pytest.mark.parametrize(
    ("day", "hours"), [(date(2017, 2, 20), 671), (date(2017, 6, 5), 672), (date(2017, 10, 16), 673)]
)
def test_the_label_window_holds_its_first_second_and_not_the_one_after_its_last(day, hours):
    as_of = midnight(day)
    end = as_of + timedelta(hours=hours)
    before = as_of - SECOND
    visits = visits_of(
        *[(name, before, 1) for name in ("first", "last", "after", "never")],
        ("first", as_of, 10),
        ("last", end - SECOND, 10),
        ("after", end, 10),
    )
    assert labelled(visits, as_of) == {
        "first": [0, 10, 1],
        "last": [0, 10, 1],
        "after": [1, 0, 1],
        "never": [1, 0, 1],
    }


def test_the_audience_bought_in_the_activity_window_before_as_of():
    as_of = midnight(date(2017, 4, 3))  # clocks went forward within the 56 days before
    opens = midnight(date(2017, 2, 6))
    visits = visits_of(
        ("long ago", opens - SECOND, 1),
        ("just active", opens, 1),
        ("a second ago", as_of - SECOND, 1),
        ("from now on", as_of, 1),
    )
    assert set(labelled(visits, as_of)) == {"just active", "a second ago"}


def test_a_purchase_after_the_window_changes_nothing():
    as_of = midnight(date(2017, 6, 5))
    visits = visits_of(("m", as_of - SECOND, 5), ("n", as_of - SECOND, 6), ("m", as_of, 7))
    after = midnight(date(2017, 7, 3))
    more = visits_of(*visits.itertuples(index=False), ("m", after, 900), ("n", after, 900), ("new", after, 900))
    pd.testing.assert_frame_equal(
        label(visits, [as_of], known_until=LATER, programme=PROGRAMME),
        label(more, [as_of], known_until=LATER, programme=PROGRAMME),
    )


def test_there_is_no_label_before_its_window_has_passed():
    as_of = midnight(date(2017, 2, 20))
    end = midnight(date(2017, 3, 20))
    visits = visits_of(("m", as_of - SECOND, 5))
    assert mature([as_of], known_until=end, programme=PROGRAMME) == [as_of]
    assert mature([as_of], known_until=end - SECOND, programme=PROGRAMME) == []
    with pytest.raises(ContractError, match=r"28 days after 2017-02-20 have not passed by 2017-03-20; train with"):
        label(visits, [as_of], known_until=end - SECOND, programme=PROGRAMME)


@settings(max_examples=60)
@given(
    day=st.dates(date(2017, 1, 1), date(2017, 12, 31)),
    horizon=st.integers(1, 40),
    activity=st.integers(1, 70),
    drawn=st.lists(
        st.tuples(
            st.sampled_from("abcd"),
            st.integers(-80 * 86_400, 50 * 86_400),
            st.integers(-500, 5000),
        ),
        min_size=1,
        max_size=25,
    ),
)
def test_labels_agree_with_a_count_over_calendar_days(day, horizon, activity, drawn):
    """The oracle knows no instants: it asks on which local day a purchase fell."""
    programme = Programme(timezone="America/New_York", horizon_days=horizon, activity_days=activity)
    as_of = midnight(day)
    rows = [(member, as_of + timedelta(seconds=offset), margin) for member, offset, margin in drawn]
    found = label(visits_of(*rows), [as_of], known_until=LATER, programme=programme)

    def within(member, first, end):
        days = [((at.astimezone(ZONE).date() - day).days, margin) for who, at, margin in rows if who == member]
        return [margin for passed, margin in days if first <= passed < end]

    wanted = [
        (member, as_of, int(not after), sum(after), sum(within(member, -horizon, 0)))
        for member in "abcd"
        for after in [within(member, 0, horizon)]
        if within(member, -activity, 0)
    ]
    assert list(found.itertuples(index=False, name=None)) == wanted


def test_every_date_has_its_own_audience():
    first, second = midnight(date(2017, 5, 1)), midnight(date(2017, 6, 5))
    visits = visits_of(("m", first - SECOND, 5), ("n", second - SECOND, 6))
    rows = label(visits, [first, second], known_until=LATER, programme=PROGRAMME)
    assert list(zip(rows["member_id"], rows["as_of"], strict=True)) == [("m", first), ("m", second), ("n", second)]


def test_a_visit_is_the_sum_of_its_lines_and_its_margin_is_rounded_once():
    at = datetime(2017, 5, 1, tzinfo=UTC)
    lines = pd.DataFrame(
        {
            "member_id": ["m", "m", "n", "m"],
            "transaction_id": ["t1", "t1", "t1", "t2"],  # ids are a till's: two members may share one
            "occurred_at": [at + 2 * SECOND, at + SECOND, at, at],
            "amount": [102, 102, 50, -40],
        }
    )
    rows = margins(lines, Programme(margin_rate=0.25))
    assert list(rows.itertuples(index=False, name=None)) == [
        ("m", at, -10),
        ("n", at, 12),  # 12.5 to the even cent
        ("m", at + SECOND, 51),  # line by line it would have been 25.5 twice, rounded to 26
    ]


def test_a_margin_that_is_known_is_not_assumed():
    at = datetime(2017, 5, 1, tzinfo=UTC)
    lines = pd.DataFrame(
        {"member_id": "m", "transaction_id": ["t"], "occurred_at": [at], "amount": [1000], "margin": [777]}
    )
    assert margins(lines, Programme(margin_rate=0.25))["margin"].tolist() == [777]


CONTRACT = Programme(timezone="America/New_York", churn="contract")  # horizon 28 days, grace 7
NOBODY = visits_of(("nobody", datetime(2016, 1, 1, tzinfo=UTC), 1))


def day(month: int, of: int) -> datetime:
    return midnight(date(2017, month, of))


def terms_of(*rows, **more):
    frame = pd.DataFrame(rows, columns=["member_id", "started_at", "ends_at"]).assign(**more)
    times = [name for name in frame if name != "member_id"]
    return frame.assign(**{name: pd.to_datetime(frame[name], utc=True).astype("datetime64[us, UTC]") for name in times})


def churned(terms, as_of, programme=CONTRACT, known_until=LATER):
    subscribed = spells(terms, programme)
    rows = label(NOBODY, [as_of], known_until=known_until, programme=programme, subscribed=subscribed)
    return dict(zip(rows["member_id"], rows["churned"], strict=True))


def test_who_renews_within_the_grace_period_has_not_churned_and_who_comes_back_later_has():
    terms = terms_of(
        ("ends", day(1, 1), day(6, 15)),
        ("renews at once", day(1, 1), day(6, 15)),
        ("renews at once", day(6, 15), day(9, 1)),
        ("in grace", day(1, 1), day(6, 15)),
        ("in grace", day(6, 22), day(9, 1)),
        ("comes back", day(1, 1), day(6, 15)),
        ("comes back", day(6, 22) + SECOND, day(9, 1)),
        ("ends later", day(1, 1), day(7, 3)),
        ("ends in time", day(1, 1), day(7, 3) - SECOND),
        ("gone before", day(1, 1), day(6, 1)),
        ("not yet", day(6, 6), day(9, 1)),
    )
    assert churned(terms, day(6, 5)) == {
        "comes back": 1,
        "ends": 1,
        "ends in time": 1,
        "ends later": 0,
        "in grace": 0,
        "renews at once": 0,
    }


def test_a_cancellation_is_no_churn_while_the_term_runs_and_a_renewal_without_its_term_is_as_long_again():
    terms = terms_of(
        ("cancelled", day(1, 1), day(9, 1)),
        ("renewed", day(1, 1), day(6, 15)),
        cancelled_at=[day(6, 6), None],
        renewed_at=[None, day(6, 1)],
    )
    assert churned(terms, day(6, 5)) == {"cancelled": 0, "renewed": 0}
    assert churned(terms, day(8, 14)) == {"cancelled": 1}


def test_who_is_between_two_terms_is_in_no_audience_since_coming_back_is_not_known_yet():
    terms = terms_of(("m", day(1, 1), day(6, 3)), ("m", day(6, 8), day(9, 1)))
    assert churned(terms, day(6, 5)) == {}
    assert churned(terms, day(6, 12)) == {"m": 0}


def test_a_label_of_a_contract_waits_for_the_grace_period():
    terms = terms_of(("m", day(1, 1), day(6, 15)))
    matures = day(7, 10)  # 28 and 7 days after 5 June
    assert churned(terms, day(6, 5), known_until=matures) == {"m": 1}
    with pytest.raises(ContractError, match="35 days after 2017-06-05 have not passed"):
        churned(terms, day(6, 5), known_until=matures - SECOND)


def test_an_early_warning_leaves_out_who_is_gone_before_anybody_could_act():
    terms = terms_of(
        ("too soon", day(1, 1), day(6, 12)), ("in time", day(1, 1), day(6, 20)), ("no", day(1, 1), day(9, 1))
    )
    early = CONTRACT.model_copy(update={"lead_days": 14})
    assert churned(terms, day(6, 5), early) == {"in time": 1, "no": 0}
    late = PROGRAMME.model_copy(update={"lead_days": 14})
    bought = visits_of(*[(name, day(6, 4), 1) for name in ("a", "b")], ("a", day(6, 18), 1), ("b", day(6, 19), 1))
    rows = label(bought, [day(6, 5)], known_until=LATER, programme=late)
    assert dict(zip(rows["member_id"], rows["churned"], strict=True)) == {"a": 1, "b": 0}


@pytest.mark.parametrize(("programme", "subscribed"), [(CONTRACT, False), (PROGRAMME, True)])
def test_a_programme_of_contracts_needs_them_and_another_has_none(programme, subscribed):
    given = spells(terms_of(("m", day(1, 1), day(9, 1))), CONTRACT) if subscribed else None
    with pytest.raises(ContractError, match="needs the table subscriptions"):
        label(NOBODY, [day(6, 5)], known_until=LATER, programme=programme, subscribed=given)


@settings(max_examples=60)
@given(
    terms=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 300), st.integers(1, 60)), min_size=1, max_size=25),
    at=st.integers(0, 300),
)
def test_churn_of_contracts_is_what_going_through_the_days_finds(terms, at):
    first = datetime(2017, 1, 1, tzinfo=UTC)
    programme = Programme(churn="contract")
    rows = [(m, first + timedelta(days=s), first + timedelta(days=s + n)) for m, s, n in terms]
    found = churned(terms_of(*rows), first + timedelta(days=at) + SECOND, programme)
    expected = {}
    for member in sorted({m for m, _, _ in terms}):
        own = [(s, s + n) for m, s, n in terms if m == member]
        if not any(s <= at < e for s, e in own):
            continue
        end = max(e for s, e in own if s <= at < e)
        while more := [e for s, e in own if s <= end + programme.grace_days and e > end]:
            end = max(more)
        expected[member] = int(end <= at + programme.horizon_days)
    assert found == expected


PROGRAMMES = st.builds(
    Programme,
    timezone=st.just("America/New_York"),
    horizon_days=st.integers(1, 40),
    lead_days=st.integers(0, 14),
    grace_days=st.integers(0, 10),
    churn=st.sampled_from(["lapse", "contract"]),
)


@settings(max_examples=60)
@given(
    days=st.lists(st.dates(date(2017, 1, 1), date(2017, 12, 31)), min_size=1, max_size=8, unique=True),
    programme=PROGRAMMES,
    until=st.dates(date(2017, 1, 1), date(2018, 3, 1)),
)
def test_the_ledger_counts_local_days_and_agrees_with_what_may_be_labelled(days, programme, until):
    dates, known_until = [midnight(day) for day in days], midnight(until)
    ledger = maturity(dates, known_until=known_until, programme=programme)
    first, end = programme.lead_days, programme.lead_days + programme.horizon_days
    known = end + (programme.grace_days if programme.churn == "contract" else 0)
    for name, after in (("window_start", first), ("window_end", end), ("known_from", known)):
        assert [at.astimezone(ZONE).date() for at in ledger[name]] == [day + timedelta(days=after) for day in days]
    assert ledger.index[ledger["mature"]].to_list() == mature(dates, known_until=known_until, programme=programme)


def test_the_ledger_says_on_which_day_each_label_will_be_known():
    dates = [midnight(date(2017, 10, day)) for day in (2, 9, 16)]
    ledger = maturity(
        dates, known_until=midnight(date(2017, 11, 6)), programme=PROGRAMME, members={dates[0]: 2000, dates[1]: 1900}
    )
    assert ledger["members"].to_list() == [2000, 1900, pd.NA]
    rows = ledger_rows(ledger)
    assert json.loads(json.dumps(rows)) == rows
    assert [(row["mature"], row["members"]) for row in rows] == [(True, 2000), (True, 1900), (False, None)]
    sheet = maturity_sheet(rows, PROGRAMME)
    assert sheet.rows == (("2017-10-16", "2017-10-16", "2017-11-13", "2017-11-13"),)
    assert sheet.notes == ("Known: 2017-10-02 to 2017-10-09; 2 snapshots, 3,900 labels.",)
    nothing = maturity(dates[2:], known_until=dates[2], programme=PROGRAMME)
    assert maturity_sheet(ledger_rows(nothing), PROGRAMME).notes == ("Known: none; 0 snapshots, 0 labels.",)


@settings(max_examples=40)
@given(
    drawn=st.lists(
        st.tuples(st.sampled_from("abcd"), st.integers(-80, 80), st.integers(-500, 5000)), min_size=1, max_size=25
    ),
    known=st.integers(28, 60),
)
def test_no_label_knows_what_came_after_known_until(drawn, known):
    as_of = midnight(date(2017, 6, 5))
    known_until = PROGRAMME.days_before(as_of, -known)
    rows = [(who, as_of + timedelta(days=day), margin) for who, day, margin in drawn]
    then = [row for row in rows if row[1] < known_until]
    labels = [
        label(visits_of(*some), [as_of], known_until=known_until, programme=PROGRAMME) for some in (rows, then) if some
    ]
    for other in labels[1:]:
        pd.testing.assert_frame_equal(labels[0], other)


def test_members_at_moments_of_their_own_are_labelled_as_all_at_one_date_are():
    rng = np.random.default_rng(2)
    start = midnight(date(2017, 1, 2))
    visits = visits_of(
        *[(f"m{rng.integers(60)}", start + timedelta(hours=int(rng.integers(24 * 300))), 1) for _ in range(900)]
    )
    dates = [midnight(date(2017, month, 6)) for month in (3, 4, 10, 11)]  # clocks change in between
    wanted = label(visits, dates, known_until=LATER, programme=PROGRAMME).set_index(["member_id", "as_of"])["churned"]
    rows = pd.DataFrame(
        [(f"m{number}", as_of) for as_of in dates for number in range(60)], columns=["member_id", "as_of"]
    )
    rows = rows.astype({"as_of": "datetime64[us, UTC]"}).sample(frac=1, random_state=1, ignore_index=True)
    found = label_rows(rows, visits, PROGRAMME)
    came = rows.assign(churned=found).dropna().set_index(["member_id", "as_of"])["churned"]
    assert len(came) == len(wanted) < len(rows)
    assert came.sort_index().astype("int8").equals(wanted.sort_index())


def test_contracts_at_moments_of_their_own_are_labelled_as_all_at_one_date_are():
    rng = np.random.default_rng(3)
    programme, start = Programme(churn="contract"), datetime(2017, 1, 1, tzinfo=UTC)
    begun = [start + timedelta(days=int(day)) for day in rng.integers(0, 200, 300)]
    terms = pd.DataFrame({"member_id": [f"m{number}" for number in rng.integers(0, 120, 300)], "started_at": begun})
    terms["ends_at"] = terms["started_at"] + pd.to_timedelta(rng.integers(10, 90, 300), unit="D")
    terms = terms.astype(dict.fromkeys(("started_at", "ends_at"), "datetime64[us, UTC]"))
    subscribed, visits = spells(terms, programme), visits_of(("m0", start, 1))
    dates = [start + timedelta(days=day) for day in (40, 90, 150)]
    wanted = label(visits, dates, known_until=LATER, programme=programme, subscribed=subscribed)
    wanted = wanted.set_index(["member_id", "as_of"])["churned"].sort_index()
    rows = pd.DataFrame(
        [(f"m{number}", as_of) for as_of in dates for number in range(120)], columns=["member_id", "as_of"]
    )
    rows = rows.astype({"as_of": "datetime64[us, UTC]"})
    came = rows.assign(churned=label_rows(rows, visits, programme, subscribed=subscribed)).dropna()
    assert set(wanted) == {0, 1}
    assert came.set_index(["member_id", "as_of"])["churned"].sort_index().astype("int8").equals(wanted)
