"""Promotion: whether a challenger may serve, on what grounds, and who let it.

The gate is a pure function from evidence to a verdict. The ledger, `releases/ledger.jsonl`, is the truth about who is
champion: one line per change, appended under a lock and flushed. A change has happened once its line ends in a newline;
a torn last line never happened, and the next change cuts it off. `releases/champion.json` is a copy for people and
other programs, written after the ledger and mended by the next change.
"""

import fcntl
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from features.errors import ContractError, CorruptError, NotFoundError
from features.files import write_json
from features.home import Home
from training.metrics import Estimate

Action = Literal["promotion", "rollback"]

Money = Callable[[float], str]

IDENTIFIED: Final = ("simulated", "randomised", "adjusted")


@dataclass(frozen=True)
class Gate:
    """Hold the limits of promotion; money in minor units per decision."""

    calibration_error: float = 0.05
    leak_auc: float = 0.98  # churn is never that easy: a feature knows the future
    single_feature_margin: float = 0.005  # so much AUC may be lost to the best single feature
    champion_margin: float = 0.0  # so much money per decision a challenger may cost, at the interval's lower end
    sample_ratio_p: float = 0.001
    effective_sample_size: float = 100.0  # below it a normal interval is not one of 95 %


@dataclass(frozen=True)
class Evidence:
    """Hold what speaks for and against a release, as plain numbers; money in minor units per decision.

    Differences are paired, of the release's policy minus the rival's on the same logged decisions, by the doubly robust
    estimator. `None` says that it could not be estimated.
    """

    experiment: str  # "simulated", "randomised" or "adjusted"; anything else is not identified
    auc: Estimate
    auc_over_best_feature: Estimate
    calibration_error: Estimate
    against_no_contact: Estimate | None = None
    against_best_fixed: Estimate | None = None
    against_champion: Estimate | None = None
    effective_sample_size: float | None = None
    sample_ratio_p: float | None = None
    not_identified: tuple[str, ...] = ()  # the reasons: propensity AUC, overlap, placebo

    def to_json(self) -> dict[str, Any]:
        """Give the evidence as JSON values."""
        return asdict(self) | {"not_identified": list(self.not_identified)}


class ObservedEffect(Protocol):
    """Say what campaigns brought, as far as it can be known; see `training.observational`."""

    @property
    def verdict(self) -> str:
        """One of randomised, adjusted, not identified."""
        ...

    @property
    def reasons(self) -> tuple[str, ...]:
        """Give the grounds of the verdict."""
        ...

    @property
    def effect(self) -> Estimate:
        """Give the margin per contacted member."""
        ...


@dataclass(frozen=True)
class Verdict:
    """Say whether a challenger may serve, and every reason, those for it among them."""

    promote: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """Hold one line of the ledger; `at` is ISO 8601 UTC."""

    action: Action
    at: str
    who: str
    from_release: str | None
    to_release: str
    reasons: tuple[str, ...]


def evidence_from_json(value: dict[str, Any]) -> Evidence:
    """Read back what `Evidence.to_json` gave."""
    read = {name: Estimate(**item) if isinstance(item, dict) else item for name, item in value.items()}
    return Evidence(**read | {"not_identified": tuple(value["not_identified"])})


def _minor(amount: float) -> str:
    return f"{amount:+.1f}"


def judge(evidence: Evidence, champion: Evidence | None, *, gate: Gate | None = None, money: Money = _minor) -> Verdict:
    """Judge a challenger: can its uplift be trusted, does its policy pay, do its probabilities hold.

    A first release has to be not significantly worse than no contact and than the best fixed offer. Against a champion
    the lower end of the paired difference may not be below zero: a challenger proves itself, a champion need not.

    Parameters
    ----------
    evidence : of the challenger; `against_champion` is needed where there is a champion
    champion : its evidence when it was promoted; None if nothing serves yet
    gate : the limits
    money : how an amount in minor units is shown in a reason, as `Programme.money` does
    """
    limits = gate or Gate()
    missing = [f.name for f in fields(evidence) if _unusable(getattr(evidence, f.name))]
    if missing:
        return Verdict(promote=False, reasons=(f"against: not a finite number: {', '.join(missing)}",))
    findings = [
        *_identification(evidence, limits),
        *(_money(evidence, champion, limits, money) if evidence.experiment in IDENTIFIED else ()),
        *_probabilities(evidence, champion, limits),
    ]
    return _conclude(*findings)


def _conclude(*findings: tuple[bool, str]) -> Verdict:
    return Verdict(
        promote=all(passed for passed, _ in findings),
        reasons=tuple(f"{'for' if passed else 'against'}: {reason}" for passed, reason in findings),
    )


def _unusable(item: object) -> bool:
    numbers = (item.value, item.lower, item.upper) if isinstance(item, Estimate) else (item,)
    return any(isinstance(number, float) and not math.isfinite(number) for number in numbers)


def _identification(evidence: Evidence, limits: Gate) -> Iterator[tuple[bool, str]]:
    if evidence.experiment not in IDENTIFIED:
        reasons = "; ".join(evidence.not_identified) or "no reason was recorded"
        yield False, f"the effect of the offers is {evidence.experiment}, nothing may act on it: {reasons}"
        return
    yield True, f"the effect of the offers is {evidence.experiment}"
    if (p := evidence.sample_ratio_p) is not None:
        passed = p >= limits.sample_ratio_p
        yield passed, f"the arms' sizes {'agree' if passed else 'disagree'} with the plan (p {p:.4f})"
    if (size := evidence.effective_sample_size) is not None:
        wanted = limits.effective_sample_size
        yield size >= wanted, f"the log is worth {size:.0f} decisions of this policy, at least {wanted:.0f} wanted"


def _money(evidence: Evidence, champion: Evidence | None, limits: Gate, money: Money) -> Iterator[tuple[bool, str]]:
    rivals = (("no contact", evidence.against_no_contact), ("the best fixed offer", evidence.against_best_fixed))
    for name, difference in rivals:
        if difference is None:
            yield False, f"its policy was not compared with {name}"
        else:
            yield difference.upper >= 0, f"its policy {_pays(difference)} {name}: {_each(difference, money)}"
    if champion is None:
        yield True, "nothing serves yet"
    elif evidence.against_champion is None:
        yield False, "its policy was not compared with the champion's on the same decisions"
    else:
        difference = evidence.against_champion
        passed = difference.lower >= -limits.champion_margin
        words = "not worse than" if passed else "not shown to be as good as"
        yield passed, f"its policy is {words} the champion's: {_each(difference, money)}"


def _each(amount: Estimate, money: Money, per: str = "decision") -> str:
    return f"{money(amount.value)} [{money(amount.lower)}, {money(amount.upper)}] a {per}"


def _pays(difference: Estimate) -> str:
    if difference.lower > 0:
        return "earns more than"
    return "earns less than" if difference.upper < 0 else "can't be told from"


def _probabilities(evidence: Evidence, champion: Evidence | None, limits: Gate) -> Iterator[tuple[bool, str]]:
    error, auc, leak = evidence.calibration_error, evidence.auc, limits.leak_auc
    before = f", {champion.calibration_error} of the champion" if champion else ""
    passed = error.value <= limits.calibration_error
    yield passed, f"calibration error {error}, at most {limits.calibration_error} wanted{before}"
    if auc.value > leak:
        yield False, f"AUC {auc}, above {leak}, is too good: look for a feature that knows the future"
    else:
        yield True, f"AUC {auc}" + (f", {champion.auc} of the champion" if champion else "")
    lead = evidence.auc_over_best_feature
    yield lead.lower >= -limits.single_feature_margin, f"AUC over the best single feature {lead}"


def judge_campaign(found: ObservedEffect, *, contact_cost: float, money: Money = _minor) -> Verdict:
    """Judge whether what targeted campaigns seem to have brought may be acted on: identified, and above its cost."""
    shown = _each(found.effect, money, per="contacted member")
    return _conclude(
        (found.verdict != "not identified", f"the effect is {found.verdict}: {'; '.join(found.reasons)}"),
        (found.effect.lower > contact_cost, f"it brought {shown}; surely more than {money(contact_cost)} was wanted"),
    )


def champion_id(home: Home) -> str | None:
    """Name the release that serves, if any: where the last whole line of the ledger leads."""
    changes = ledger(home)
    return changes[-1].to_release if changes else None


def ledger(home: Home) -> tuple[Change, ...]:
    """Read every promotion and rollback, oldest first.

    Raises
    ------
    CorruptError
        If a line that was written whole can't be read: somebody else wrote here.
    """
    path = _ledger_path(home)
    whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
    return tuple(_read_change(line, path) for line in whole.splitlines())


def promote(home: Home, release_id: str, *, expected: str | None, who: str, now: datetime, verdict: Verdict) -> Change:
    """Make a release champion if `expected` still is (None: if there is none); of several at once exactly one succeeds.

    Repeating a promotion that stands changes nothing.

    Raises
    ------
    ContractError
        If the verdict is against it, or another release is champion by now.
    NotFoundError
        If there is no such release.
    """
    if not verdict.promote:
        raise ContractError(f"the gate refused release {release_id}: {'; '.join(verdict.reasons)}; train another")
    if not (home.releases / release_id / "manifest.json").exists():
        raise NotFoundError(f"there is no release {release_id!r}; `holdfast releases` lists those that exist")
    with _locked(home):
        changes = ledger(home)
        serving = changes[-1].to_release if changes else None
        if serving != expected:
            raise ContractError(
                f"the champion is {serving}, not {expected} as was expected: another promotion came between; "
                "compare with it, then `holdfast promote` again"
            )
        if changes and serving == release_id:
            _copy_champion(home, changes[-1])
            return changes[-1]
        change = Change("promotion", now.astimezone(UTC).isoformat(), who, serving, release_id, verdict.reasons)
        _append(home, change)
        return change


def rollback(home: Home, *, who: str, now: datetime) -> str:
    """Go back to the champion before the last promotion that still stands, and name it; twice goes back two.

    Raises
    ------
    NotFoundError
        If there is none before, or its folder is gone.
    """
    with _locked(home):
        standing: list[str] = []
        for change in ledger(home):
            if change.action == "promotion":
                standing.append(change.to_release)
            else:
                standing.pop()
        if len(standing) < 2:  # noqa: PLR2004 (one to leave, one to return to)
            raise NotFoundError("there is no champion before this one to go back to; `holdfast releases` lists all")
        serving, before = standing[-1], standing[-2]
        if not (home.releases / before / "manifest.json").exists():
            raise NotFoundError(f"release {before}, the champion before, is gone; `holdfast promote` another one")
        at = now.astimezone(UTC).isoformat()
        _append(home, Change("rollback", at, who, serving, before, (f"{serving} was taken back",)))
        return before


def _ledger_path(home: Home) -> Path:
    return home.releases / "ledger.jsonl"


def _read_change(line: bytes, path: Path) -> Change:
    try:
        value = json.loads(line)
        return Change(**value | {"reasons": tuple(value["reasons"])})
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptError(f"{path} has a line that is no change of champion: {error}; restore a copy") from error


@contextmanager
def _locked(home: Home) -> Iterator[None]:
    """Hold the one lock of promotions; the system releases it when its process dies."""
    home.releases.mkdir(parents=True, exist_ok=True)
    with (home.releases / ".lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _append(home: Home, change: Change) -> None:
    path = _ledger_path(home)
    written = path.read_bytes() if path.exists() else b""
    with path.open("ab") as file:
        file.truncate(written.rfind(b"\n") + 1)  # a torn last line never happened
        file.write(json.dumps(asdict(change), sort_keys=True).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    _copy_champion(home, change)


def _copy_champion(home: Home, change: Change) -> None:
    write_json(
        home.releases / "champion.json", {"release_id": change.to_release, "since": change.at, "who": change.who}
    )
