"""What monitoring concludes: one verdict, its findings in words, and the exit code that scripts read."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from features.saying import Saying, saying

Status = Literal["no_drift", "drift", "insufficient_data", "broken_data"]
FindingKind = Literal[
    "empty", "twice", "lost_column", "new_column", "all_missing", "retyped", "infinite",  # the data is broken
    "too_few",
    "wasserstein", "psi", "missing", "new_category",  # the data moved
    "frequencies", "floor", "mix", "fallbacks", "skew",  # decisions are not what they should be
    "calibration", "ranking", "promise", "arms",  # what was said did not come
    "trigger", "cure",  # the programme is not where it should be; a training was started
]  # fmt: skip
Test = Literal["wasserstein", "psi", "missing", "new_category"]

RUNBOOK: dict[FindingKind, str] = {  # the page in docs/runbook
    "empty": "no-rows",
    "twice": "columns",
    "lost_column": "columns",
    "new_column": "columns",
    "retyped": "columns",
    "infinite": "columns",
    "all_missing": "missing-values",
    "missing": "missing-values",
    "new_category": "new-words",
    "wasserstein": "moved-values",
    "psi": "moved-values",
    "too_few": "too-few-members",
    "frequencies": "propensities",
    "floor": "propensities",
    "mix": "offer-mix",
    "fallbacks": "fallbacks",
    "skew": "skew",
    "calibration": "calibration",
    "ranking": "ranking",
    "promise": "promised-and-found",
    "arms": "sample-ratio",
    "trigger": "triggers",
    "cure": "cure",
}

EXIT_CODES: dict[Status, int] = {"no_drift": 0, "drift": 1, "broken_data": 1, "insufficient_data": 3}


@dataclass(frozen=True)
class Finding:
    """Say one thing that is wrong or has moved.

    `statistic` and `threshold` are: `wasserstein` in the reference's standard deviations; `psi` without unit; `missing`
    as a difference and `new_category` as a share of rows; `too_few` in members; `frequencies` in standard errors; `mix`
    and `fallbacks` as differences of shares; `floor` as a probability; `skew` in values; `calibration` as a difference
    of rates; `ranking` as an AUC; `promise` in minor units a decision; `arms` as a p-value; `trigger` in the metric's
    own unit; none for what needs no measuring.
    """

    column: str  # empty where it is about the whole window
    kind: FindingKind
    said: Saying
    statistic: float | None = None
    threshold: float | None = None
    decisions: int | None = None  # members whose treatment would be another if the column were put back
    decided: int | None = None  # of so many
    margin_a_week: int | None = None  # minor units, lost where the move is a fault of the data

    @property
    def sentence(self) -> str:
        """The finding in one sentence."""
        return str(self.said)

    @property
    def runbook(self) -> str:
        """The page of docs/runbook that applies."""
        return RUNBOOK[self.kind]

    def to_json(self) -> dict[str, Any]:
        """Give the finding as JSON values."""
        return asdict(self) | {"sentence": self.sentence, "runbook": self.runbook}


class Concluded(Protocol):
    """What any check comes to, as far as people on call hear of it."""

    @property
    def status(self) -> Status:
        """The conclusion."""
        ...

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What it rests on."""
        ...


@dataclass(frozen=True)
class Verdict:
    """Conclude from one comparison of the current window with the reference."""

    status: Status
    findings: tuple[Finding, ...]
    not_judged: tuple[tuple[str, str], ...]  # (column, reason)
    judged: int  # columns
    false_alarm_rate: float  # of the whole run, over windows that differ from the reference by chance alone
    n_reference: int  # rows
    n_current: int  # rows

    @property
    def exit_code(self) -> int:
        """0 for no drift, 1 for drift or broken data, 3 for too little data; 2 stays with wrong usage."""
        return EXIT_CODES[self.status]

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        return str(self.said)

    @property
    def said(self) -> Saying:
        """The verdict in one sentence of any language."""
        judged, failed = str(self.judged), str(len(self.findings) - self._moves)
        moved = str(len({finding.column for finding in self.findings if finding.threshold is not None}))
        if self.status == "no_drift":
            return saying("No drift: none of {judged} columns moved by more than chance allows.", judged=judged)
        if self.status == "drift":
            return saying(
                "Drift: {moved} of {judged} columns moved by more than chance allows.", moved=moved, judged=judged
            )
        if self.status == "insufficient_data":
            return saying("No verdict: too few members.")
        if not self.judged:
            return saying("Broken data: {failed} of the checks before measuring failed.", failed=failed)
        return saying(
            "Broken data: {failed} of the checks before measuring failed; of {judged} columns that passed, {moved} "
            "moved.",
            failed=failed,
            judged=judged,
            moved=moved,
        )

    @property
    def _moves(self) -> int:
        return sum(finding.threshold is not None for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Give the verdict as JSON values."""
        described = asdict(self) | {"exit_code": self.exit_code, "sentence": self.sentence, "said": asdict(self.said)}
        described["findings"] = [finding.to_json() for finding in self.findings]
        described["not_judged"] = dict(self.not_judged)
        return described
