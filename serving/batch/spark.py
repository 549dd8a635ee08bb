"""A batch on Spark: its workers weigh, sum and decide the parts, and this process finds the prices and keeps the log.

A part is what it is on one machine, the same members with the same draws, so that the same is decided, to the byte. No
member comes through here but those of samples, and the contacts that the log has to know, a part at a time.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import accumulate, pairwise, repeat
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.decisions import Batch, Contact, Part, Seen
from features.files import part_of, remove, sweep
from features.log.rows import microseconds
from features.schema import CONTROL
from features.sheet import Progress
from features.spark import map_parts
from serving.batch.errand import Errand, lay_out
from serving.batch.local import Run
from serving.batch.plan import Plan
from serving.batch.prices import Claims, together
from serving.batch.turns import Turns
from serving.batch.weighed import Weighed
from serving.batch.work import answer, ask, purse_json
from serving.decide import Purse
from training.shadow_prices import Audience, sampled_places

WAVE: Final = 256  # parts that are decided before the log hears of them: 30 million members
Floats = NDArray[np.float64]
Places = NDArray[np.intp]
Answers = list[dict[str, NDArray[Any]]]


@contextmanager
def on_spark(plan: Plan, master: str, now: datetime, progress: Progress) -> Iterator["SparkRun"]:
    """Lay a batch out for Spark's workers, in a folder that goes when it is done."""
    sweep(plan.home.root)  # of a run that was killed
    folder = part_of(plan.home.root / plan.batch_id)
    folder.mkdir()
    try:
        yield SparkRun(lay_out(folder, plan, now), master, progress)
    finally:
        remove(folder)


class SparkRun(Run):
    """Let Spark weigh and decide the parts of a plan."""

    def __init__(self, errand: Errand, master: str, progress: Progress) -> None:
        super().__init__(errand.plan, errand.now, progress)
        self._errand, self._master = errand, master

    def claims(self, left: Purse) -> "SparkClaims":
        """Weigh every part, and let each stay where it is."""
        self.send("weigh", self.plan.parts, "weighing offers", purse=purse_json(left))
        return SparkClaims(self)

    def settle(self, parts: Sequence[int], turns: Turns, batch: Batch) -> None:
        """Decide parts as one machine would in their order, and let the log name each.

        Where others were faster, so that a part no longer stands, it is decided here, as on one machine, and fewer are
        decided at once after it.
        """
        rest, size = tuple(parts), WAVE
        while rest:
            named = self._settle_wave(rest[:size], turns, batch)
            if not named:
                super().settle(rest[:1], turns, batch)
            done = max(named, 1)
            rest, size = rest[done:], min(WAVE, 2 * done)

    def send(self, work: str, parts: Sequence[int], step: str, **asked: Any) -> Answers:  # noqa: ANN401 (JSON values)
        """Ask the same of parts."""
        return self.send_each(work, dict.fromkeys(parts, asked), step)

    def send_each(self, work: str, asked: Mapping[int, Mapping[str, Any]], step: str) -> Answers:
        """Ask something of each part."""
        self.progress(step, 0, len(asked))
        messages = [ask(work, self._errand.folder, part, **values) for part, values in asked.items()]
        answers = map_parts(self._master, answer, messages)
        self.progress(step, len(asked), len(asked))
        return answers

    def _settle_wave(self, wave: Sequence[int], turns: Turns, batch: Batch) -> int:
        """Decide parts at once, each on what those before will have left, and say how many of them the log has named.

        What each part will use is foreseen with what there is at first. Where something runs out within a part it uses
        less than that, and what comes after it is decided anew.
        """
        said = vars(batch) | {"decided_at": batch.decided_at.isoformat()}
        left = turns.left()
        uses = [np.zeros(1 + len(left.stock))] * len(wave)
        if not left.full:
            seen = self.send("foresee", wave, "looking ahead", purse=purse_json(left), batch=said)
            uses = [one["use"] for one in seen]
        purses = [_after(left, used) for used in accumulate(uses, initial=np.zeros_like(uses[0]))]
        asked = {part: {"purse": purse_json(purse), "batch": said} for part, purse in zip(wave, purses, strict=False)}
        for named, (use, one) in enumerate(zip(uses, self.send_each("decide", asked, "deciding"), strict=True)):
            told = json.loads(str(one["told"]))
            if not self._name(Part(**told["part"]), told, turns, batch):
                return named
            if not left.full and not np.array_equal(one["use"], use):
                return named + 1
        return len(wave)

    def _name(self, part: Part, told: dict[str, Any], turns: Turns, batch: Batch) -> bool:
        """Reserve what a part gets and let the log name it, if it stands."""
        file = self.plan.home.root / part.path
        ranges = told["seen"] and {name: _ranges(said) for name, said in told["seen"].items()}
        ids = pq.read_table(file, columns=["member_id"])["member_id"].to_pylist() if turns.capped else ()
        seen = Seen(member_ids=ids, **ranges or {}) if ranges or turns.capped else None
        spending = {(batch.campaign_id or "", offer_id): (n, money) for offer_id, n, money in told["spending"]}
        if not turns.accept(part.part, _contacts(file, batch), spending, seen):
            return False
        turns.name(part, 1)
        return True

    def _weighed(self, parts: Sequence[int], step: str) -> Iterator[Weighed]:
        for done, part in enumerate(parts):
            self.progress(step, done, len(parts))
            yield self._errand.weighed(part)


@dataclass(frozen=True)
class SparkClaims:
    """Ask the claims of an audience where they are."""

    run: SparkRun

    def __len__(self) -> int:
        return sum(self.run.plan.counts)

    def every(self, step: int) -> Claims:
        """Give one member of every so many."""
        plan = self.run.plan
        places = _local(np.arange(0, len(self), step), [plan.counts[part] for part in plan.parts])
        asked = {part: {"places": some.tolist()} for part, some in zip(plan.parts, places, strict=True)}
        return together([Claims(**columns) for columns in self.run.send_each("take", asked, "taking a sample")])

    def demand(self, stock: Floats | None) -> "SparkDemand":
        """Say what members would want for its worth, of what is not gone."""
        plan = self.run.plan
        parts = {part: plan.counts[part] for part in plan.parts}
        return SparkDemand(self.run, parts, None if stock is None else tuple(stock.tolist()))


@dataclass(frozen=True)
class SparkDemand:
    """Ask what members want where they are: all, or those whose wish differs within each of some boxes of prices."""

    run: SparkRun
    counts: Mapping[int, int]  # of members by part
    stock: tuple[float, ...] | None
    boxes: tuple[tuple[list[float], list[float]], ...] = ()

    def __len__(self) -> int:
        return sum(self.counts.values())

    def sample(self) -> Audience:
        """Give evenly spaced members, all of them where they are few."""
        places = _local(sampled_places(len(self)), [*self.counts.values()])
        return self._want({part: some.tolist() for part, some in zip(self.counts, places, strict=True)})

    def near(self, low: Floats, high: Floats) -> "tuple[Floats, SparkDemand]":
        """Give what is used by those whose wish is the same at all prices from low to high, and all others."""
        boxes = (*self.boxes, (low.tolist(), high.tolist()))
        answers = self.run.send("near", [*self.counts], "finding the prices", stock=self.stock, boxes=boxes)
        counts = {part: int(one["others"]) for part, one in zip(self.counts, answers, strict=True)}
        left = {part: members for part, members in counts.items() if members} or dict([*counts.items()][:1])
        return np.asarray(sum(one["used"] for one in answers)), replace(self, counts=left, boxes=boxes)

    def here(self) -> Audience:
        """Bring everybody into one place."""
        return self._want(dict.fromkeys(self.counts))

    def _want(self, places: Mapping[int, list[int] | None]) -> Audience:
        asked = {part: {"stock": self.stock, "boxes": self.boxes, "places": some} for part, some in places.items()}
        found = self.run.send_each("want", asked, "finding the prices")
        return Audience(**{name: np.concatenate([one[name] for one in found]) for name in found[0]})


def _local(places: Places, counts: Sequence[int]) -> list[Places]:
    """Turn places among all into places within each part.

    >>> [some.tolist() for some in _local(np.array([0, 3, 4]), [2, 2, 2])]
    [[0], [1], [0]]
    """
    starts = [0, *accumulate(counts)]
    cuts = np.searchsorted(places, starts)
    return [places[a:b] - start for (a, b), start in zip(pairwise(cuts), starts, strict=False)]


def _after(left: Purse, used: Floats) -> Purse:
    return replace(left, budget=left.budget - float(used[0]), stock=left.stock - used[1:])


def _ranges(said: Mapping[str, Sequence[int | None]]) -> dict[str, tuple[int | None, int | None]]:
    return {name: (least, most) for name, (least, most) in said.items()}


def _contacts(file: Path, batch: Batch) -> list[Contact]:
    """Read the contacts that a part makes."""
    sent = pc.field("treatment") != CONTROL
    rows = pq.read_table(file, columns=["member_id", "decision_id", "treatment"], filters=sent)
    members, ids, offers = (column.to_pylist() for column in rows.columns)
    return [*map(Contact._make, zip(members, repeat(microseconds(batch.decided_at)), ids, offers, strict=False))]
