"""How alerts reach people: through Apprise, to wherever they read, and to Alertmanager; the only door to both.

What a target does not take is tried again, each time after twice as long and with some chance in it, for a day; then it
is a dead letter, which `holdfast monitor alerts` shows and `--retry` sends anew.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

import numpy as np

from features.files import fingerprint
from features.home import Home
from features.programme import Alerts, Programme
from features.saying import saying
from features.sheet import Sheet
from monitoring.alerts import ORDER, Alert, alerts_of, body, concludes, earliest, for_alertmanager, title
from monitoring.outbox import Message, Outbox
from monitoring.verdict import Concluded

FIRST_WAIT: Final = timedelta(seconds=30)
LONGEST_WAIT: Final = timedelta(hours=1)
GIVE_UP: Final = timedelta(days=1)
SEND_SECONDS: Final = 10.0
_JSON: Final = {"Content-Type": "application/json"}


class Target(Protocol):
    """Take messages."""

    def send(self, message: Message) -> str | None:
        """Send one; None if it was taken, or why not, without the address, which holds secrets."""
        ...


@dataclass(frozen=True)
class Notified:
    """Send through Apprise: Slack, Teams, mail, WeCom, DingTalk, Feishu, PagerDuty and a hundred more."""

    address: str

    def send(self, message: Message) -> str | None:
        """Send a message as text."""
        import apprise

        notifier = apprise.Apprise()
        if not notifier.add(self.address):
            return "the address is none that Apprise knows"
        result = notifier.notify(message.body, title=message.title, body_format="text", timeout=SEND_SECONDS)
        return (
            None
            if result.status == apprise.AppriseResultStatus.SUCCESS
            else f"the target did not take it ({result.status.name.lower()})"
        )


@dataclass(frozen=True)
class Alertmanager:
    """Post to Prometheus' Alertmanager, which groups and routes by itself."""

    address: str

    def send(self, message: Message) -> str | None:
        """Post the alerts that a message holds as JSON."""
        import httpx

        try:
            url = f"{self.address.rstrip('/')}/api/v2/alerts"
            answer = httpx.post(url, content=message.body, headers=_JSON, timeout=SEND_SECONDS)
        except httpx.HTTPError as error:
            return f"Alertmanager can't be reached ({type(error).__name__})"
        return None if answer.is_success else f"Alertmanager answered {answer.status_code}"


def raise_alerts(
    home: Home,
    verdict: Concluded,
    source: str,
    *,
    programme: Programme,
    now: datetime,
    rng: np.random.Generator,
) -> int:
    """Write down what a verdict means for people and the messages about it, send what is due, and count the news."""
    settings = programme.alerts
    found = alerts_of(verdict.findings, source, programme)
    reminder = timedelta(hours=settings.remind_hours)
    with Outbox(home.alerts) as outbox:
        with outbox.writing():
            news = outbox.take(source, found, now=now, reminder=reminder, conclusive=concludes(verdict.status))
            if news:
                message_id = str(UUID(bytes=rng.bytes(16), version=4))
                gravest = min((one.alert.severity for one in news), key=ORDER.index)
                due = earliest(settings, gravest, now, programme)
                text = body(news, message_id)
                told = [Message(message_id, name, title(news, programme), text, due) for name in _apprised(settings)]
                listed = json.dumps(for_alertmanager(news, now, reminder))
                told += [Message(message_id, name, "", listed, now) for name in _managed(settings)]
                outbox.post(told, now=now)
        deliver(outbox, targets(settings), now=now, rng=rng)
    return len(news)


def targets(settings: Alerts) -> dict[str, Target]:
    """Give every target that is set up, by its fingerprint."""
    return {**_apprised(settings), **_managed(settings)}


def deliver(outbox: Outbox, to: Mapping[str, Target], *, now: datetime, rng: np.random.Generator) -> tuple[int, int]:
    """Send what is due, and count what was taken and what was not."""
    sent = failed = 0
    for message in outbox.due(now):
        target = to.get(message.target)
        failure = target.send(message) if target else "holdfast.toml has no such target any more"
        if failure is None:
            outbox.mark(message, "sent", due=now, failure=None)
            sent += 1
            continue
        failed += 1
        given_up = target is None or now - (message.written or now) >= GIVE_UP
        wait = min(FIRST_WAIT * 2 ** min(message.attempts, 20), LONGEST_WAIT) * (0.75 + 0.5 * rng.random())
        outbox.mark(message, "dead" if given_up else "waiting", due=now + wait, failure=failure)
    return sent, failed


def send_test(settings: Alerts, programme: Programme, *, now: datetime) -> list[tuple[str, str | None]]:
    """Send a test message to each target at once, and say how each took it."""
    alert = Alert("test", "test", "info", saying("this is a test; nothing is wrong"), "too-few-members")
    head, text = f"{programme.name}: a test", f"{alert.sentence}\nmessage test"
    listed = json.dumps([{"labels": alert.labels, "annotations": {"summary": text}, "endsAt": now.isoformat()}])
    found: list[tuple[str, str | None]] = []
    for name, target in targets(settings).items():
        content = listed if isinstance(target, Alertmanager) else text
        found.append((shown(target), target.send(Message("test", name, head, content, now))))
    return found


def shown(target: Target) -> str:
    """Write a target without its secrets."""
    if isinstance(target, Alertmanager):
        return "Alertmanager"
    import apprise

    made: Any = apprise.Apprise.instantiate(target.address) if isinstance(target, Notified) else None
    return str(made.url(privacy=True)).partition("?")[0] if made else "an address that Apprise does not know"


def alerts_sheets(outbox: Outbox, settings: Alerts) -> list[Sheet]:
    """Lay out what fires, what waits and what died."""
    names = {name: shown(target) for name, target in targets(settings).items()}
    fires = [
        (alert.severity, alert.sentence, f"{since:%Y-%m-%d %H:%M}", str(times), alert.runbook)
        for alert, since, times in outbox.firing()
    ]
    undelivered = [*outbox.messages("waiting"), *outbox.messages("dead")]
    letters = [
        (
            one.message_id[:8],
            names.get(one.target, "gone"),
            one.state,
            str(one.attempts),
            f"{one.due:%Y-%m-%d %H:%M}",
            one.failure or "",
        )
        for one in undelivered
    ]
    return [
        Sheet("Alerts that fire", ("severity", "what", "since, UTC", "times found", "runbook"), tuple(fires)),
        Sheet(
            "Messages not delivered",
            ("message", "target", "state", "attempts", "next, UTC", "why"),
            tuple(letters),
            ("dead: given up after a day; `holdfast monitor alerts --retry` sends them anew",) if letters else (),
        ),
    ]


def _apprised(settings: Alerts) -> dict[str, Target]:
    return {fingerprint(address): Notified(address) for address in settings.targets}


def _managed(settings: Alerts) -> dict[str, Target]:
    address = settings.alertmanager
    return {fingerprint(address): Alertmanager(address)} if address else {}
