"""Promotion: whether a challenger may serve, and on what grounds; a pure function from evidence to a verdict."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Protocol

from training.metrics import Estimate

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
