"""Real targets over sockets: one that refuses, hangs, answers 500 and 429, and comes back."""

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from features.home import Home
from features.programme import Alerts, Programme
from features.saying import saying
from monitoring import delivery
from monitoring.delivery import alerts_sheets, deliver, raise_alerts, send_test, shown, targets
from monitoring.outbox import Outbox
from monitoring.verdict import Finding, Verdict

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
MOVED = Finding("spend", "wasserstein", saying("spend fell"), 0.6, 0.05)
SECRET = "hush-4711"  # noqa: S105 (made up)


class Fake(ThreadingHTTPServer):
    """Take what is posted, in the way that `mode` says."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mode, self.taken, self.let_go = 200, [], threading.Event()

    @property
    def port(self):
        return self.server_address[1]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.mode == "hangs":
            self.server.let_go.wait(30)
            return
        if self.server.mode == 200:
            self.server.taken.append((self.path, json.loads(body)))
        self.send_response(self.server.mode)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def fake():
    server = Fake()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.let_go.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def programme(port, *, alertmanager=True):
    return Programme(
        name="Beans",
        alerts=Alerts(
            targets=(f"json://user:{SECRET}@127.0.0.1:{port}/apprise?rto=1&cto=1",),
            alertmanager=f"http://127.0.0.1:{port}" if alertmanager else None,
        ),
    )


def verdict(*findings):
    status = "drift" if findings else "no_drift"
    return Verdict(status, findings, (), judged=9, false_alarm_rate=0.01, n_reference=1000, n_current=1000)


def run(home, settings, *findings, now=NOW, rng):
    return raise_alerts(home, verdict(*findings), "drift", programme=settings, now=now, rng=rng)


def test_an_alert_arrives_at_every_target_and_its_end_too(home, fake, rng):
    settings = programme(fake.port)
    assert run(home, settings, MOVED, rng=rng) == 1
    (path, told), (managed_path, managed) = fake.taken
    assert (path, managed_path) == ("/apprise", "/api/v2/alerts")
    assert told["title"] == "Beans: 1 alert, warning"
    assert "New:\n- [warning] spend fell" in told["message"]
    assert managed[0]["annotations"]["summary"] == "spend fell"
    assert run(home, settings, MOVED, now=NOW + timedelta(hours=1), rng=rng) == 0
    assert run(home, settings, now=NOW + timedelta(hours=2), rng=rng) == 1
    assert "Over:" in fake.taken[2][1]["message"]
    assert fake.taken[3][1][0]["endsAt"] == (NOW + timedelta(hours=2)).isoformat()


@pytest.mark.parametrize("mode", ["refuses", "hangs", 500, 429])
def test_none_is_lost_while_the_target_is_down_and_none_comes_twice_when_it_is_back(home, fake, rng, mode, monkeypatch):
    monkeypatch.setattr(delivery, "SEND_SECONDS", 1.0)
    port = fake.port
    if mode == "refuses":
        settings = programme(1)  # nobody listens there
    else:
        fake.mode, settings = mode, programme(port)
    run(home, settings, MOVED, rng=rng)
    with Outbox(home.alerts) as outbox:
        waiting = outbox.messages("waiting")
        assert [one.attempts for one in waiting] == [1, 1]
        assert all(SECRET not in one.failure for one in waiting)
        assert deliver(outbox, targets(settings.alerts), now=NOW, rng=rng) == (0, 0)  # not before its time
        fake.mode = 200
        fake.let_go.set()
        back = dict(zip(targets(settings.alerts), targets(programme(port).alerts).values(), strict=True))
        later = NOW + timedelta(minutes=1)
        assert deliver(outbox, back, now=later, rng=rng) == (2, 0)
        assert deliver(outbox, back, now=later + timedelta(days=1), rng=rng) == (0, 0)
    assert len(fake.taken) == 2


def test_waits_grow_up_to_an_hour_and_after_a_day_the_letter_is_dead_until_it_is_revived(home, rng):
    settings, now, waits = programme(1, alertmanager=False), NOW, []
    run(home, settings, MOVED, rng=rng)
    with Outbox(home.alerts) as outbox:
        while waiting := outbox.messages("waiting"):
            waits.append(waiting[0].due - now)
            now = waiting[0].due
            deliver(outbox, targets(settings.alerts), now=now, rng=rng)
        assert timedelta(seconds=20) < waits[0] < timedelta(seconds=40)
        assert timedelta(minutes=45) <= max(waits) <= timedelta(minutes=75)
        assert timedelta(days=1) <= now - NOW < timedelta(days=1, hours=2)
        assert len(outbox.messages("dead")) == 1
        (_, letters) = alerts_sheets(outbox, settings.alerts)
        assert letters.rows[0][2] == "dead"
        assert SECRET not in str(letters)
        assert outbox.revive(now=now) == 1
        assert len(outbox.due(now)) == 1


def test_a_message_of_a_clock_that_was_a_year_ahead_is_sent_when_it_is_right_again(home, fake, rng):
    wrong = NOW + timedelta(days=365)
    run(home, programme(1), MOVED, now=wrong, rng=rng)
    with Outbox(home.alerts) as outbox:
        back = dict(zip(targets(programme(1).alerts), targets(programme(fake.port).alerts).values(), strict=True))
        assert deliver(outbox, back, now=wrong, rng=rng) == (0, 0)  # it waits for its second attempt
        assert deliver(outbox, back, now=NOW, rng=rng) == (2, 0)
    assert len(fake.taken) == 2


def test_a_target_that_is_gone_from_the_settings_makes_a_dead_letter(home, rng):
    run(home, programme(1, alertmanager=False), MOVED, rng=rng)
    with Outbox(home.alerts) as outbox:
        deliver(outbox, {}, now=NOW + timedelta(hours=1), rng=rng)
        assert outbox.messages("dead")[0].failure == "holdfast.toml has no such target any more"


def test_a_test_message_says_how_each_target_took_it(fake):
    settings = programme(fake.port)
    assert [failure for _, failure in send_test(settings.alerts, settings, now=NOW)] == [None, None]
    fake.mode = 500
    took = send_test(settings.alerts, settings, now=NOW)
    assert took[1] == ("Alertmanager", "Alertmanager answered 500")
    assert took[0][1].startswith("the target did not take it")
    assert SECRET not in str(took)


def test_addresses_are_shown_without_what_they_hide():
    found = [shown(target) for target in targets(Alerts(targets=(f"json://u:{SECRET}@host/x", "nonsense://"))).values()]
    assert SECRET not in found[0]
    assert found[1] == "an address that Apprise does not know"
    assert SECRET not in repr(programme(1))
