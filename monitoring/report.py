"""A verdict for people: a table for the terminal, and the head of the HTML page."""

from html import escape
from typing import Final

from rich.table import Table

from features.programme import Programme
from monitoring.verdict import Finding, Verdict

COLOURS: Final = {"no_drift": "green", "drift": "red", "broken_data": "red", "insufficient_data": "yellow"}
UNITS: Final = {"wasserstein": " sd", "psi": " PSI", "frequencies": " se"}
SHARES: Final = frozenset({"missing", "new_category", "mix", "fallbacks", "calibration"})


HEADER: Final = ("what was found", "measured", "by chance up to", "decisions that change", "a week at risk", "do")


def verdict_table(verdict: Verdict, programme: Programme) -> Table:
    """Lay the verdict out as one table: a line per finding, what was not judged below."""
    title = f"[{COLOURS[verdict.status]}]{verdict.sentence}[/]"
    table = Table(title=title, title_justify="left", caption_justify="left", expand=True)
    if not verdict.findings:
        table.show_header, table.box = False, None
    for number, name in enumerate(HEADER):
        table.add_column(name, justify="left" if number in {0, 5} else "right", overflow="fold")
    for finding in verdict.findings:
        table.add_row(*map(_plain, _cells(finding, programme)))
    table.caption = _plain(_notes(verdict))
    return table


def page(verdict: Verdict, evidence: str, programme: Programme) -> str:
    """Put the verdict in words at the head of an HTML page of evidence (empty: a page of the verdict alone)."""
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in _cells(finding, programme))}</tr>"
        for finding in verdict.findings
    )
    header = "".join(f"<th align=left>{name}" for name in HEADER)
    table = f"<table cellpadding=6><tr>{header}</tr>{rows}</table>" if rows else ""
    head = (
        f'<section style="font:16px/1.5 sans-serif;margin:2em;max-width:70em"><h1>{escape(verdict.sentence)}</h1>'
        f"{table}<p>{escape(_notes(verdict))}</p></section>"
    )
    if not evidence:
        return f"<!doctype html><html lang=en><meta charset=utf-8><title>Drift</title><body>{head}</body></html>"
    start = evidence.index(">", evidence.index("<body")) + 1
    return evidence[:start] + head + evidence[start:]


def _cells(finding: Finding, programme: Programme) -> tuple[str, ...]:
    """Write a finding as the cells of `HEADER`."""
    changed = "" if finding.decisions is None else f"{finding.decisions:,} of {finding.decided:,}"
    risk = "" if finding.margin_a_week is None else programme.money(finding.margin_a_week)
    figures = (_figure(finding, finding.statistic), _figure(finding, finding.threshold))
    return (finding.sentence, *figures, changed, risk, f"runbook: {finding.runbook}")


def _notes(verdict: Verdict) -> str:
    notes = [f"{verdict.n_current:,} current rows against {verdict.n_reference:,} of the reference."]
    if verdict.judged:
        notes.append(
            "Thresholds come from resampling the reference by member and by weeks; they aim at "
            f"{verdict.false_alarm_rate:.0%} false alarms of whole runs while weeks differ as the reference's do. "
            "A season it has not seen is drift."
        )
    if any(finding.decisions is not None for finding in verdict.findings):
        notes.append(
            "At risk is what is lost if the move is a fault of the data: decisions as they are, against those with the "
            "column put back."
        )
    for reason in dict.fromkeys(reason for _, reason in verdict.not_judged):
        names = ", ".join(column for column, other in verdict.not_judged if other == reason)
        notes.append(f"Not judged: {names} ({reason}).")
    return " ".join(notes)


def _figure(finding: Finding, value: float | None) -> str:
    if value is None:
        return ""
    if finding.kind in SHARES:
        return f"{100 * value:.1f} %"
    if finding.kind in {"too_few", "skew"}:
        return f"{value:.0f} {'members' if finding.kind == 'too_few' else 'values'}"
    return (
        f"{value:.3g}"
        if finding.kind in {"floor", "promise", "arms", "ranking"}
        else f"{value:.2f}{UNITS[finding.kind]}"
    )


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
