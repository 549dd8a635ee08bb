"""Every constraint on a million members and six offers, against the same constraints as SQL in DuckDB, cell by cell.

`HOLDFAST_BENCH_MEMBERS=10000000` says otherwise. DuckDB has every core, ours one thread; both read arrays in memory.
"""

import os
import statistics
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa

from features.log.standing import Standing
from features.offers import Catalogue, Offer
from features.programme import Policy
from training.constraints import REFUSALS, Constraints

MEMBERS = int(os.environ.get("HOLDFAST_BENCH_MEMBERS", "1_000_000"))
ROUNDS = 5
NOW = datetime(2026, 3, 1, tzinfo=UTC)
RULES = (
    "recency_days > 28",
    "lifecycle_stage in ('lapsed', 'dormant') and not tier == 'gold'",
    "region != 'north' or visits_28d > 3",
    "recency_days > 28 and recency_days <= 84 and spend_84d > tier_distance",
    "tier == 'gold'",
    "visits_28d > 0",
)
OFFER = Offer("", "An offer", "mail", 40, 300, NOW - timedelta(days=1), NOW + timedelta(days=1))
WORDS = {
    "personalisation": ("yes", "yes", "yes", "no"),
    "lifecycle_stage": ("new", "active", "dormant", "lapsed", "returned"),
    "tier": ("gold", "silver", None),
    "region": ("north", "south", None),
}
NUMBERS = ("recency_days", "visits_28d", "spend_84d", "tier_distance")


def bench_constraints():
    """The first reason against each offer for each member, or none."""
    rng, k = np.random.default_rng(1), len(RULES)
    facts = {name: rng.choice(np.array(words, dtype=object), MEMBERS) for name, words in WORDS.items()}
    facts |= {name: rng.normal(30, 20, MEMBERS) for name in NUMBERS}
    ago, counts = rng.exponential(30, (MEMBERS, k)), rng.poisson(1, MEMBERS)
    standing, cost = Standing(ago, ago.min(axis=1), counts), 5_000 * rng.random((MEMBERS, k))
    own, codes = timed(lambda: refusals(facts, standing, cost))
    table = pa.table(
        facts
        | {f"cost_{place}": cost[:, place].copy() for place in range(k)}
        | {f"ago_{place}": ago[:, place].copy() for place in range(k)}
        | {"ago": standing.since_any, "counts": counts}
    )
    with duckdb.connect() as db:
        db.register("members", table)
        rival, found = timed(lambda: db.sql(query(k)).fetchnumpy())
    assert all((found[f"code_{place}"] == codes[:, place]).all() for place in range(k))
    refused = 1 - (codes == 0).mean()
    (ours, ours_cpu), (theirs, theirs_cpu) = own, rival
    print(  # noqa: T201
        f"\nconstraints on {MEMBERS:,} members x {k} offers: {ours:.2f} s, {ours_cpu:.2f} s of the processor; "
        f"DuckDB {theirs:.2f} s, {theirs_cpu:.2f} s; {refused:.0%} refused, every reason the same"
    )


def refusals(facts, standing, cost):
    offers = tuple(
        replace(OFFER, offer_id=f"o{place}", eligible=rule, min_days_between_contacts=14)
        for place, rule in enumerate(RULES)
    )
    policy = Policy(min_days_between_contacts=3, contacts_per_period=3, cost_caps={"lapsed": 0.6})
    constraints = Constraints(Catalogue(offers, policy, {}, 5_000), [offer.offer_id for offer in offers])
    everybody, none = np.ones(MEMBERS, dtype=bool), np.zeros(len(offers), dtype=bool)
    how = {"now": NOW, "campaign_id": None, "offers": None, "affordable": None}
    return constraints.refusals(facts, standing, cost, scored=everybody, sold_out=none, **how)


def query(k):
    cases = ", ".join(
        f"""CASE WHEN personalisation = 'no' THEN {REFUSALS.index("opt_out")}
                 WHEN NOT coalesce({RULES[place]}, false) THEN {REFUSALS.index("rule")}
                 WHEN lifecycle_stage = 'lapsed' AND cost_{place} > 3000 THEN {REFUSALS.index("cost_cap")}
                 WHEN ago_{place} < 14 THEN {REFUSALS.index("offer_contacts")}
                 WHEN ago < 3 THEN {REFUSALS.index("contacts")}
                 WHEN counts >= 3 THEN {REFUSALS.index("contacts_per_period")}
                 ELSE 0 END::UTINYINT AS code_{place}"""
        for place in range(k)
    )
    return f"SELECT {cases} FROM members"  # noqa: S608 (made above)


def timed(work):
    """Give the median time of some rounds and the processor's, in seconds, and what came out."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter(), time.process_time()
        result = work()
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return [statistics.median(column) for column in zip(*times, strict=True)], result
