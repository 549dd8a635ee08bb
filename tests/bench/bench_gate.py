"""The gate and the intervals it stands on, in worlds whose truth is known, `GATE_RUNS` runs each.

The rivals of a gate that asks for a paired difference's lower end are one that takes the better point estimate and one
that takes the better Qini coefficient: what retraining without intervals, or without money, promotes.
"""

import os

import numpy as np
from scipy.stats import norm

from training import metrics, ope
from training.judging import estimators, evidence
from training.judging.estimators import Log
from training.judging.findings import Evidence
from training.judging.uplift_metrics import qini_coefficient
from training.metrics import Estimate
from training.promotion import judge

RUNS = int(os.environ.get("GATE_RUNS", "300"))
KEEN, ARMS, COST = 0.3, 4, np.array([0.0, 5, 5, 5])
SENT, SUITS = 1, 2  # the offer that the champion sends to all, and the one that may suit the keen better
SURE = Estimate(0.8, 0.79, 0.81, 1000)


def world(rng, members, gain, *, spread=0.6):
    """Draw a log of two decisions a member in which sending the keen what suits them gains `gain` a decision."""
    member = np.repeat(np.arange(members), 2)
    n = len(member)
    each, keen = np.arange(n), (rng.random(members) < KEEN)[member]
    logging = np.where(np.arange(ARMS) == np.where(keen, 0, 1)[:, None], 0.55, 0.15)
    treatment = (logging.cumsum(axis=1) <= rng.random(n)[:, None]).sum(axis=1)
    mean = np.tile([50.0, 70, 70, 70], (n, 1)) + (gain / KEEN) * (keen[:, None] & (np.arange(ARMS) == SUITS))
    tail = np.exp(rng.normal(-(spread**2) / 2, spread, n)) * (rng.random(n) < 0.6) / 0.6
    money = tail * np.exp(rng.normal(-0.125, 0.5, members))[member]
    outcome = mean[each, treatment] + 50 * (money - 1)
    log = Log(treatment, logging[each, treatment], outcome, COST, member)
    return log, keen, mean * 1.1


def personal(keen):
    return np.eye(ARMS)[np.where(keen, SUITS, SENT)]


def bench_coverage():
    line = "{:<34}{:>10}{:>9}{:>9}{:>9}{:>9}".format
    print(f"\ncoverage of 95 % intervals in {RUNS} runs, asymptotic and of resampled members")  # noqa: T201
    print(line("spread of money, members", "", "ips", "snips", "dr", "dr gain"))  # noqa: T201
    for spread, members in ((0.3, 1000), (0.6, 1000), (1.0, 1000), (1.0, 5000)):
        rng, hits = np.random.default_rng(1), np.zeros((2, 4))
        truth = np.array([65 + 2.0, 65 + 2.0, 65 + 2.0, 2.0])
        for _ in range(RUNS):
            log, keen, q = world(rng, members, 2.0, spread=spread)
            rival = ope.fixed(SENT, np.ones((len(log), 3), dtype=bool))
            ours = [estimators.ips(log, personal(keen)), estimators.snips(log, personal(keen))]
            ours.append(estimators.dr(log, personal(keen), q))
            columns = np.column_stack([*ours, ours[-1] - estimators.dr(log, rival, q)])
            asymptotic = [evidence.estimate(column, log.member_ids) for column in columns.T]
            resampled = evidence.bootstrap(columns, log.member_ids, rng=rng, n_resamples=500)
            hits += [covered(asymptotic, truth), covered(resampled, truth)]
        for kind, row in zip(("asymptotic", "bootstrap"), hits / RUNS, strict=True):
            print(line(f"{spread}, {members:,}", kind, *(f"{share:.3f}" for share in row)))  # noqa: T201


def bench_coverage_of_metrics():
    """AUC and Qini on 2,000 rows of 1,000 members; the truth is that of a million rows."""
    rng = np.random.default_rng(2)
    many = np.mean([scored(rng, 200_000)[1] for _ in range(5)], axis=0)
    hits = np.zeros(2)
    for _ in range(RUNS):
        (arrays, qini_arrays, member), _ = scored(rng, 1000)
        found = [
            metrics.bootstrap(metrics.auc, *arrays, clusters=member, rng=rng),
            metrics.bootstrap(qini_coefficient, *qini_arrays, clusters=member, rng=rng),
        ]
        hits += covered(found, many)
    print(f"\ncoverage of the bootstrap in {RUNS} runs: AUC {hits[0] / RUNS:.3f}, Qini {hits[1] / RUNS:.3f}")  # noqa: T201


def scored(rng, members):
    """Draw scores of two rows a member, who churn and answer to an offer as their scores say, in part."""
    member = np.repeat(np.arange(members), 2)
    score = rng.normal(size=members)[member] + rng.normal(size=2 * members)
    churned = rng.random(2 * members) < 1 / (1 + np.exp(1.5 - score))
    treated = rng.random(2 * members) < 0.5
    outcome = 10 * treated * score + rng.lognormal(3, 0.8, 2 * members)
    arrays, qini_arrays = (churned, score), (outcome, score, treated)
    return (arrays, qini_arrays, member), (metrics.auc(*arrays), qini_coefficient(*qini_arrays))


def covered(intervals, truth):
    return np.array([each.lower <= true <= each.upper for each, true in zip(intervals, truth, strict=True)])


def bench_gate():
    """Challengers that gain 0, a half, one and one and a half of what 2,000 decisions detect four times in five."""
    rng = np.random.default_rng(3)
    size = np.mean([evidenced(*world(rng, 1000, 8.0), champion=SENT).smallest_detectable_effect for _ in range(40)])
    line = "{:<34}{:>10}{:>10}{:>12}{:>8}".format
    print(f"\nchallengers promoted in {RUNS} runs; smallest detectable effect {size:.1f} a decision")  # noqa: T201
    print(line("true gain over the best fixed offer", "expected", "this gate", "better mean", "Qini"))  # noqa: T201
    for part in (0.0, 0.5, 1.0, 1.5):
        found = np.mean([decided(*world(rng, 1000, part * size), rng) for _ in range(RUNS)], axis=0)
        expected = norm.sf(evidence.Z - part * (evidence.Z + evidence.Z_POWER))
        print(line(f"{part:.1f} of it", f"{expected:.3f}", *(f"{share:.3f}" for share in found)))  # noqa: T201
    worse = np.mean([decided(*world(rng, 1000, -size), rng) for _ in range(RUNS)], axis=0)
    print(line("a loss of that size", "0.000", *(f"{share:.3f}" for share in worse)))  # noqa: T201


def evidenced(log, keen, q, *, champion):
    eligible = np.ones((len(log), ARMS - 1), dtype=bool)
    return ope.compare(log, {"challenger": personal(keen)}, best_fixed=champion, eligible=eligible, q=q)["challenger"]


def decided(log, keen, q, rng):
    """Say who would promote: this gate, one by the point estimate, one by Qini against a champion that ranks by luck.

    Qini is that of contact at all, by who is keen: in these worlds offers move the keen more, or not at all.
    """
    row = evidenced(log, keen, q, champion=SENT)
    sound = Evidence(
        experiment="simulated",
        auc=SURE,
        auc_over_best_feature=Estimate(0.02, 0.01, 0.03, 1000),
        calibration_error=Estimate(0.02, 0.01, 0.03, 1000),
        against_no_contact=row.against_no_contact,
        against_best_fixed=row.against_best_fixed,
        against_champion=row.against_best_fixed,
        effective_sample_size=row.effective_sample_size,
    )
    tried = np.isin(log.treatment, [0, SUITS])
    outcome, treated, weight = log.outcome[tried], log.treatment[tried] > 0, 1 / log.propensity[tried]
    scores = (keen[tried].astype(float), rng.random(tried.sum()))
    qini = [qini_coefficient(outcome, score, treated, weight=weight) for score in scores]
    return judge(sound, sound).promote, row.against_best_fixed.value > 0, qini[0] > qini[1]
