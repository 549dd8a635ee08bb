"""The budget beside a linear program's optimum, the policy's own speed, and the two ways to price a budget.

`HOLDFAST_BENCH_MEMBERS` sets the larger size; 10,000,000 is the full one and takes 1.5 GB. HiGHS solves the linear
program where it can, at 100,000 members; beyond, what is earned stands beside the Lagrangian bound at the same prices,
which no allocation passes (Fisher, "The Lagrangian relaxation method", Management Science 1981).
"""

import os
import resource
import time

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import linprog

from training.budget import allocate, marginal_curve
from training.policy import HELD_OUT, MODEL, RANDOM, arms, draw, net_values, treatment_probabilities

OFFERS = 6
SMALL, LARGE = 100_000, int(os.environ.get("HOLDFAST_BENCH_MEMBERS", "1000000"))
PART = 65_536  # members whose matrices are made at a time


def market(n, rng):
    """Members who respond more or less to all offers, and offers that are dear or cheap; single precision."""
    benefit, cost = (np.empty((n, OFFERS), dtype=np.float32) for _ in range(2))
    eligible, level = np.empty((n, OFFERS), dtype=bool), rng.integers(10, 60, OFFERS)
    for start in range(0, n, PART):
        rows = slice(start, start + PART)
        shape = benefit[rows].shape
        benefit[rows] = rng.standard_normal(shape) * 20 + rng.gamma(2, 40, (shape[0], 1))
        cost[rows] = level + rng.random(shape) * 20
        eligible[rows] = rng.random(shape) < 0.85
    return benefit, cost, eligible


def limits_of(limited, benefit, cost, eligible):
    n, free = len(benefit), allocate(benefit, cost, eligible).spend
    stock = np.array([n // 12, n // 30, n, n // 12, 0, n // 8])
    return {"budget": {"budget": 0.2 * free}, "stock": {"stock": np.full(OFFERS, n // 12)}}.get(
        limited, {"budget": 0.2 * free, "stock": stock}
    )


def seconds(work):
    """Give what came, and the seconds of processor time it took: nothing here waits, and other work may be about."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def linear_program(benefit, cost, eligible, budget=None, stock=None):
    """Give the optimum by the interior points of HiGHS, ten times as fast here as its simplex."""
    member, offer = np.nonzero(eligible & (benefit > cost))
    n, worth, paid = len(benefit), (benefit - cost)[member, offer], cost[member, offer]
    each = np.arange(len(member))
    rows, most = [sparse.csr_matrix((np.ones(len(member)), (member, each)), (n, len(member)))], [np.ones(n)]
    if budget is not None:
        rows, most = [*rows, sparse.csr_matrix(paid)], [*most, [budget]]
    if stock is not None:
        by_offer = sparse.csr_matrix((np.ones(len(member)), (offer, each)), (OFFERS, len(member)))
        rows, most = [*rows, by_offer], [*most, stock]
    found = linprog(-worth.astype(float), sparse.vstack(rows, format="csr"), np.concatenate(most), method="highs-ipm")
    assert found.status == 0
    return -found.fun


def dual_bound(found, benefit, cost, eligible, *, budget=0.0, stock=0.0):
    """Give what no allocation within the limits can earn more than: the Lagrangian at the prices found."""
    over = 0.0
    for start in range(0, len(benefit), PART):
        rows = slice(start, start + PART)
        value = net_values(benefit[rows], cost[rows], price=found.price, stock_price=found.stock_prices)
        over += float(np.where(eligible[rows], value, 0.0).max(axis=1, initial=0.0).sum(dtype=np.float64))
    return over + found.price * budget + float(np.sum(found.stock_prices * stock))


def show(what, ours, share, rival, name):
    print(f"{what:<44} {ours:8.2f} s {rival:>10}  earns {share:9.4%} of {name}; peak {memory():.1f} GB")  # noqa: T201


@pytest.mark.parametrize("limited", ["budget", "stock", "both"])
def bench_allocate_against_a_linear_program(limited):
    matrices = market(SMALL, np.random.default_rng(1))
    limits = limits_of(limited, *matrices)
    found, ours = seconds(lambda: allocate(*matrices, **limits))
    best, rival = seconds(lambda: linear_program(*matrices, **limits))
    show(f"{limited} priced for {SMALL:,} x {OFFERS}", ours, found.earned / best, f"{rival:.2f} s", "HiGHS' optimum")
    assert 0.99 * best <= found.earned <= best * (1 + 1e-6)


@pytest.mark.parametrize("limited", ["budget", "stock", "both"])
def bench_allocate_against_its_bound(limited):
    matrices = market(LARGE, np.random.default_rng(1))
    limits = limits_of(limited, *matrices)
    found, ours = seconds(lambda: allocate(*matrices, **limits))
    bound = dual_bound(found, *matrices, **limits)
    show(f"{limited} priced for {LARGE:,} x {OFFERS}", ours, found.earned / bound, "", "the bound of any solver")
    assert found.earned >= 0.99 * bound


def bench_price_by_bisection_against_one_sort():
    """The price alone by bisection of who is left, beside the price read off the sorted curve of all budgets."""
    matrices = market(LARGE, np.random.default_rng(2))
    budget = limits_of("budget", *matrices)["budget"]
    found, ours = seconds(lambda: allocate(*matrices, budget=budget))
    curve, rival = seconds(lambda: marginal_curve(*matrices))
    earned = float(np.interp(budget, curve.budget, curve.earned))
    show(f"one budget for {LARGE:,} x {OFFERS}", ours, found.earned / earned, f"{rival:.2f} s", "the whole curve's")


def bench_policy():
    """A million members: who belongs to which arm, the probabilities of seven treatments, the draw."""
    rng, n = np.random.default_rng(3), 1_000_000
    ids = [f"m{i}" for i in range(n)]
    _, hashed = seconds(lambda: arms(ids, salt="holdfast", hold_out=0.05, random_arm=0.02))
    net_value, error = rng.normal(0, 100, (n, OFFERS)), 30 * rng.random((n, OFFERS))
    arm = rng.choice(np.array([HELD_OUT, MODEL, RANDOM]), n, p=[0.05, 0.93, 0.02])
    eligible, uniform = rng.random((n, OFFERS)) < 0.8, rng.random(n)

    def decide():
        for start in range(0, n, PART):
            rows = slice(start, start + PART)
            probabilities = treatment_probabilities(
                net_value[rows],
                eligible[rows],
                arm[rows],
                exploration=0.1,
                regret=5.0,
                bar=error[rows] / 2,
                error=error[rows],
            )
            draw(probabilities, uniform[rows])

    _, decided = seconds(decide)
    print(f"{'arms of 1,000,000 members':<44} {hashed:8.2f} s")  # noqa: T201
    print(f"{'probabilities and draw, 1,000,000 x 6':<44} {decided:8.2f} s")  # noqa: T201
