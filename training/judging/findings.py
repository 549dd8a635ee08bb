"""What speaks for and against a release: the evidence, its limits, and one kind of finding after the other."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from features.saying import Saying, saying
from training.metrics import Estimate
from training.releases.manifest import plain

Money = Callable[[float], str]

IDENTIFIED: Final = ("simulated", "randomised", "adjusted")
CHANCE: Final = 0.5  # the AUC of a ranking that says nothing
NO_OFFERS: Final = "none"  # the experiment of a release that makes no offer

_MISCALIBRATED: Final = "{attribute} {group}: predicted churn differs from observed by {gap}, beyond {limit}"
_SCORING: Final = (
    "scoring 1 member took {took} ms, at most {most} wanted",
    "scoring 100 members took {took} ms, at most {most} wanted",
)
_CONTACTED: Final = "{attribute} {group}: the contact rate differs from that of all by {gap}, beyond {limit}"

Finding = tuple[bool, Saying]  # whether it speaks for the release, and the reason in words


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
        words = "AUC {auc}, above {leak}, is too good: look for a feature that knows the future"
        yield False, saying(words, auc=str(auc), leak=str(leak))
    if data is None:
        return
    if data.best_feature_auc > leak:
        words = "{feature} alone ranks who left with an AUC of {auc}, above {leak}: it knows the future"
        yield False, saying(words, feature=data.best_feature, auc=f"{data.best_feature_auc:.3f}", leak=str(leak))
    if data.foreknown:
        words = "{names} change where all that came later is made up: they know the future, or are of other rows"
        yield False, saying(words, names=", ".join(data.foreknown))
    if data.repeated:
        yield False, saying("{rows} rows are of a member and a date that came before", rows=f"{data.repeated:,}")
    if data.shared > limits.shared_rows:
        words = "{shared} of the test's rows are also in the training, at most {most}"
        yield False, saying(words, shared=f"{data.shared:.1%}", most=f"{limits.shared_rows:.0%}")
    passed, fewest = data.fewest_of_a_class >= limits.fewest_of_a_class, limits.fewest_of_a_class
    words = "the test has {members} members of the rarer class, at least {wanted} wanted"
    yield passed, saying(words, members=f"{data.fewest_of_a_class:,}", wanted=str(fewest))


def identification_findings(evidence: Evidence, champion: Evidence | None, limits: Gate) -> Iterator[Finding]:
    """Say whether what the offers bring can be known."""
    reasons: str | Saying = "; ".join(evidence.not_identified) or saying("no reason was recorded")
    if evidence.experiment == NO_OFFERS:
        yield True, saying("it makes no offer: {reasons}", reasons=reasons)
        if champion and champion.experiment != NO_OFFERS:
            yield False, saying("the champion makes offers: following it with none would end them unseen")
        return
    experiment = saying(evidence.experiment)
    if evidence.experiment not in IDENTIFIED:
        words = "the effect of the offers is {experiment}, nothing may act on it: {reasons}"
        yield False, saying(words, experiment=experiment, reasons=reasons)
        return
    yield True, saying("the effect of the offers is {experiment}", experiment=experiment)
    yield from _drawn(evidence, limits)
    if (fewest := evidence.fewest_of_an_arm) is not None:
        wanted = limits.fewest_of_an_arm
        words = "the arm with the fewest members has {members}, at least {wanted} wanted"
        yield fewest >= wanted, saying(words, members=f"{fewest:,}", wanted=str(wanted))
    if (size := evidence.effective_sample_size) is not None:
        least = limits.effective_sample_size
        words = "the log is worth {size} decisions of this policy, at least {wanted} wanted"
        yield size >= least, saying(words, size=f"{size:.0f}", wanted=f"{least:.0f}")


def _drawn(evidence: Evidence, limits: Gate) -> Iterator[Finding]:
    """Say whether the arms are those that were drawn."""
    arms = ((saying("the arms' sizes"), evidence.sample_ratio_p), (saying("the arms' members"), evidence.balance_p))
    for what, p in arms:
        if p is not None and p >= limits.sample_ratio_p:
            yield True, saying("{what} agree with the plan (p {p})", what=what, p=f"{p:.4f}")
        elif p is not None:
            yield False, saying("{what} disagree with the plan (p {p})", what=what, p=f"{p:.4f}")


def money_findings(evidence: Evidence, champion: Evidence | None, limits: Gate, money: Money) -> Iterator[Finding]:
    """Say what the policy earns over its rivals, and over the champion."""
    rivals = (
        (saying("no contact"), evidence.against_no_contact),
        (saying("the best fixed offer"), evidence.against_best_fixed),
    )
    for rival, difference in rivals:
        if difference is None:
            yield False, saying("its policy was not compared with {rival}", rival=rival)
        else:
            yield difference.upper >= 0, saying(_pays(difference), rival=rival, amount=each(difference, money))
    if champion is None:
        yield True, saying("nothing serves yet")
    elif evidence.against_champion is None:
        yield False, saying("its policy was not compared with the champion's on the same decisions")
    else:
        yield _against(evidence.against_champion, evidence, champion, limits=limits, money=money)


def _against(difference: Estimate, evidence: Evidence, champion: Evidence, *, limits: Gate, money: Money) -> Finding:
    shown, least = each(difference, money), -limits.champion_margin
    if evidence.personalised and not champion.personalised and champion.experiment != NO_OFFERS:
        words = "telling members apart is not shown to beat the champion's one offer for all: {amount}"
        if passed := difference.lower > least:
            words = "telling members apart is better than the champion's one offer for all: {amount}"
    elif evidence.refreshes:
        words = "learned anew on newer data, its policy is worse than the champion's: {amount}"
        if passed := difference.upper >= least:
            words = "learned anew on newer data, its policy is not shown to be worse than the champion's: {amount}"
    else:
        words = "its policy is not shown to be as good as the champion's: {amount}"
        if passed := difference.lower >= least:
            words = "its policy is not worse than the champion's: {amount}"
    return passed, saying(words, amount=shown)


def each(amount: Estimate, money: Money) -> Saying:
    """Show an amount a decision with its interval."""
    return saying("{amount} a decision", amount=ranged(amount, money))


def ranged(amount: Estimate, money: Money) -> str:
    """Show an amount with its interval."""
    return f"{money(amount.value)} [{money(amount.lower)}, {money(amount.upper)}]"


def _pays(difference: Estimate) -> str:
    words = "its policy can't be told from {rival}: {amount}"
    if difference.lower > 0:
        words = "its policy earns more than {rival}: {amount}"
    if difference.upper < 0:
        words = "its policy earns less than {rival}: {amount}"
    return words


def probabilities_findings(evidence: Evidence, champion: Evidence | None, limits: Gate) -> Iterator[Finding]:
    """Say whether the probabilities hold, rank at all, and are not shown to rank worse than the best single feature.

    To be shown to be better takes more members than a small programme has, and a model that is as good harms nobody.
    """
    error, most = evidence.calibration_error, limits.calibration_error
    told = saying("calibration error {error}, at most {most} wanted", error=str(error), most=str(most))
    yield error.value <= most, _beside(told, champion.calibration_error if champion else None)
    auc, lead = evidence.auc, evidence.auc_over_best_feature
    ranks = auc.lower > CHANCE
    words = "AUC {auc}" if ranks else "AUC {auc}, not shown to rank better than chance"
    yield ranks, _beside(saying(words, auc=str(auc)), champion.auc if champion else None)
    worse = lead.upper < -limits.single_feature_margin
    words = "AUC over the best single feature {lead}"
    if worse:
        words = "AUC over the best single feature {lead}, shown to be worse"
    yield not worse, saying(words, lead=str(lead))


def _beside(told: Saying, champion: Estimate | None) -> Saying:
    return saying("{told}, {figure} of the champion", told=told, figure=str(champion)) if champion else told


def fairness_findings(evidence: Evidence, limits: Gate) -> Iterator[Finding]:
    """Say which groups are predicted or contacted otherwise, beyond chance."""
    judged = [row for row in evidence.groups if row.members >= limits.group_members]
    small = [f"{row.attribute} {row.group}" for row in evidence.groups if row.members < limits.group_members]
    bad = [
        (False, saying(words, attribute=row.attribute, group=row.group, gap=str(gap), limit=str(limit)))
        for row in judged
        for words, gap, limit in (
            (_MISCALIBRATED, row.calibration_gap, limits.group_calibration),
            (_CONTACTED, row.contact_gap, limits.group_contact),
        )
        if gap is not None and max(gap.lower, -gap.upper) > limit
    ]
    yield from bad
    if judged and not bad:
        attributes = ", ".join(dict.fromkeys(row.attribute for row in judged))
        words = "{n} groups by {attributes} are predicted and contacted alike, within the limits"
        yield True, saying(words, n=str(len(judged)), attributes=attributes)
    if small:
        words = "too few members to judge, below {fewest}: {groups}"
        yield True, saying(words, fewest=str(limits.group_members), groups=", ".join(small))


def stability_findings(evidence: Evidence, limits: Gate) -> Iterator[Finding]:
    """Say whether the model is the same from date to date, and much like the champion."""
    if (spread := evidence.auc_spread) is not None:
        most = limits.auc_spread
        words = "the AUC of the test's dates differs by {spread}, at most {most} beyond chance wanted"
        yield spread.lower <= most, saying(words, spread=str(spread), most=str(most))
    if (shift := evidence.score_shift) is not None:
        most = limits.score_shift
        words = "scores moved by a stability index of {shift} since the training, at most {most} wanted"
        yield shift <= most, saying(words, shift=f"{shift:.3f}", most=str(most))
    if (overlap := evidence.top_overlap) is not None:
        least = limits.top_overlap
        words = "{overlap} of those at most risk are so by the champion, at least {least} wanted"
        yield overlap >= least, saying(words, overlap=f"{overlap:.0%}", least=f"{least:.0%}")


def latency_findings(evidence: Evidence, limits: Gate) -> Iterator[Finding]:
    """Say how long scoring takes."""
    if evidence.milliseconds is None:
        return
    wanted = (limits.milliseconds_of_one, limits.milliseconds_of_hundred)
    for words, took, most in zip(_SCORING, evidence.milliseconds, wanted, strict=True):
        yield took <= most, saying(words, took=f"{took:.1f}", most=f"{most:.0f}")
