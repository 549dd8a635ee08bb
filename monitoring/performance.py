"""What was said, beside what came: once its window has passed, every past score is held against what followed.

Scores say what happens without an offer, so they are judged among those who got none: members held out, and decisions
that were drawn to be control, each for 1 / propensity, as if nobody had been contacted (Horvitz and Thompson, JASA
1952). What offers were worth is judged campaign by campaign against the hold-out, as `holdfast report campaign` does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.programme import Programme
from features.saying import Saying, day, saying
from features.schema import CONTROL
from features.sheet import Sheet
from monitoring.verdict import Finding, Status
from training.labels import days_after
from training.metrics import Estimate, auc, bootstrap, lift
from training.reporting.campaign import Report

Floats = NDArray[np.float64]
Row = Mapping[str, Any]

FEWEST: Final = 100  # decisions without an offer in a cohort: of fewer nothing is said
FEWEST_OF_A_CLASS: Final = 10
RATE: Final = 0.01  # of false alarms of a whole run
SMALLEST: Final = 0.02  # a rate that is off by less is too small to matter
BELIEVED: Final = 0.01  # p-values below are not chance
SCORED: Final = ("model", "random", "hold_out")


@dataclass(frozen=True)
class Cohort:
    """Hold the decisions of one week of one release whose window has passed, judged without an offer."""

    week: datetime
    release_id: str
    decisions: int  # without an offer
    predicted: float  # chance of leaving, on average
    observed: Estimate  # share who left
    off_by: Estimate  # observed less predicted
    auc: Estimate | None  # None where too few left, or stayed
    lift: Estimate | None  # of the tenth at the highest risk
    promised_auc: Estimate | None  # as it was judged when it was trained


@dataclass(frozen=True)
class Performance:
    """Conclude from all that has matured."""

    status: Status
    cohorts: tuple[Cohort, ...]
    campaigns: tuple[Report, ...]
    waiting: int  # decisions whose window has not passed
    findings: tuple[Finding, ...]

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        return str(self.said)

    @property
    def said(self) -> Saying:
        """The verdict in one sentence of any language."""
        judged = {"weeks": str(len(self.cohorts)), "campaigns": str(len(self.campaigns))}
        if self.status == "insufficient_data":
            words = "No verdict: too few decisions have their window behind them; {waiting} wait."
            return saying(words, waiting=f"{self.waiting:,}")
        if self.findings:
            words = "What was said did not come: {findings} findings on {weeks} weeks of scores, {campaigns} campaigns."
            return saying(words, findings=str(len(self.findings)), **judged)
        words = "What was said came, within what chance allows: {weeks} weeks of scores, {campaigns} campaigns."
        return saying(words, **judged)

    def to_json(self) -> dict[str, Any]:
        """Give the verdict as JSON values."""
        found = [finding.to_json() for finding in self.findings]
        return asdict(self) | {"findings": found, "sentence": self.sentence, "said": asdict(self.said)}


def scored_rows(decisions: Sequence[Row], programme: Programme) -> pd.DataFrame:
    """Lay out the decisions of members with a score: member_id, as_of, week, release_id, predicted, weight.

    `weight` is what a decision counts for among those without an offer, 0 for those with one. `matures` is when what
    followed is known.
    """
    rows = [
        (
            row["member_id"],
            row["event_timestamp"],
            row["decided_at"],
            row["release_id"],
            row["churn_probability"],
            1 / row["propensity"] if row["treatment"] == CONTROL else 0.0,
        )
        for row in decisions
        if row["outcome"] in SCORED and row["churn_probability"] is not None and row["event_timestamp"] is not None
    ]
    names = ["member_id", "as_of", "decided_at", "release_id", "predicted", "weight"]
    frame = pd.DataFrame.from_records(rows, columns=names)
    times = {"as_of": "datetime64[us, UTC]", "decided_at": "datetime64[us, UTC]"}
    frame = frame.astype(times | dict.fromkeys(("predicted", "weight"), np.float64))
    # several decisions on one member's same features are one score
    frame = frame.drop_duplicates(["member_id", "as_of", "release_id"], ignore_index=True)
    local = frame["as_of"].dt.tz_convert(programme.timezone)
    week = (local.dt.normalize() - pd.to_timedelta(local.dt.weekday, unit="D")).dt.tz_convert("UTC")
    return frame.assign(week=week, matures=days_after(frame["as_of"], programme.label_days, programme))


def cohorts(rows: pd.DataFrame, promised: Mapping[str, Estimate], rng: np.random.Generator) -> list[Cohort]:
    """Judge each week of each release.

    Parameters
    ----------
    rows : as `scored_rows` gives them, of those that are mature, with `churned` (NaN: gone before)
    promised : the AUC that each release was judged to have
    """
    without = rows[(rows["weight"] > 0) & rows["churned"].notna()]
    parts = [part for _, part in without.groupby(["week", "release_id"]) if len(part) >= FEWEST]
    return [_cohort(part, promised, rng) for part in parts]


def judge(found: Sequence[Cohort], campaigns: Sequence[Report], programme: Programme, *, waiting: int) -> Performance:
    """Conclude from cohorts and campaigns."""
    findings = (*score_findings(found), *(one for report in campaigns for one in campaign_findings(report, programme)))
    status: Status = "drift" if findings else "no_drift" if found or campaigns else "insufficient_data"
    return Performance(status, tuple(found), tuple(campaigns), waiting, findings)


def score_findings(found: Sequence[Cohort]) -> Iterator[Finding]:
    """Find weeks in which rates were off, or members ranked worse than promised, by more than chance allows.

    All weeks together raise a false alarm as rarely as asked (Bonferroni).
    """
    reach = NormalDist().inv_cdf(1 - RATE / 2 / max(2 * len(found), 1)) / NormalDist().inv_cdf(0.975)
    for one in found:
        limit = max(reach * (one.off_by.upper - one.off_by.value), SMALLEST)
        if abs(one.off_by.value) > limit:
            words = "{left} of the week of {week} left without an offer; {predicted} was predicted"
            rates = {"left": f"{one.observed.value:.1%}", "predicted": f"{one.predicted:.1%}"}
            told = saying(words, week=day(one.week), **rates)
            yield Finding("churn probability", "calibration", told, abs(one.off_by.value), limit)
        if one.auc and one.promised_auc:
            highest = one.auc.value + reach * (one.auc.upper - one.auc.value)
            if highest < one.promised_auc.lower:
                words = "members of the week of {week} were ranked with an AUC of {auc}; {promised} was promised"
                areas = {"auc": f"{one.auc.value:.3f}", "promised": f"{one.promised_auc.value:.3f}"}
                told = saying(words, week=day(one.week), **areas)
                yield Finding("churn probability", "ranking", told, one.auc.value, one.promised_auc.lower)


def campaign_findings(report: Report, programme: Programme) -> Iterator[Finding]:
    """Find what a campaign promised and did not bring, and why its figures may not be believed."""
    name, whole = report.campaign_id, report.whole
    if whole.net_value is not None and whole.promised is not None and whole.promised > whole.net_value.upper:
        words = "{campaign} brought {came} a decision after its costs; {promised} was promised"
        money = {"came": programme.money(whole.net_value.value), "promised": programme.money(whole.promised)}
        yield Finding("", "promise", saying(words, campaign=name, **money), whole.net_value.upper, whole.promised)
    if report.arms_p is not None and report.arms_p < BELIEVED:
        words = "the arms of {campaign} have other shares of members than were planned (p = {p})"
        yield Finding("", "arms", saying(words, campaign=name, p=f"{report.arms_p:.2g}"), report.arms_p, BELIEVED)
    if report.draws_p is not None and report.draws_p < BELIEVED:
        words = "treatments of {campaign} came more or less often than their propensities say (p = {p})"
        told = saying(words, campaign=name, p=f"{report.draws_p:.2g}")
        yield Finding("", "frequencies", told, report.draws_p, BELIEVED)


def _cohort(rows: pd.DataFrame, promised: Mapping[str, Estimate], rng: np.random.Generator) -> Cohort:
    release_id = str(rows["release_id"].iloc[0])
    churned, predicted, weight = (rows[name].to_numpy(np.float64) for name in ("churned", "predicted", "weight"))
    members = rows["member_id"].to_numpy()
    both = min(churned.sum(), (1 - churned).sum()) >= FEWEST_OF_A_CLASS

    def weighted(metric: Any) -> Estimate:  # noqa: ANN401 (any metric of two columns and a weight)
        def of(outcome: Floats, score: Floats, own: Floats, *, weight: Floats | None = None) -> float:
            return float(metric(outcome, score, weight=own if weight is None else own * weight))

        return bootstrap(of, churned, predicted, weight, clusters=members, rng=rng)

    return Cohort(
        week=rows["week"].iloc[0].to_pydatetime(),
        release_id=release_id,
        decisions=len(rows),
        predicted=float(np.average(predicted, weights=weight)),
        observed=weighted(lambda outcome, _, *, weight: np.average(outcome, weights=weight)),
        off_by=weighted(lambda outcome, score, *, weight: np.average(outcome - score, weights=weight)),
        auc=weighted(auc) if both else None,
        lift=weighted(lift) if both else None,
        promised_auc=promised.get(release_id),
    )


def performance_sheets(found: Performance, programme: Programme) -> list[Sheet]:
    """Lay out what came beside what was said."""
    weeks = [
        (
            f"{one.week:%Y-%m-%d}",
            one.release_id[:12],
            f"{one.decisions:,}",
            f"{one.predicted:.1%}",
            f"{one.observed.value:.1%} [{one.observed.lower:.1%}, {one.observed.upper:.1%}]",
            _range(one.auc),
            _range(one.promised_auc),
            _range(one.lift),
        )
        for one in found.cohorts
    ]
    campaigns = [
        (
            report.campaign_id,
            f"{report.whole.decisions:,}",
            f"{report.whole.sent:,}",
            "" if report.whole.promised is None else programme.money(report.whole.promised),
            _money(report.whole.net_value, programme),
            report.design.replace("_", " "),
            "" if report.arms_p is None else f"{report.arms_p:.2g}",
            "" if report.draws_p is None else f"{report.draws_p:.2g}",
        )
        for report in found.campaigns
    ]
    findings = [(one.sentence, f"runbook: {one.runbook}") for one in found.findings]
    header = ("week of", "release", "decisions", "predicted", "left", "AUC", "promised", "lift of a tenth")
    of_campaigns = ("campaign", "decisions", "sent", "promised", "found", "design", "p of arms", "p of draws")
    notes = ("Without an offer: held out, or drawn to be control, weighted; 95 % intervals by member.",)
    return [
        *([Sheet("What was found", ("what", "do"), tuple(findings))] if findings else []),
        Sheet("Scores, once their window has passed", header, tuple(weeks), notes),
        Sheet("Net value a decision, promised and found", of_campaigns, tuple(campaigns)),
    ]


def _range(found: Estimate | None) -> str:
    return "" if found is None else f"{found.value:.3f} [{found.lower:.3f}, {found.upper:.3f}]"


def _money(found: Estimate | None, programme: Programme) -> str:
    if found is None:
        return ""
    return f"{programme.money(found.value)} [{programme.money(found.lower)}, {programme.money(found.upper)}]"
