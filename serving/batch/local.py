"""A batch on this machine: its parts are weighed some ahead of the one that is decided, and stored behind it."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from functools import cached_property, partial
from typing import Final, TypeVar

from features.decisions import Batch, Part
from features.files import sha256, write_whole
from features.log.standing import Audience as Contacts
from features.sheet import Progress
from serving.batch.part import Decided, part_table, write_part
from serving.batch.plan import Plan
from serving.batch.prices import EveryClaim, together
from serving.batch.turns import Turns
from serving.batch.weighed import Weighed, weigh
from serving.decide import Purse, Worth

AHEAD: Final = 2  # parts that are worked on beside the one that is decided
S = TypeVar("S")
T = TypeVar("T")


class Run:
    """Weigh and decide the parts of a plan at one moment."""

    def __init__(self, plan: Plan, now: datetime, progress: Progress) -> None:
        self.plan, self.now, self.progress = plan, now, progress
        self._worth: dict[int, Worth] = {}  # of parts that were weighed to find the prices

    @cached_property
    def _contacts(self) -> Contacts:
        """Give the audience's contacts, read once."""
        return self.plan.contacts(self.now)

    def claims(self, left: Purse) -> EveryClaim:
        """Weigh every part, for what its members would be worth and cost; the worth is kept for deciding."""
        found = []
        for weighed in self._weighed(self.plan.parts, "weighing offers"):
            found.append(weighed.claims(self.plan, self.now, left))
            self._worth[weighed.number] = weighed.worth
        return together(found)

    def settle(self, parts: Sequence[int], turns: Turns, batch: Batch) -> None:
        """Decide parts in order, each under what those before left, and let the log name each."""
        with ThreadPoolExecutor(1) as writer:  # one: parts are named in the log in their order
            store = partial(self._store, turns, batch)
            deque(_ahead(writer, store, self._decided(parts, turns, batch.batch_id)), maxlen=0)

    def _decided(self, parts: Sequence[int], turns: Turns, batch_id: str) -> Iterator[tuple[int, Decided, int]]:
        """Decide parts in order; say in how many reservations the log has each."""
        for weighed in self._weighed(parts, "deciding"):
            self._worth.pop(weighed.number, None)
            yield weighed.number, *turns.decide(weighed, weighed.uniform(batch_id))

    def _weighed(self, parts: Sequence[int], step: str) -> Iterator[Weighed]:
        weighs = partial(self._weigh, self._contacts)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for done, weighed in enumerate(_ahead(pool, weighs, parts)):
                self.progress(step, done, len(parts))
                yield weighed
        self.progress(step, len(parts), len(parts))

    def _weigh(self, contacts: Contacts, part: int) -> Weighed:
        return weigh(self.plan, part, contacts, now=self.now, worth=self._worth.get(part))

    def _store(self, turns: Turns, batch: Batch, numbered: tuple[int, Decided, int]) -> None:
        """Write a part's decisions, then let the log name it."""
        number, decided, reservations = numbered
        turns.name(write_decided(self.plan, batch, number, decided), reservations)


def write_decided(plan: Plan, batch: Batch, number: int, decided: Decided) -> Part:
    """Write the decisions of a part into a file, whole or not at all."""
    table = part_table(decided, plan.decider, batch, plan.population.as_of.isoformat())
    path = plan.home.batches / batch.batch_id / f"part-{number:05d}.parquet"
    write_whole(path, partial(write_part, table=table))
    return Part(batch.batch_id, number, str(path.relative_to(plan.home.root)), sha256(path), len(table))


def _ahead(pool: ThreadPoolExecutor, work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Work on a few items ahead, and give what came of each in their order."""
    running: deque[Future[T]] = deque()
    try:
        for item in items:
            running.append(pool.submit(work, item))
            if len(running) > AHEAD:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()
