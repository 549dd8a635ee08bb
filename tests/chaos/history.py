"""What clients asked and were answered, by their own record, against what the log holds.

A client writes a line before a call and one after it, so that whatever dies, what it was promised is known.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

CONTROL: Final = "control"
VIOLATIONS: Final = (
    "lost",  # acknowledged, and not in the log as it was answered
    "two decisions under one key",
    "half a request",  # in the log, and not for every member that was asked about
    "refused, and stored",
    "unequal replay",
    "budget below zero",
    "stock below zero",
    "cap broken",
    "mixed releases",
)

Row = Mapping[str, Any]


@dataclass
class Call:
    """Hold one call as its client saw it; `status` None: nobody knows what became of it."""

    key: str
    members: tuple[str, ...]
    status: int | None = None
    answer: str = ""
    replayed: bool = False


@dataclass(frozen=True)
class Limits:
    """Hold what may not be exceeded."""

    budgets: Mapping[str, int] = field(default_factory=dict)  # by campaign
    stock: Mapping[str, int] = field(default_factory=dict)  # by offer
    days_between: int = 0
    per_period: int | None = None
    period_days: int = 1


class Diary:
    """Append to a client's own file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")
        self._number = 0

    def asks(self, key: str, members: Sequence[str]) -> int:
        """Note a call that is about to be made, and give its number."""
        self._number += 1
        self._write({"call": self._number, "key": key, "members": list(members)})
        return self._number

    def hears(self, number: int, status: int, answer: str, *, replayed: bool) -> None:
        """Note what came back; without it, nobody knows what became of the call."""
        self._write({"call": number, "status": status, "answer": answer, "replayed": replayed})

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_diaries(folder: Path) -> list[Call]:
    """Read the calls of all clients."""
    calls: dict[tuple[str, int], Call] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in map(json.loads, path.read_text().splitlines()):
            name = (path.name, line.pop("call"))
            if "key" in line:
                calls[name] = Call(line["key"], tuple(line["members"]))
            else:
                vars(calls[name]).update(line)
    return list(calls.values())


def violations(calls: Sequence[Call], rows: Sequence[Row], limits: Limits) -> Counter[str]:
    """Count what may not be, by kind; an empty count is a clean history."""
    by_key: dict[str, list[Call]] = defaultdict(list)
    logged: dict[str, list[Row]] = defaultdict(list)
    for call in calls:
        by_key[call.key].append(call)
    for row in rows:
        if row["idempotency_key"] is not None:
            logged[row["idempotency_key"]].append(row)
    found = Counter(_of_answers(calls, {row["decision_id"]: row for row in rows}))
    for key, same in by_key.items():
        found.update(_of_key(same, logged[key]))
    found.update(_of_limits(rows, limits))
    return found


def _of_answers(calls: Sequence[Call], logged: Mapping[str, Row]) -> Iterator[str]:
    for call in calls:
        if call.status != 200:
            continue
        decisions = json.loads(call.answer)["decisions"]
        if tuple(one["member_id"] for one in decisions) != call.members:
            yield "half a request"
        if len({one["release_id"] for one in decisions}) > 1:
            yield "mixed releases"
        for one in decisions:
            row = logged.get(one["decision_id"])
            names = ("member_id", "treatment", "propensity", "release_id")
            if row is None or any(row[name] != one[name] for name in names):
                yield "lost"


def _of_key(calls: Sequence[Call], rows: Sequence[Row]) -> Iterator[str]:
    """Look at one key: who answers a repetition answers the same, and there is one decision or none."""
    answers = {call.answer for call in calls if call.status == 200}
    if len(answers) > 1:
        yield "unequal replay"
    asked, stored = Counter(calls[0].members), Counter(row["member_id"] for row in rows)
    if any(stored[member] > times for member, times in asked.items()):
        yield "two decisions under one key"
    if stored and any(stored[member] < times for member, times in asked.items()):
        yield "half a request"
    if len({row["release_id"] for row in rows}) > 1:
        yield "mixed releases"
    if stored and all(call.status is not None and call.status >= 400 for call in calls):
        yield "refused, and stored"


def _of_limits(rows: Sequence[Row], limits: Limits) -> Iterator[str]:
    spent, sold = Counter[str](), Counter[str]()
    contacts: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        if row["treatment"] != CONTROL:
            sold[row["treatment"]] += 1
            spent[row["campaign_id"] or ""] += row["cost"][row["treatments"].index(row["treatment"]) - 1]
            contacts[row["member_id"]].append(row["decided_at"])
    yield from ("budget below zero" for name, budget in limits.budgets.items() if spent[name] > budget)
    yield from ("stock below zero" for name, stock in limits.stock.items() if sold[name] > stock)
    rest, period = timedelta(days=limits.days_between), timedelta(days=limits.period_days)
    for times in map(sorted, contacts.values()):
        if any(after - before < rest for before, after in pairwise(times)):
            yield "cap broken"
        few = limits.per_period
        if few is not None and any(after - before < period for before, after in zip(times, times[few:], strict=False)):
            yield "cap broken"
