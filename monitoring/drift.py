"""Is the current window still like the reference? The only door to Evidently.

The verdict rests on exact statistics over all rows and on calibrated thresholds; Evidently draws a sample's report.
"""

import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.files import write_whole
from features.programme import Programme
from monitoring.distances import Binned, bin_numbers, bin_texts, signed_log
from monitoring.report import page
from monitoring.thresholds import Design, thresholds
from monitoring.verdict import Finding, Status, Verdict
from monitoring.windows import Windows, codes_of, numbers_of, open_windows, too_few
from monitoring.wording import Words, in_words

FALSE_ALARM_RATE: Final = 0.01  # of a whole run
REPORT_ROWS: Final = 5_000  # of each window, drawn at random


def monitor_drift(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    *,
    money: Collection[str],
    rng: np.random.Generator,
    report: Path | None,
    ageing: Collection[str] = (),
    programme: Programme | None = None,
) -> Verdict:
    """Compare the current window with the reference, and write an HTML report if asked to.

    Both windows hold `member_id`, `as_of` and the same features, one row per member and snapshot. Columns in `money`
    are in minor units and compared on a logarithmic scale; columns in `ageing` grow with time and are not judged.
    """
    windows = open_windows(reference, current, ageing=ageing)
    thin = None if windows.broken and not windows.columns else too_few(windows)
    calibration, sampling = rng.spawn(2)
    columns: list[Binned] = []
    limits: dict[str, dict[str, float]] = {}
    moved: list[Finding] = []
    if windows.columns and not thin:
        columns = _bin(windows, money)
        found = thresholds(columns, _design(windows), rate=FALSE_ALARM_RATE, rng=calibration)
        limits = {c.name: dict(zip(c.tests, t.tolist(), strict=True)) for c, t in zip(columns, found, strict=True)}
        words = Words(frozenset(money), programme or Programme.model_validate({}))
        moved = [finding for column in columns for finding in _judge(column, limits[column.name], windows, words)]
    verdict = _conclude(windows, thin, moved, judged=len(limits))
    if report is not None:
        evidence = evidently_page(windows, columns, limits, rng=sampling) if limits else ""
        write_whole(report, lambda beside: beside.write_text(page(verdict, evidence), encoding="utf-8"))
    return verdict


def _conclude(windows: Windows, thin: Finding | None, moved: list[Finding], *, judged: int) -> Verdict:
    status: Status = "no_drift"
    if windows.broken:
        status = "broken_data"
    elif thin or not judged:
        status = "insufficient_data"
    elif moved:
        status = "drift"
    return Verdict(
        status=status,
        findings=(*windows.broken, *((thin,) if thin else ()), *moved),
        not_judged=windows.not_judged,
        judged=judged,
        false_alarm_rate=FALSE_ALARM_RATE,
        n_reference=len(windows.reference),
        n_current=len(windows.current),
    )


def _bin(windows: Windows, money: Collection[str]) -> list[Binned]:
    numbers = [
        bin_numbers(c, numbers_of(windows.reference[c]), numbers_of(windows.current[c]), money=c in money)
        for c in windows.numbers
    ]
    return numbers + [bin_texts(c, windows.reference[c], windows.current[c]) for c in windows.texts]


def _design(windows: Windows) -> Design:
    return Design(
        member=codes_of(windows.reference, "member_id"),
        snapshot=codes_of(windows.reference, "as_of"),
        current_members=len(np.unique(codes_of(windows.current, "member_id"))),
        current_snapshots=len(np.unique(codes_of(windows.current, "as_of"))),
    )


def _judge(column: Binned, limits: Mapping[str, float], windows: Windows, words: Words) -> list[Finding]:
    before, after = windows.reference[column.name], windows.current[column.name]
    return [
        Finding(column.name, test, in_words(column, test, before, after, words), statistic, limits[test])
        for test, statistic in zip(column.tests, column.measure().tolist(), strict=True)
        if statistic > limits[test]
    ]


def evidently_page(
    windows: Windows, columns: Sequence[Binned], limits: Mapping[str, Mapping[str, float]], *, rng: np.random.Generator
) -> str:
    """Draw Evidently's report of a sample of both windows, with our thresholds; the page loads nothing else."""
    reference, current = (sample(frame, columns, rng) for frame in (windows.reference, windows.current))
    return str(evidently_snapshot(reference, current, limits).get_html_str(as_iframe=False))


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


def sample(frame: pd.DataFrame, columns: Sequence[Binned], rng: np.random.Generator) -> pd.DataFrame:
    """Draw rows of one window for Evidently, each column on the scale it is measured on."""
    rows = np.sort(rng.choice(len(frame), size=min(len(frame), REPORT_ROWS), replace=False))
    drawn = frame.iloc[rows]
    return pd.DataFrame({column.name: _values(drawn[column.name], column) for column in columns})


def _values(values: pd.Series, column: Binned) -> NDArray[Any]:
    if "wasserstein" not in column.tests:
        return values.astype(object).to_numpy()
    numbers = numbers_of(values)
    return numbers if column.unit is None else signed_log(numbers, unit=column.unit)
