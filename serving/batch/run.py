"""Decide an audience part by part, durably: what was decided stays decided, whenever a run is killed."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import cached_property, partial
from typing import Final, TypeVar

import numpy as np

from features.decisions import Batch, Log, Part, find_batch, open_log, read_parts
from features.errors import ContractError
from features.files import sha256, write_whole
from features.home import Home
from features.log.standing import Audience as Contacts
from features.sheet import Progress
from serving.batch.output import tally
from serving.batch.part import Decided, part_table, write_part
from serving.batch.plan import Plan
from serving.batch.prices import EveryClaim, price, together
from serving.batch.turns import Turns, purse_of
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


def decide_batch(plan: Plan, *, now: datetime, progress: Progress) -> Batch:
    """Decide the parts that are not decided yet, in order, and give the batch.

    A part counts once the log names it, with its contacts and what they cost, in one transaction. What is decided
    follows from the plan, the parts before, and chance of each part's own: a run that was killed and goes on ends as if
    it had not been.
    """
    with open_log(plan.home) as log:
        batch, moment = find_batch(plan.home.decisions, plan.batch_id), log.moment()
        log.release(plan.batch_id)  # of a run that was killed
        with running(plan, now if batch is None else batch.decided_at, progress) as run:
            if batch is None:
                batch = _begin(plan, run, log)
            done = decided_parts(plan.home, batch.batch_id)
            spent = sum(tally(plan.home.root / part.path).spent for part in done)
            prices = _priced(_left(plan, log), batch)
            turns = Turns(plan, log, batch, moment=moment, spent=spent, prices=prices)
            run.settle(plan.parts[len(done) :], turns, batch)
    return batch


@contextmanager
def running(plan: Plan, now: datetime, progress: Progress) -> Iterator[Run]:
    """Give what weighs and decides: this process, or the workers of Spark."""
    if plan.spark is None:
        yield Run(plan, now, progress)
        return
    from serving.batch.spark import on_spark  # it builds on what is here

    with on_spark(plan, plan.spark, now, progress) as run:
        yield run


def write_decided(plan: Plan, batch: Batch, number: int, decided: Decided) -> Part:
    """Write the decisions of a part into a file, whole or not at all."""
    table = part_table(decided, plan.decider, batch, plan.population.as_of.isoformat())
    path = plan.home.batches / batch.batch_id / f"part-{number:05d}.parquet"
    write_whole(path, partial(write_part, table=table))
    return Part(batch.batch_id, number, str(path.relative_to(plan.home.root)), sha256(path), len(table))


def decided_parts(home: Home, batch_id: str) -> list[Part]:
    """Give the parts of a batch that are decided, in order."""
    return [part for batch, part in read_parts(home.decisions) if batch.batch_id == batch_id]


def left_at_first(plan: Plan, log: Log) -> Purse:
    """Say what is left for a batch that begins; a ContractError where that is no money."""
    left = _left(plan, log)
    if left.budget == 0:
        campaign_id = plan.request.campaign_id
        raise ContractError(f"campaign {campaign_id} has spent its budget; give it more in holdfast.toml")
    return left


def _left(plan: Plan, log: Log) -> Purse:
    campaign_id = plan.request.campaign_id
    contacted = log.contacted(plan.decider.release.offer_ids)
    left = purse_of(plan, 0, contacted, log.spent(campaign_id) if campaign_id is not None else 0)
    return replace(left, budget=max(left.budget, 0.0), stock=np.maximum(left.stock, 0.0))


def _begin(plan: Plan, run: Run, log: Log) -> Batch:
    """Find the prices, where anything is short, and store what the batch is."""
    left, decider, request = left_at_first(plan, log), plan.decider, plan.request
    short = np.isfinite(left.budget) or np.isfinite(left.stock).any()
    found = price(decider, run.claims(left), left) if short else left
    catalogue = decider.catalogue
    settings = {
        "audience": plan.audience.asked,
        "as_of": plan.population.as_of.isoformat(),
        "budget": request.budget,
        "seed": request.seed,
        "price": found.price,
        "stock_prices": found.stock_prices.tolist(),
    }
    batch = Batch(
        plan.batch_id, request.campaign_id, run.now, decider.release.release_id, catalogue.catalogue_id, settings
    )
    log.keep_catalogue(catalogue.catalogue_id, catalogue.to_json(), now=run.now).result()
    log.begin_batch(batch).result()
    if short and request.campaign_id is not None:  # so that the service goes on at the same prices
        stock_prices = dict(zip(decider.release.offer_ids, found.stock_prices.tolist(), strict=True))
        log.set_price(request.campaign_id, found.price, stock_prices, now=run.now).result()
    return batch


def _priced(left: Purse, batch: Batch) -> Purse:
    settings = batch.settings
    return replace(left, price=settings["price"], stock_prices=np.array(settings["stock_prices"], dtype=np.float64))


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
