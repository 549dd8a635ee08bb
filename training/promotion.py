"""Promotion: whether a challenger may serve, and on what grounds; a pure function from evidence to a verdict."""

import math
from dataclasses import dataclass, is_dataclass
from typing import Any, Protocol

from pydantic import TypeAdapter

from features.saying import Saying, saying
from training.judging.findings import (
    IDENTIFIED,
    Evidence,
    Finding,
    Gate,
    Money,
    fairness_findings,
    identification_findings,
    latency_findings,
    money_findings,
    probabilities_findings,
    ranged,
    soundness_findings,
    stability_findings,
)
from training.metrics import Estimate


class ObservedEffect(Protocol):
    """Say what campaigns brought, as far as it can be known; see `training.logged.observational`."""

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
    said: tuple[Saying, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons in English."""
        return tuple(map(str, self.said))


def evidence_from_json(value: dict[str, Any]) -> Evidence:
    """Read back what `Evidence.to_json` gave."""
    return TypeAdapter(Evidence).validate_python(value)


def _minor(amount: float) -> str:
    return f"{amount:+.1f}"


def judge(evidence: Evidence, champion: Evidence | None, *, gate: Gate | None = None, money: Money = _minor) -> Verdict:
    """Judge a challenger: its data, then its uplift, its policy, its probabilities, groups, stability and latency.

    A first release may not be shown to be worse than no contact, or than the best fixed offer: nothing serves yet, and
    from then on its hold-out group and its exploration measure it. Against a champion the burden turns round: the lower
    end of the paired difference may not be below zero less `champion_margin`, for a challenger proves itself and a
    champion need not. Where the champion sends everybody the best fixed offer, and the challenger tells members apart,
    the lower end has to lie above it: where members do not differ, telling them apart earns nothing, and one offer for
    all is what is kept.

    A challenger of the champion's own recipe, learned from newer data, is no claim that has to be proven: of two
    trainings of one recipe the one that knows more is expected to be the better, and no log of a few thousand decisions
    could show it. It may not be shown to be worse; else a programme would keep its first model for years.

    A release without offers acts on nobody, so it needs no experiment; it follows only a champion that makes none.

    Parameters
    ----------
    evidence : of the challenger; `against_champion` is needed where there is a champion
    champion : its evidence when it was promoted; None if nothing serves yet
    gate : the limits
    money : how an amount in minor units is shown in a reason, as `Programme.money` does
    """
    limits = gate or Gate()
    missing = [name for name, value in vars(evidence).items() if _unusable(value)]
    if missing:
        return _conclude((False, saying("not a finite number: {names}", names=", ".join(missing))))
    findings = [
        *soundness_findings(evidence, limits),
        *identification_findings(evidence, champion, limits),
        *(money_findings(evidence, champion, limits, money) if evidence.experiment in IDENTIFIED else ()),
        *probabilities_findings(evidence, champion, limits),
        *fairness_findings(evidence, limits),
        *stability_findings(evidence, limits),
        *latency_findings(evidence, limits),
    ]
    return _conclude(*findings)


def _conclude(*findings: Finding) -> Verdict:
    return Verdict(
        promote=all(passed for passed, _ in findings),
        said=tuple(
            saying("for: {reason}" if passed else "against: {reason}", reason=told) for passed, told in findings
        ),
    )


def _unusable(item: object) -> bool:
    if isinstance(item, tuple):
        return any(_unusable(part) for part in item)
    if is_dataclass(item):
        return any(_unusable(part) for part in vars(item).values())
    return isinstance(item, float) and not math.isfinite(item)


def judge_campaign(found: ObservedEffect, *, contact_cost: float, money: Money = _minor) -> Verdict:
    """Judge whether what targeted campaigns seem to have brought may be acted on: identified, and above its cost."""
    effect = saying(
        "the effect is {verdict}: {reasons}", verdict=saying(found.verdict), reasons="; ".join(found.reasons)
    )
    words = "it brought {amount} a contacted member; surely more than {cost} was wanted"
    brought = saying(words, amount=ranged(found.effect, money), cost=money(contact_cost))
    return _conclude((found.verdict != "not identified", effect), (found.effect.lower > contact_cost, brought))
