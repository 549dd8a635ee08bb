"""What speaks for and against a release: the evidence, its limits, and one kind of finding after the other."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from training.metrics import Estimate
from training.releases.manifest import plain

Money = Callable[[float], str]

IDENTIFIED: Final = ("simulated", "randomised", "adjusted")
CHANCE: Final = 0.5  # the AUC of a ranking that says nothing
NO_OFFERS: Final = "none"  # the experiment of a release that makes no offer

Finding = tuple[bool, str]  # whether it speaks for the release, and the reason in words


@dataclass(frozen=True)
class DataChecks:
    """Hold what is found in the rows a churn model learns from and is judged on."""

    repeated: int  # rows of a member and an as_of that came before
    shared: float  # share of the test's rows that are, to the last digit, a row of the training
    fewest_of_a_class: int  # members in the test who left, or who stayed, whichever are fewer
    best_feature: str  # the single feature that ranks best who left in the training
    best_feature_auc: float
    foreknown: tuple[str, ...] = ()  # features that change where all that came later is made up


@dataclass(frozen=True)
class Gate:
    """Hold the limits of promotion; money in minor units per decision."""

    # data
    leak_auc: float = 0.98  # churn is never that easy, for a model or for one feature: it knows the future
    shared_rows: float = 0.05  # share of test rows that may be rows of the training: members who did one thing once
    fewest_of_a_class: int = 30  # members who left, and who stayed, in the test
    fewest_of_an_arm: int = 30  # members who had each treatment, before and after the split
    # identification
    sample_ratio_p: float = 0.001  # of the arms' sizes, and of the balance of features
    effective_sample_size: float = 100.0  # below it a normal interval is not one of 95 %
    # money
    champion_margin: float = 0.0  # so much money per decision a challenger may cost, at the interval's lower end
    # probabilities
    calibration_error: float = 0.05
    single_feature_margin: float = 0.005  # AUC: more may not be shown to be lost to the best single feature
    # groups
    group_members: int = 100  # smaller groups are named, not judged
    group_calibration: float = 0.05  # predicted less observed churn of a group, beyond chance
    group_contact: float = 0.30  # contact rate of a group less that of all, beyond chance
    # stability
    auc_spread: float = 0.10  # between the test's best and worst date, beyond chance
    score_shift: float = 0.25  # population stability index from the training's last date to the test
    top_overlap: float = 0.30  # of those at most risk, the share that has to be so by the champion too
    # latency, milliseconds for scoring so many members at once
    milliseconds_of_one: float = 5.0
    milliseconds_of_hundred: float = 25.0


@dataclass(frozen=True)
class GroupRow:
    """Hold one group of members, and by how much it is treated otherwise."""

    attribute: str
    group: str
    members: int
    calibration_gap: Estimate | None  # predicted less observed churn; None with one member
    contact_gap: Estimate | None  # the policy's contact rate less that of all; None without offers, and for tiers


@dataclass(frozen=True)
class Evidence:
    """Hold what speaks for and against a release, as plain numbers; money in minor units per decision.

    Differences are paired, of the release's policy minus the rival's on the same logged decisions, by the doubly robust
    estimator. `None` says that it could not be estimated.
    """

    experiment: str  # "simulated", "randomised", "adjusted" or, of a release without offers, "none"
    auc: Estimate
    auc_over_best_feature: Estimate
    calibration_error: Estimate
    against_no_contact: Estimate | None = None
    against_best_fixed: Estimate | None = None
    against_champion: Estimate | None = None
    personalised: bool = False  # whether its policy treats members differently
    refreshes: bool = False  # whether it is the champion's recipe, learned from newer data
    effective_sample_size: float | None = None
    sample_ratio_p: float | None = None
    balance_p: float | None = None
    not_identified: tuple[str, ...] = ()  # the reasons, where there are no offers or fewer than there were
    fewest_of_an_arm: int | None = None
    data: DataChecks | None = None
    groups: tuple[GroupRow, ...] = ()
    auc_spread: Estimate | None = None
    score_shift: float | None = None
    top_overlap: float | None = None  # with the champion
    milliseconds: tuple[float, float] | None = None  # to score 1 and 100 members, measured where it is promoted

    def to_json(self) -> dict[str, Any]:
        """Give the evidence as JSON values."""
        value: dict[str, Any] = plain(self)
        return value


def soundness_findings(evidence: Evidence, limits: Gate) -> Iterator[Finding]:
    """Say whether the data can be learned from."""
    auc, leak, data = evidence.auc, limits.leak_auc, evidence.data
    if auc.value > leak:
        yield False, f"AUC {auc}, above {leak}, is too good: look for a feature that knows the future"
    if data is None:
        return
    if data.best_feature_auc > leak:
        yield (
            False,
            (
                f"{data.best_feature} alone ranks who left with an AUC of {data.best_feature_auc:.3f}, above {leak}: "
                "it knows the future"
            ),
        )
    if data.foreknown:
        names = ", ".join(data.foreknown)
        yield False, f"{names} change where all that came later is made up: they know the future, or are of other rows"
    if data.repeated:
        yield False, f"{data.repeated:,} rows are of a member and a date that came before"
    if data.shared > limits.shared_rows:
        yield False, f"{data.shared:.1%} of the test's rows are also in the training, at most {limits.shared_rows:.0%}"
    passed, fewest = data.fewest_of_a_class >= limits.fewest_of_a_class, limits.fewest_of_a_class
    yield passed, f"the test has {data.fewest_of_a_class:,} members of the rarer class, at least {fewest} wanted"


def identification_findings(evidence: Evidence, champion: Evidence | None, limits: Gate) -> Iterator[Finding]:
    """Say whether what the offers bring can be known."""
    reasons = "; ".join(evidence.not_identified) or "no reason was recorded"
    if evidence.experiment == NO_OFFERS:
        yield True, f"it makes no offer: {reasons}"
        if champion and champion.experiment != NO_OFFERS:
            yield False, "the champion makes offers: following it with none would end them unseen"
        return
    if evidence.experiment not in IDENTIFIED:
        yield False, f"the effect of the offers is {evidence.experiment}, nothing may act on it: {reasons}"
        return
    yield True, f"the effect of the offers is {evidence.experiment}"
    for what, p in (("the arms' sizes", evidence.sample_ratio_p), ("the arms' members", evidence.balance_p)):
        if p is not None:
            passed = p >= limits.sample_ratio_p
            yield passed, f"{what} {'agree' if passed else 'disagree'} with the plan (p {p:.4f})"
    if (fewest := evidence.fewest_of_an_arm) is not None:
        wanted = limits.fewest_of_an_arm
        yield fewest >= wanted, f"the arm with the fewest members has {fewest:,}, at least {wanted} wanted"
    if (size := evidence.effective_sample_size) is not None:
        least = limits.effective_sample_size
        yield size >= least, f"the log is worth {size:.0f} decisions of this policy, at least {least:.0f} wanted"


def money_findings(evidence: Evidence, champion: Evidence | None, limits: Gate, money: Money) -> Iterator[Finding]:
    """Say what the policy earns over its rivals, and over the champion."""
    rivals = (("no contact", evidence.against_no_contact), ("the best fixed offer", evidence.against_best_fixed))
    for name, difference in rivals:
        if difference is None:
            yield False, f"its policy was not compared with {name}"
        else:
            yield difference.upper >= 0, f"its policy {_pays(difference)} {name}: {each(difference, money)}"
    if champion is None:
        yield True, "nothing serves yet"
    elif evidence.against_champion is None:
        yield False, "its policy was not compared with the champion's on the same decisions"
    else:
        yield _against(evidence.against_champion, evidence, champion, limits=limits, money=money)


def _against(difference: Estimate, evidence: Evidence, champion: Evidence, *, limits: Gate, money: Money) -> Finding:
    shown, least = each(difference, money), -limits.champion_margin
    if evidence.personalised and not champion.personalised and champion.experiment != NO_OFFERS:
        if difference.lower > least:
            return True, f"telling members apart is better than the champion's one offer for all: {shown}"
        return False, f"telling members apart is not shown to beat the champion's one offer for all: {shown}"
    if evidence.refreshes:
        passed = difference.upper >= least
        found = "is not shown to be worse than" if passed else "is worse than"
        return passed, f"learned anew on newer data, its policy {found} the champion's: {shown}"
    passed = difference.lower >= least
    return (
        passed,
        f"its policy is {'not worse than' if passed else 'not shown to be as good as'} the champion's: {shown}",
    )


def each(amount: Estimate, money: Money, per: str = "decision") -> str:
    """Show an amount with its interval."""
    return f"{money(amount.value)} [{money(amount.lower)}, {money(amount.upper)}] a {per}"


def _pays(difference: Estimate) -> str:
    if difference.lower > 0:
        return "earns more than"
    return "earns less than" if difference.upper < 0 else "can't be told from"


def probabilities_findings(evidence: Evidence, champion: Evidence | None, limits: Gate) -> Iterator[Finding]:
    """Say whether the probabilities hold, rank at all, and are not shown to rank worse than the best single feature.

    To be shown to be better takes more members than a small programme has, and a model that is as good harms nobody.
    """
    error = evidence.calibration_error
    before = f", {champion.calibration_error} of the champion" if champion else ""
    passed = error.value <= limits.calibration_error
    yield passed, f"calibration error {error}, at most {limits.calibration_error} wanted{before}"
    auc, lead = evidence.auc, evidence.auc_over_best_feature
    told = "" if auc.lower > CHANCE else ", not shown to rank better than chance"
    yield not told, f"AUC {auc}{told}" + (f", {champion.auc} of the champion" if champion else "")
    worse = lead.upper < -limits.single_feature_margin
    yield not worse, f"AUC over the best single feature {lead}" + (", shown to be worse" if worse else "")


def fairness_findings(evidence: Evidence, limits: Gate) -> Iterator[Finding]:
    """Say which groups are predicted or contacted otherwise, beyond chance."""
    judged = [row for row in evidence.groups if row.members >= limits.group_members]
    small = [f"{row.attribute} {row.group}" for row in evidence.groups if row.members < limits.group_members]
    bad = [
        (False, f"{row.attribute} {row.group}: {what} by {gap}, beyond {limit}")
        for row in judged
        for what, gap, limit in (
            ("predicted churn differs from observed", row.calibration_gap, limits.group_calibration),
            ("the contact rate differs from that of all", row.contact_gap, limits.group_contact),
        )
        if gap is not None and max(gap.lower, -gap.upper) > limit
    ]
    yield from bad
    if judged and not bad:
        attributes = ", ".join(dict.fromkeys(row.attribute for row in judged))
        yield True, f"{len(judged)} groups by {attributes} are predicted and contacted alike, within the limits"
    if small:
        yield True, f"too few members to judge, below {limits.group_members}: {', '.join(small)}"


def stability_findings(evidence: Evidence, limits: Gate) -> Iterator[Finding]:
    """Say whether the model is the same from date to date, and much like the champion."""
    if (spread := evidence.auc_spread) is not None:
        most = limits.auc_spread
        yield (
            spread.lower <= most,
            f"the AUC of the test's dates differs by {spread}, at most {most} beyond chance wanted",
        )
    if (shift := evidence.score_shift) is not None:
        most = limits.score_shift
        yield (
            shift <= most,
            f"scores moved by a stability index of {shift:.3f} since the training, at most {most} wanted",
        )
    if (overlap := evidence.top_overlap) is not None:
        least = limits.top_overlap
        yield (
            overlap >= least,
            f"{overlap:.0%} of those at most risk are so by the champion, at least {least:.0%} wanted",
        )


def latency_findings(evidence: Evidence, limits: Gate) -> Iterator[Finding]:
    """Say how long scoring takes."""
    if evidence.milliseconds is None:
        return
    wanted = (limits.milliseconds_of_one, limits.milliseconds_of_hundred)
    for members, took, most in zip(("1 member", "100 members"), evidence.milliseconds, wanted, strict=True):
        yield took <= most, f"scoring {members} took {took:.1f} ms, at most {most:.0f} wanted"
