"""Decide an audience part by part, durably: what was decided stays decided, whenever a run is killed."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

import numpy as np

from features.decisions import Batch, Log, Part, find_batch, open_log, read_parts
from features.errors import ContractError
from features.files import sha256, write_whole
from features.home import Home
from features.sheet import Progress
from serving.batch.output import tally
from serving.batch.part import Decided, part_table, write_part
from serving.batch.plan import Plan, Rows
from serving.batch.prices import Claims, claims_of, price, together
from serving.batch.turns import Turns, purse_of
from serving.decide import Members, Occasion, Purse, Worth

AHEAD: Final = 2  # parts that are worked on beside the one that is decided
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Weighed:
    """Hold a part whose offers were weighed."""

    number: int
    rows: Rows
    members: Members
    worth: Worth


class Run:
    """Weigh and decide the parts of a plan at one moment."""

    def __init__(self, plan: Plan, now: datetime, progress: Progress) -> None:
        self.plan, self.now, self._progress = plan, now, progress
        self._contacts = plan.contacts(now)
        self._worth: dict[int, Worth] = {}  # of parts that were weighed to find the prices

    def claims(self, left: Purse) -> Claims:
        """Weigh every part, for what its members would be worth and cost; the worth is kept for deciding."""
        plan, found = self.plan, []
        for weighed in self._weighed(plan.parts, "weighing offers"):
            refusals = plan.decider.refusals(weighed.members, weighed.worth, self._occasion(left))
            found.append(claims_of(weighed.members, weighed.worth, refusals == 0))
            self._worth[weighed.number] = weighed.worth
        return together(found)

    def decide(self, parts: Iterable[int], turns: Turns, batch_id: str) -> Iterator[tuple[int, Decided, int]]:
        """Decide parts in order, each under what those before left; say in how many reservations the log has each."""
        for weighed in self._weighed(tuple(parts), "deciding"):
            self._worth.pop(weighed.number, None)
            uniform = np.random.default_rng([int(batch_id, 16), weighed.number]).random(len(weighed.rows.X))
            yield weighed.number, *turns.decide(weighed.number, weighed.rows, weighed.members, weighed.worth, uniform)

    def _weighed(self, parts: tuple[int, ...], step: str) -> Iterator[Weighed]:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for done, weighed in enumerate(_ahead(pool, self._weigh, parts)):
                self._progress(step, done, len(parts))
                yield weighed
        self._progress(step, len(parts), len(parts))

    def _weigh(self, part: int) -> Weighed:
        decider, rows = self.plan.decider, self.plan.rows(part)
        members = rows.members(decider, self._contacts, self.now)
        worth = self._worth.get(part) or decider.weigh(members, self.plan.request.campaign_id)
        return Weighed(part, rows, members, worth)

    def _occasion(self, left: Purse) -> Occasion:
        return Occasion(self.now, self.plan.request.campaign_id, None, left)


def decide_batch(plan: Plan, *, now: datetime, progress: Progress) -> Batch:
    """Decide the parts that are not decided yet, in order, and give the batch.

    A part counts once the log names it, with its contacts and what they cost, in one transaction. What is decided
    follows from the plan, the parts before, and chance of each part's own: a run that was killed and goes on ends as if
    it had not been.
    """
    with open_log(plan.home) as log:
        batch, moment = find_batch(plan.home.decisions, plan.batch_id), log.moment()
        log.release(plan.batch_id)  # of a run that was killed
        run = Run(plan, now if batch is None else batch.decided_at, progress)
        if batch is None:
            batch = _begin(plan, run, log)
        done = decided_parts(plan.home, batch.batch_id)
        spent = sum(tally(plan.home.root / part.path).spent for part in done)
        prices = _priced(_left(plan, log), batch)
        turns = Turns(plan, log, batch, moment=moment, spent=spent, prices=prices)
        with ThreadPoolExecutor(1) as writer:  # one: parts are named in the log in their order
            store = partial(_store, plan, log, batch, prices)
            decided = run.decide(plan.parts[len(done) :], turns, batch.batch_id)
            deque(_ahead(writer, store, decided), maxlen=0)
    return batch


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
    priced = price(decider, run.claims(left), left) if short else left
    catalogue = decider.catalogue
    settings = {
        "audience": plan.audience.asked,
        "as_of": plan.population.as_of.isoformat(),
        "budget": request.budget,
        "seed": request.seed,
        "price": priced.price,
        "stock_prices": priced.stock_prices.tolist(),
    }
    batch = Batch(
        plan.batch_id, request.campaign_id, run.now, decider.release.release_id, catalogue.catalogue_id, settings
    )
    log.keep_catalogue(catalogue.catalogue_id, catalogue.to_json(), now=run.now).result()
    log.begin_batch(batch).result()
    if short and request.campaign_id is not None:  # so that the service goes on at the same prices
        stock_prices = dict(zip(decider.release.offer_ids, priced.stock_prices.tolist(), strict=True))
        log.set_price(request.campaign_id, priced.price, stock_prices, now=run.now).result()
    return batch


def _priced(left: Purse, batch: Batch) -> Purse:
    settings = batch.settings
    return replace(left, price=settings["price"], stock_prices=np.array(settings["stock_prices"], dtype=np.float64))


def _store(plan: Plan, log: Log, batch: Batch, prices: Purse, numbered: tuple[int, Decided, int]) -> None:
    """Write a part's decisions, then let the log name it."""
    number, decided, reservations = numbered
    table = part_table(decided, plan.decider, batch, prices, plan.population.as_of.isoformat())
    path = plan.home.batches / batch.batch_id / f"part-{number:05d}.parquet"
    write_whole(path, partial(write_part, table=table))
    part = Part(batch.batch_id, number, str(path.relative_to(plan.home.root)), sha256(path), len(table))
    log.append_part(part, reservations).result()


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
