"""What people are told, when, and what happens while nobody takes it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from features.programme import Alerts, Programme
from features.saying import saying
from monitoring.alerts import Alert, News, alerts_of, body, concludes, earliest, for_alertmanager, title
from monitoring.outbox import Message, Outbox
from monitoring.verdict import Finding, Verdict

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
WEEK = timedelta(days=7)
SPEND = Finding(
    "spend", "wasserstein", saying("spend fell"), 0.6, 0.05, decisions=300, decided=1000, margin_a_week=123_456
)
GONE = Finding("visits", "lost_column", saying("visits is gone"))
SMALL = Finding("age", "psi", saying("age moved"), 0.3, 0.1, decisions=3, decided=1000, margin_a_week=5)


def verdict(*findings, status="drift"):
    return Verdict(status, findings, (), judged=9, false_alarm_rate=0.01, n_reference=1000, n_current=1000)


def alerts(*findings):
    return alerts_of(findings, "drift", Programme())


def take(outbox, *findings, now=NOW, conclusive=True):
    with outbox.writing():
        return outbox.take("drift", alerts(*findings), now=now, reminder=WEEK, conclusive=conclusive)


@pytest.fixture
def outbox(tmp_path):
    with Outbox(tmp_path / "alerts.db") as outbox:
        yield outbox


def test_the_gravest_comes_first_then_what_costs_most_and_money_is_said():
    gone, spend, small = alerts(SMALL, SPEND, GONE)
    assert [one.severity for one in (gone, spend, small)] == ["critical", "warning", "warning"]
    wanted = "spend fell; 300 of 1,000 decisions hang on it, 1,234.56 USD a week if it is a fault of the data"
    assert (spend.sentence, spend.runbook) == (wanted, "moved-values")


def test_an_alert_fires_once_is_repeated_after_a_week_and_is_over_when_it_is(outbox):
    assert [(one.event, one.alert.key) for one in take(outbox, SPEND)] == [("firing", alerts(SPEND)[0].key)]
    assert take(outbox, SPEND, now=NOW + timedelta(days=1)) == []
    (again,) = take(outbox, replace(SPEND, said=saying("spend fell more")), now=NOW + WEEK)
    assert (again.event, again.since) == ("reminder", NOW)
    assert "spend fell more" in again.alert.sentence
    assert [(alert.key, since, times) for alert, since, times in outbox.firing()] == [(again.alert.key, NOW, 3)]
    (over,) = take(outbox, now=NOW + 2 * WEEK)
    assert (over.event, over.since) == ("resolved", NOW)
    assert outbox.firing() == []
    assert take(outbox, now=NOW + 3 * WEEK) == []
    (anew,) = take(outbox, SPEND, now=NOW + 4 * WEEK)
    assert (anew.event, anew.since) == ("firing", NOW + 4 * WEEK)


def test_a_clock_that_was_ahead_keeps_no_reminder_back_for_longer_than_a_day(outbox):
    take(outbox, SPEND, now=NOW + timedelta(days=365))
    assert [one.event for one in take(outbox, SPEND)] == ["reminder"]
    assert take(outbox, SPEND, now=NOW - timedelta(hours=1)) == []  # an hour is no jump


def test_what_could_not_be_judged_resolves_nothing(outbox):
    take(outbox, SPEND)
    few = verdict(Finding("", "too_few", saying("12 members"), 12.0, 50.0), status="insufficient_data")
    assert not concludes(few.status)
    assert concludes(verdict().status)
    assert take(outbox, now=NOW + WEEK, conclusive=False) == []
    assert len(outbox.firing()) == 1


def test_one_check_does_not_resolve_what_another_found(outbox):
    take(outbox, SPEND)
    with outbox.writing():
        assert outbox.take("performance", [], now=NOW, reminder=WEEK, conclusive=True) == []
    assert len(outbox.firing()) == 1


def test_a_run_is_one_message_that_says_what_is_new_and_what_is_over():
    (gone, spend) = alerts(SPEND, GONE)
    news = [News(gone, "firing", NOW), News(spend, "resolved", NOW - WEEK)]
    assert title(news, Programme(name="Beans")) == "Beans: 1 alert, critical"
    assert title(news[1:], Programme(name="Beans")) == "Beans: 1 alert over"
    text = body(news, "id-1")
    assert text.index("New:\n- [critical] visits is gone") < text.index("Over:\n- [warning] spend fell")
    assert text.endswith("message id-1")


def test_alertmanager_hears_of_ends_too():
    first, second = for_alertmanager(
        [News(alerts(SPEND)[0], "firing", NOW), News(alerts(GONE)[0], "resolved", NOW - WEEK)], NOW, WEEK
    )
    assert (first["startsAt"], first["endsAt"]) == (NOW.isoformat(), (NOW + 2 * WEEK).isoformat())
    assert second["endsAt"] == NOW.isoformat()
    assert first["labels"] == alerts(replace(SPEND, said=saying("otherwise"), statistic=9.0))[0].labels


@pytest.mark.parametrize(
    ("quiet", "at", "due"),
    [
        ("22:00-07:00", (2026, 3, 2, 23, 30), (2026, 3, 3, 6, 0)),  # in Berlin half past midnight: until seven
        ("22:00-07:00", (2026, 3, 2, 21, 30), (2026, 3, 3, 6, 0)),
        ("22:00-07:00", (2026, 3, 2, 12, 0), (2026, 3, 2, 12, 0)),
        ("12:30-14:00", (2026, 3, 2, 12, 0), (2026, 3, 2, 13, 0)),
        (None, (2026, 3, 2, 23, 30), (2026, 3, 2, 23, 30)),
    ],
)
def test_quiet_hours_are_local_and_end(quiet, at, due):
    programme, settings = Programme(timezone="Europe/Berlin"), Alerts(quiet=quiet)
    at, due = datetime(*at, tzinfo=UTC), datetime(*due, tzinfo=UTC)
    assert earliest(settings, "warning", at, programme) == due
    assert earliest(settings, "critical", at, programme) == at


def test_what_was_written_is_there_after_the_process_died(tmp_path):
    path = tmp_path / "alerts.db"
    with Outbox(path) as outbox, outbox.writing():
        outbox.take("drift", alerts(SPEND), now=NOW, reminder=WEEK, conclusive=True)
        outbox.post([Message("m", "t", "title", "body", NOW)], now=NOW)
    with Outbox(path) as outbox:
        assert [one.message_id for one in outbox.due(NOW)] == ["m"]
        assert len(outbox.firing()) == 1


def test_of_a_message_and_its_alert_both_are_kept_or_neither(outbox):
    def broken():
        with outbox.writing():
            outbox.take("drift", alerts(SPEND), now=NOW, reminder=WEEK, conclusive=True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert outbox.firing() == []
    assert [one.event for one in take(outbox, SPEND)] == ["firing"]


def test_labels_never_hold_a_sentence():
    assert isinstance(alerts(SPEND)[0], Alert)
    assert "spend" not in " ".join(alerts(SPEND)[0].labels.values())
