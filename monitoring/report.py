"""A verdict for people: a table for the terminal, and the head of the HTML page."""

from html import escape
from typing import Final

from rich.table import Table

from monitoring.verdict import Finding, Verdict

COLOURS: Final = {"no_drift": "green", "drift": "red", "broken_data": "red", "insufficient_data": "yellow"}
UNITS: Final = {"wasserstein": " sd", "psi": " PSI", "missing": "", "new_category": "", "too_few": " members"}


def verdict_table(verdict: Verdict) -> Table:
    """Lay the verdict out as one table: a line per finding, what was not judged below."""
    title = f"[{COLOURS[verdict.status]}]{verdict.sentence}[/]"
    table = Table(title=title, title_justify="left", caption_justify="left", expand=True)
    if not verdict.findings:
        table.show_header, table.box = False, None
    table.add_column("what was found", overflow="fold")
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("by chance up to", justify="right", no_wrap=True)
    for finding in verdict.findings:
        table.add_row(
            _plain(finding.sentence), _figure(finding, finding.statistic), _figure(finding, finding.threshold)
        )
    table.caption = _plain(_notes(verdict))
    return table


def page(verdict: Verdict, evidence: str) -> str:
    """Put the verdict in words at the head of an HTML page of evidence (empty: a page of the verdict alone)."""
    rows = "".join(
        f"<tr><td>{escape(finding.sentence)}</td><td>{_figure(finding, finding.statistic)}</td>"
        f"<td>{_figure(finding, finding.threshold)}</td></tr>"
        for finding in verdict.findings
    )
    table = (
        f"<table cellpadding=6><tr><th align=left>found<th>measured<th>by chance up to</tr>{rows}</table>"
        if rows
        else ""
    )
    head = (
        f'<section style="font:16px/1.5 sans-serif;margin:2em;max-width:70em"><h1>{escape(verdict.sentence)}</h1>'
        f"{table}<p>{escape(_notes(verdict))}</p></section>"
    )
    if not evidence:
        return f"<!doctype html><html lang=en><meta charset=utf-8><title>Drift</title><body>{head}</body></html>"
    start = evidence.index(">", evidence.index("<body")) + 1
    return evidence[:start] + head + evidence[start:]


def _notes(verdict: Verdict) -> str:
    notes = [f"{verdict.n_current:,} current rows against {verdict.n_reference:,} of the reference."]
    if verdict.judged:
        notes.append(
            "Thresholds come from resampling the reference by member and by weeks; they aim at "
            f"{verdict.false_alarm_rate:.0%} false alarms of whole runs while weeks differ as the reference's do. "
            "A season it has not seen is drift."
        )
    for reason in dict.fromkeys(reason for _, reason in verdict.not_judged):
        names = ", ".join(column for column, other in verdict.not_judged if other == reason)
        notes.append(f"Not judged: {names} ({reason}).")
    return " ".join(notes)


def _figure(finding: Finding, value: float | None) -> str:
    if value is None:
        return ""
    if finding.kind in ("missing", "new_category"):
        return f"{100 * value:.1f} %"
    return f"{value:.0f} members" if finding.kind == "too_few" else f"{value:.2f}{UNITS[finding.kind]}"


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
