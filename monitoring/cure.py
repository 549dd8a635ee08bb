"""The cure: a verdict that asks for another model starts one training, and the gate says what it is worth.

Broken data are no reason to learn from them, and a second training within the cool-down would see hardly more than the
first. Who serves changes by itself only where `[cure] promote` says so.
"""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce

from features.files import write_json
from features.home import Home
from features.programme import Programme
from features.saying import Saying, saying
from features.sheet import Progress
from monitoring.clock import passed
from monitoring.verdict import Finding, Status
from training.pipeline import judge_release, promote_release, train
from training.preparation import Settings
from training.releases.ledger import champion_id

WHO = "monitoring"  # who the ledger says promoted


@dataclass(frozen=True)
class Cured:
    """Hold what a training that a verdict started came to."""

    release_id: str
    passed: bool  # the gate
    promoted: bool
    reasons: tuple[Saying, ...]  # against, where it did not pass

    @property
    def status(self) -> Status:
        """Conclude: what was done by itself is told, until the next verdict."""
        return "drift"

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Tell it as a finding, so that people on call hear of it."""
        return (Finding(self.release_id, "cure", self.said),)

    @property
    def sentence(self) -> str:
        """Say it in one sentence."""
        return str(self.said)

    @property
    def said(self) -> Saying:
        """Say it in one sentence of any language."""
        release = self.release_id
        if self.promoted:
            words = "release {release} was trained, passed the gate, and is champion: holdfast rollback goes back"
            return saying(words, release=release)
        if self.passed:
            words = "release {release} was trained and passes the gate; holdfast promote {release}"
            return saying(words, release=release)
        words = "release {release} was trained, and the gate refuses it: {reasons}"
        return saying(words, release=release, reasons=reduce(_and, self.reasons))


def why_not(home: Home, status: Status, programme: Programme, *, now: datetime) -> str | None:
    """Say why a verdict starts no training; None if it does."""
    settings = programme.cure
    if not settings.train:
        return "[cure] train is off in holdfast.toml"
    if status != "drift":
        return f"the verdict is {status}: only drift, or a promise that was not kept, is cured by learning"
    if not home.cure.exists():
        return None
    began = datetime.fromisoformat(json.loads(home.cure.read_text(encoding="utf-8"))["began"])
    wait = timedelta(days=settings.cooldown_days)
    if passed(began, wait, now):
        return None
    return f"the last training by itself was {began:%Y-%m-%d}; none before {began + wait:%Y-%m-%d}"


def start_cure(home: Home, status: Status, programme: Programme, *, now: datetime, progress: Progress) -> Cured | str:
    """Train a challenger and let the gate judge it, or say why not; of two processes one does.

    That it began is kept before it begins: what fails half-way is not begun again at every check.
    """
    with _alone(home) as alone:
        if not alone:
            return "another process is at it"
        if reason := why_not(home, status, programme, now=now):
            return reason
        write_json(home.cure, {"began": now.isoformat(), "verdict": status})
        name = f"cure-{now:%Y%m%d}"
        manifest, _ = train(home, settings=Settings(), progress=progress, name=name)
        if programme.cure.promote:
            verdict, release_id = promote_release(home, manifest.release_id, who=WHO, now=now)
        else:
            verdict, release_id = judge_release(home, manifest.release_id, serving=champion_id(home))
        against = tuple(told for told in verdict.said if str(told).startswith("against"))
        return Cured(release_id, verdict.promote, verdict.promote and programme.cure.promote, against)


def _and(first: Saying, then: Saying) -> Saying:
    return saying("{first}; {then}", first=first, then=then)


@contextmanager
def _alone(home: Home) -> Iterator[bool]:
    home.root.mkdir(parents=True, exist_ok=True)
    with home.cure.with_name(f"{home.cure.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
