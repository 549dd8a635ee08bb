"""The closed loop over seeds: how much of the oracle's lead it earns by round and size, and that it never harms.

`HOLDFAST_SEEDS=20 HOLDFAST_SIMULATE_MEMBERS=2000,20000,100000` is the whole of it, which takes hours on two cores.
"""

import os

import numpy as np
import pytest
from scipy.stats import t as student

from features.world.law import OFFERS
from training.simulation.loop import BEST_FIXED, CEILING, FIXED_BY_LOG, LOOP, ORACLE, simulate
from training.simulation.plan import alike, make_flight

SEEDS = int(os.environ.get("HOLDFAST_SEEDS", "3"))
SIZES = tuple(map(int, os.environ.get("HOLDFAST_SIMULATE_MEMBERS", "2000").split(",")))
ROUNDS = int(os.environ.get("HOLDFAST_SIMULATE_ROUNDS", "5"))
SHAPE = os.environ.get("HOLDFAST_SIMULATE_SHAPE", "subscription")
OBSERVABLE = os.environ.get("HOLDFAST_SIMULATE_OBSERVABLE", "") == "1"  # whether traits are in the members' table
MARGIN = float(os.environ.get("HOLDFAST_SIMULATE_MARGIN", "0"))  # the gate's, minor units a decision
AIMS = (0.8, 0.9, 0.95)


def flown(members, **options):
    """Fly once for each seed; rows by seed."""
    plan = make_flight(members, rounds=ROUNDS, shape=SHAPE, margin=MARGIN, observable=OBSERVABLE, **options)
    return [simulate(plan, np.random.default_rng(seed), lambda *_: None) for seed in range(SEEDS)]


def mean(values):
    """Give mean and half the width of its 95 % interval over seeds."""
    reach = (
        student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
        if len(values) > 1
        else np.inf
    )
    return float(np.mean(values)), float(reach)


def shown(values, unit=""):
    value, reach = mean(values)
    return f"{value:+.2f}{unit} ± {reach:.2f}"


def of(rows, policy, number):
    return next(row for row in rows if row.policy == policy and row.number == number)


@pytest.mark.parametrize("members", SIZES)
def bench_share_of_the_oracle(members):
    flights = flown(members)
    world = f"{SHAPE} with {'observable' if OBSERVABLE else 'hidden'} traits"
    print(f"\n{members:,} members, {world}, {SEEDS} seeds, gate's margin {MARGIN:g}: share of the oracle's lead")  # noqa: T201
    line = "{:>6}{:>18}{:>18}{:>18}{:>18}{:>12}".format
    print(line("round", "learned", "served", "features show", "learned of these", "promoted"))  # noqa: T201
    for number in range(1, ROUNDS + 1):
        loop = [of(rows, LOOP, number) for rows in flights]
        ceiling = [of(rows, CEILING, number).share for rows in flights]
        served = [(r.gain - r.best_fixed_gain) / (r.oracle_gain - r.best_fixed_gain) for r in loop]
        learned = [r.share for r in loop]
        of_these = [share / top for share, top in zip(learned, ceiling, strict=True)]
        cells = (shown(values) for values in (learned, served, ceiling, of_these))
        print(line(number, *cells, f"{np.mean([r.promoted for r in loop]):.2f}"))  # noqa: T201
    reached = [f"{aim:.0%}: {'yes' if mean(of_these)[0] >= aim else 'no'}" for aim in AIMS]
    print(f"of what features show, reached in the last round: {', '.join(reached)}")  # noqa: T201
    row = "{:<30}{:>26}{:>20}".format
    print(row("profit over the oracle's", "all rounds, per decision", "last round"))  # noqa: T201
    for policy in dict.fromkeys(row.policy for row in flights[0]):
        regret = [sum(row.regret for row in rows if row.policy == policy) for rows in flights]
        asked = [sum(row.decisions for row in rows if row.policy == policy) for rows in flights]
        last = [of(rows, policy, ROUNDS) for rows in flights]
        less = [-one / n for one, n in zip(regret, asked, strict=True)]
        print(row(policy, shown(less), shown([r.gain - r.oracle_gain for r in last])))  # noqa: T201
    assert all(of(rows, ORACLE, ROUNDS).regret == pytest.approx(0, abs=1e-6) for rows in flights)


def bench_where_offers_work_alike():
    """Without heterogeneity the loop may not end significantly below the best fixed offer that its log could name.

    The best one in hindsight is shown beside it: nobody knew it, and nothing that is learned can be above it by much.
    """
    flights = flown(SIZES[0], offers=alike(OFFERS))
    learned = np.array([of(rows, LOOP, ROUNDS).learned_gain for rows in flights])
    by_log, hindsight = (
        np.array([of(rows, policy, ROUNDS).learned_gain for rows in flights]) for policy in (FIXED_BY_LOG, BEST_FIXED)
    )
    print(f"\nwhere offers work alike, {SIZES[0]:,} members, {SEEDS} seeds, a decision of round {ROUNDS}")  # noqa: T201
    print(f"learned less the best fixed offer by the log  {shown(learned - by_log)} of {by_log.mean():.2f}")  # noqa: T201
    print(f"learned less the best fixed in hindsight      {shown(learned - hindsight)} of {hindsight.mean():.2f}")  # noqa: T201
    assert sum(mean(learned - by_log)) >= 0
