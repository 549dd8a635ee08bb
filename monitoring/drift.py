"""Is the current window still like the reference? The only door to Evidently.

The verdict rests on exact statistics over all rows and on calibrated thresholds; Evidently draws a sample's report.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from features.files import write_whole
from features.programme import Programme
from features.saying import saying
from monitoring.distances import Bins, Floats, NumberBins
from monitoring.distributions import Numbers, Words
from monitoring.reference import SHOWN_ROWS, Reference, distributions, side_by_side
from monitoring.report import page
from monitoring.thresholds import Design, thresholds
from monitoring.verdict import Finding, Status, Verdict
from monitoring.windows import WINDOWS, Gate, codes_of, floats, members_of, pass_gate
from monitoring.wording import in_words

Price = Callable[[Sequence[Finding]], tuple[Finding, ...]]

FALSE_ALARM_RATE: Final = 0.01  # of a whole run
MINIMUM_REFERENCE: Final = 200  # members: below, resampling them says little of the tail
MINIMUM_CURRENT: Final = 50  # members: below, only a landslide could be told from chance


@dataclass(frozen=True)
class Measured:
    """Hold what was measured of one column."""

    bins: Bins
    current: Numbers | Words
    statistics: Floats  # (n_tests,)
    limits: Floats  # (n_tests,)

    @property
    def by_test(self) -> dict[str, float]:
        """The thresholds by test."""
        return dict(zip(self.bins.tests, self.limits.tolist(), strict=True))


def monitor_drift(
    reference: Reference,
    current: pd.DataFrame,
    *,
    rng: np.random.Generator,
    report: Path | None,
    programme: Programme | None = None,
    price: Price | None = None,
    decisions: Sequence[Finding] = (),
) -> Verdict:
    """Compare the current window with the reference, and write an HTML report if asked to.

    The window holds `member_id`, `as_of` and the reference's columns, one row per member and snapshot.

    Parameters
    ----------
    price : says of findings what is at stake
    decisions : what was found of decisions, as `monitoring.decided` does
    """
    gate = pass_gate(reference.kinds, current, ageing=reference.ageing)
    broken = {finding.column for finding in reference.faults}
    columns = [] if "" in broken else [name for name in gate.columns if name not in broken]
    if reference.faults and not reference.kinds:
        gate = Gate((), (), ())
    members = members_of(current)
    thin = _too_few(reference.members, members) if columns or not (gate.broken or reference.faults) else None
    calibration, sampling = rng.spawn(2)
    measured: list[Measured] = []
    if columns and not thin:
        measured = measure(reference, current, columns, members=members, rng=calibration)
    words = programme or Programme.model_validate({})
    moved = [finding for column in measured for finding in _judge(column, reference, words)]
    verdict = _conclude(reference, gate, thin, (*moved, *decisions), judged=len(measured), n_current=len(current))
    if price:
        verdict = replace(verdict, findings=price(verdict.findings))
    if report is not None:
        evidence = evidently_page(reference, current, measured, rng=sampling) if measured else ""
        write_whole(report, lambda beside: beside.write_text(page(verdict, evidence, words), encoding="utf-8"))
    return verdict


def measure(
    reference: Reference, current: pd.DataFrame, columns: Sequence[str], *, members: int, rng: np.random.Generator
) -> list[Measured]:
    """Measure how far columns moved, and how far they may move by chance, numbers first."""
    bins = reference.bins(columns)
    snapshots = len(np.unique(codes_of(current, "as_of")))
    limits = limits_of(reference, bins, members=members, snapshots=snapshots, rng=rng)
    found = distributions(current, [column.name for column in bins], reference.kinds)
    statistics = side_by_side(lambda column: column.measure(found[column.name]), bins)  # type: ignore[arg-type]
    return [
        Measured(column, found[column.name], apart, far)
        for column, apart, far in zip(bins, statistics, limits, strict=True)
    ]


def limits_of(
    reference: Reference, bins: Sequence[Bins], *, members: int, snapshots: int, rng: np.random.Generator
) -> list[Floats]:
    """Find how far a clean window of this size may lie from the reference, `(n_tests,)` for each column."""
    design = Design(reference.member, reference.snapshot, current_members=members, current_snapshots=snapshots)
    codes = [reference.codes[column.name] for column in bins]
    return thresholds(bins, codes, design, rate=FALSE_ALARM_RATE, rng=rng)


def _too_few(reference: int, current: int) -> Finding | None:
    """Say which window holds too few members to judge by, if one does."""
    for window, members, wanted in (
        (WINDOWS["reference"], reference, MINIMUM_REFERENCE),
        (WINDOWS["current"], current, MINIMUM_CURRENT),
    ):
        if members < wanted:
            words = "the {window} window holds {members} members; at least {wanted} are needed to judge by"
            told = saying(words, window=window, members=str(members), wanted=str(wanted))
            return Finding("", "too_few", told, statistic=float(members), threshold=float(wanted))
    return None


def _conclude(
    reference: Reference, gate: Gate, thin: Finding | None, moved: Sequence[Finding], *, judged: int, n_current: int
) -> Verdict:
    broken = (*reference.faults, *gate.broken)
    status: Status = "no_drift"
    if broken:
        status = "broken_data"
    elif moved:
        status = "drift"
    elif thin or not judged:
        status = "insufficient_data"
    return Verdict(
        status=status,
        findings=(*broken, *((thin,) if thin else ()), *moved),
        not_judged=gate.not_judged,
        judged=judged,
        false_alarm_rate=FALSE_ALARM_RATE,
        n_reference=reference.rows,
        n_current=n_current,
    )


def _judge(column: Measured, reference: Reference, programme: Programme) -> list[Finding]:
    name = column.bins.name
    show = programme.money if name in reference.money else lambda value: f"{value:,.4g}"
    told = zip(column.bins.tests, column.statistics.tolist(), column.limits.tolist(), strict=True)
    before = reference.distributions[name]
    return [
        Finding(name, test, in_words(column.bins, test, before, column.current, show), statistic, limit)
        for test, statistic, limit in told
        if statistic > limit
    ]


def evidently_page(
    reference: Reference, current: pd.DataFrame, measured: Sequence[Measured], *, rng: np.random.Generator
) -> str:
    """Draw Evidently's report of a sample of both windows, with our thresholds; the page loads nothing else."""
    bins = [column.bins for column in measured]
    limits = {column.bins.name: column.by_test for column in measured}
    windows = on_scale(reference.shown, bins), on_scale(sample(current, rng), bins)
    return str(evidently_snapshot(*windows, limits).get_html_str(as_iframe=False))


def evidently_snapshot(
    reference: pd.DataFrame, current: pd.DataFrame, limits: Mapping[str, Mapping[str, float]]
) -> Any:  # noqa: ANN401 (Evidently ships no types that hold)
    """Run Evidently with method and threshold pinned per column: normed Wasserstein for numbers, PSI for text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what Evidently imports, by what Evidently imports
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import ValueDrift
    columns = [c for c in limits if not (reference[c].isna().all() or current[c].isna().all())]
    methods = {c: "wasserstein" if "wasserstein" in limits[c] else "psi" for c in columns}
    definition = DataDefinition(
        numerical_columns=[c for c in columns if methods[c] == "wasserstein"],
        categorical_columns=[c for c in columns if methods[c] == "psi"],
    )
    metrics = [ValueDrift(column=c, method=methods[c], threshold=limits[c][methods[c]]) for c in columns]
    windows = (Dataset.from_pandas(frame[columns], data_definition=definition) for frame in (current, reference))
    return Report(metrics).run(*windows)


def sample(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Draw rows of a window for Evidently."""
    return frame.iloc[np.sort(rng.choice(len(frame), size=min(len(frame), SHOWN_ROWS), replace=False))]


def on_scale(rows: pd.DataFrame, columns: Sequence[Bins]) -> pd.DataFrame:
    """Bring each column to the scale it is measured on."""
    return pd.DataFrame(
        {
            column.name: column.scaled(floats(rows[column.name]))
            if isinstance(column, NumberBins)
            else rows[column.name].astype(object).to_numpy()
            for column in columns
        }
    )
