"""Decide an audience part by part, durably: what was decided stays decided, whenever a run is killed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

import numpy as np

from features.decisions import Batch, Log, Part, find_batch, open_log, read_parts
from features.errors import ContractError
from features.home import Home
from features.sheet import Progress
from serving.batch.local import Run
from serving.batch.output import tally
from serving.batch.plan import Plan
from serving.batch.prices import Priced, price
from serving.batch.turns import Turns, purse_of
from serving.decide import Purse


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
    from serving.batch.spark import on_spark

    with on_spark(plan, plan.spark, now, progress) as run:
        yield run


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
    priced = price(decider, run.claims(left), left) if short else Priced(left)
    found = priced.purse
    catalogue = decider.catalogue
    settings = {
        "audience": plan.audience.asked,
        "as_of": plan.population.as_of.isoformat(),
        "budget": request.budget,
        "seed": request.seed,
        "price": found.price,
        "stock_prices": found.stock_prices.tolist(),
        "by_chance": priced.by_chance,
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
