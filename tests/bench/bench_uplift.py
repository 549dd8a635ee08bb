"""Uplift beside its rivals: what fitting and asking takes, and how well the known effects are found.

Run by `make bench`, at 200,000 members; `HOLDFAST_BENCH_UPLIFT_ROWS=1000000` asks for more. Every fit has two threads
and a process of its own, which runs nothing else. Its memory is what it takes beyond the data and the libraries.

The known worlds: three offers and control at random, 30 features. In the first the outcome is money, with a strong
baseline and heavy tails; one offer works in steps, one along lines, one as the member's usual spend does. In the others
it is yes or no, often or rarely yes.
"""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb

from training.judging.uplift_metrics import qini_coefficient
from training.uplift import fit_uplift

SCRIPT = Path(__file__).parent / "oracles" / "uplift.py"
ORACLES = Path(".oracles/bin/python")
INSURANCE = Path(__file__).parents[3] / "shared" / "data" / "insurance" / "train.parquet"
SAME = {"max_depth": 3, "n_estimators": 100, "learning_rate": 0.1, "reg_lambda": 10.0}
# what the product's trees have beside: quantiles, smallest leaf and share of the rows
XGBOOST = SAME | {"max_bin": 64, "min_child_weight": 5, "subsample": 0.8, "tree_method": "hist"}
SEEDS = range(10)
FEW, ASKED = 10_000, 100_000


@pytest.fixture
def oracles():
    if not ORACLES.exists():
        pytest.skip(f"{ORACLES} is not there; `make .oracles/ready`")
    return str(ORACLES)


def make_world(n, rng):
    """Make X, arm (0 is control), outcome and the true effects of the offers."""
    X = rng.normal(size=(n, 30))
    X[:, 20:26] = np.exp(X[:, 20:26])
    X[:, 26:] = X[:, 26:] > 0.5
    usual = 4000 * np.exp(0.5 * X[:, 0] + 0.3 * X[:, 1] - 0.3 * X[:, 26])
    usual += 400 * np.maximum(X[:, 5], 0) * np.minimum(X[:, 20], 5)
    steps = 600 * np.tanh(1.5 * X[:, 2]) + 400 * ((X[:, 3] > 0.5) & (X[:, 27] > 0)) - 200
    lines = 150 + 250 * X[:, 4] + 250 * X[:, 4] * (X[:, 6] > 0) - 150 * np.abs(X[:, 7])
    spend = 0.06 * usual + 300 * ((X[:, 21] > 1.5) & (X[:, 8] < 0)) - 250
    effects = np.column_stack([steps, lines, spend])
    arm = rng.integers(0, 4, n)
    noise = rng.standard_t(4, n) * 1200 * (0.5 + usual / 8000)
    outcome = usual + np.column_stack([np.zeros(n), effects])[np.arange(n), arm] + noise
    return X.astype(np.float32), arm, outcome, effects


def make_world_of_chances(n, rng, *, often):
    """Make the same of an outcome that is 1 with a chance of `often` where nothing is sent, for the median member."""
    X = rng.normal(size=(n, 30))
    X[:, 26:] = X[:, 26:] > 0.5
    usual = np.log(often / (1 - often)) + 0.8 * X[:, 0] + 0.5 * X[:, 1] * X[:, 26] - 0.4 * np.abs(X[:, 5])
    steps = 0.6 * np.tanh(1.5 * X[:, 2]) + 0.4 * ((X[:, 3] > 0.5) & (X[:, 27] > 0))
    lines = 0.2 + 0.4 * X[:, 4] - 0.3 * np.abs(X[:, 7])
    bonus = np.column_stack([np.zeros(n), steps, lines, np.full(n, 0.2)])
    chance = 1 / (1 + np.exp(-(usual[:, np.newaxis] + bonus)))
    arm = rng.integers(0, 4, n)
    outcome = (rng.random(n) < chance[np.arange(n), arm]).astype(np.float64)
    return X.astype(np.float32), arm, outcome, chance[:, 1:] - chance[:, :1]


def write_world(folder, n, seed, make=make_world):
    """Write a log to learn from, and give the arm, outcome and effects of other members, who are asked about."""
    rng = np.random.default_rng(seed)
    X, arm, outcome, _ = make(n, rng)
    fresh, *judged = make(ASKED, rng)
    for name, values in {"X": X, "arm": arm, "outcome": outcome, "fresh": fresh}.items():
        np.save(folder / f"{name}.npy", values)
    return judged


def run(python, rival, folder, **options):
    done = subprocess.run(
        [python, SCRIPT, rival, folder, json.dumps(options)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.fail(f"{rival}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1]), np.load(folder / "answers.npy")


def judge(answers, arm, outcome, effects):
    """Give means over offers of the Qini coefficient, the one without noise and the correlation with the true effect.

    Last comes the value of the policy that sends the best offer where that is above 0: the true gain per member over no
    contact. The outcomes' noise moves the first by a hundredth and more, so that only the second tells like from like.
    """
    qini = [
        qini_coefficient(outcome[of], answers[of, a], arm[of] > 0)
        for a in range(3)
        for of in [(arm == 0) | (arm == a + 1)]
    ]
    found = np.mean([correlation(answers[:, a], effects[:, a]) for a in range(3)])
    gain = np.where(answers.max(axis=1) > 0, effects[np.arange(len(effects)), answers.argmax(axis=1)], 0.0)
    known = np.mean([known_qini(answers[:, a], effects[:, a]) for a in range(3)])
    return np.array([np.mean(qini), known, found, gain.mean()])


def correlation(answer, effect):
    """Correlate, 0 where everybody gets the same answer."""
    return np.corrcoef(answer, effect)[0, 1] if np.ptp(answer) > 0 else 0.0


def known_qini(answer, effect):
    """Give the area between the curve of known effects, best predicted first, and the straight line of chance."""
    gained = np.concatenate([[0], effect[np.argsort(-answer)].cumsum()]) / len(effect)
    share = np.linspace(0, 1, len(gained))
    return np.trapezoid(gained - share * gained[-1], share)


def bench_uplift_at_size(oracles, tmp_path):
    n = int(os.environ.get("HOLDFAST_BENCH_UPLIFT_ROWS", "200_000"))
    judged = write_world(tmp_path, n, seed=1)
    print(f"\n{n:,} members, 30 features, 3 offers; {ASKED:,} others asked about")  # noqa: T201
    line = "{:<46}{:>9}{:>9}{:>9}{:>8}{:>9}{:>9}{:>8}{:>10}{:>10}{:>10}".format
    titles = ("seconds", "cpu s", "own MB", "Qini", "known", "correl.", "value", "all, s", "cpu s", "one, ms")
    print(line("", *titles), flush=True)  # noqa: T201
    rivals = {
        "ours: all learners, choice, one booster": (sys.executable, "ours", {"known": True}),
        "our X-learner alone": (sys.executable, "our X-learner", SAME),
        "  causalml's X-learner, same trees": (oracles, "causalml X", {"known": True} | XGBOOST),
        "our DR-learner alone": (sys.executable, "our DR-learner", SAME),
        "  causalml's DR-learner, same trees": (oracles, "causalml DR", {"known": True} | XGBOOST),
        "causalml's X-learner, default trees": (oracles, "causalml X", {"known": True}),
        "causalml's DR-learner, default trees": (oracles, "causalml DR", {"known": True}),
        "ours, propensities estimated": (sys.executable, "ours", {"known": False}),
    }
    for name, (python, rival, options) in rivals.items():
        took, answers = run(python, rival, tmp_path, **options)
        qini, known, found, value = judge(answers, *judged)
        clocks = (f"{took['seconds']:.1f}", f"{took['cpu']:.1f}", f"{took['megabytes']:.0f}")
        asking = (f"{took['ask_all']:.2f}", f"{took['ask_cpu']:.2f}", f"{took['ask_one'] * 1e3:.2f}")
        if rival.startswith("our "):  # alone, fitting and asking are one
            asking = ("", "", "")
        print(line(name, *clocks, f"{qini:.1f}", f"{known:.1f}", f"{found:.3f}", f"{value:.0f}", *asking), flush=True)  # noqa: T201


def bench_uplift_a_row_against_defaults(oracles, tmp_path):
    """Compare with causalml as it comes, which estimates propensities by elastic net, where rows are few and many."""
    rivals = {
        "ours": (sys.executable, "ours"),
        "causalml's X-learner, defaults": (oracles, "causalml X"),
        "causalml's DR-learner, defaults": (oracles, "causalml DR"),
    }
    for n in (FEW, int(os.environ.get("HOLDFAST_BENCH_UPLIFT_ROWS", "200_000"))):
        judged = write_world(tmp_path, n, seed=2)
        for name, (python, rival) in rivals.items():
            took, answers = run(python, rival, tmp_path, known=False)
            show_row(name, took, n, judge(answers, *judged))


def show_row(name, took, n, judged):
    each = took["seconds"] / n * 1e6
    print(f"{name:<40}{n:>9,} rows {each:9.1f} us a row   correlation {judged[2]:.3f}, value {judged[3]:.0f}")  # noqa: T201


@pytest.mark.parametrize(
    ("n", "often"),
    [(FEW, None), (FEW, 0.3), (50_000, 0.02)],
    ids=["money, few members", "yes or no, few members", "a rare yes"],
)
def bench_uplift_of_what_nobody_tuned_for(oracles, tmp_path, n, often):
    """Find known effects with the defaults, over seeds."""
    make = partial(make_world_of_chances, often=often) if often else make_world
    rivals = {
        "ours": (sys.executable, "ours", {"known": True}),
        "causalml's X, same trees": (oracles, "causalml X", {"known": True} | XGBOOST),
        "causalml's DR, same trees": (oracles, "causalml DR", {"known": True} | XGBOOST),
        "causalml's X, default trees": (oracles, "causalml X", {"known": True}),
        "causalml's DR, default trees": (oracles, "causalml DR", {"known": True}),
    }
    found = {name: [] for name in rivals}
    for seed in SEEDS:
        judged = write_world(tmp_path, n, 100 + seed, make)
        for name, (python, rival, options) in rivals.items():
            found[name].append(judge(run(python, rival, tmp_path, **options)[1], *judged))
    kind = f"a yes of {often:.0%}" if often else "money"
    print(f"\n{kind}, {n:,} members, {len(SEEDS)} seeds")  # noqa: T201
    print(f"{'':<32}{'Qini':>22}{'of known effects':>22}{'correlation':>22}{'policy value':>22}")  # noqa: T201
    for name, values in found.items():
        show_seeds(name, np.array(values), np.array(found["ours"]))


def show_seeds(name, values, ours):
    """Print means over seeds with 95 % intervals, and how far ours leads on the same seeds."""
    lead = ours - values
    cells = [f"{_with_interval(v):>22}" for v in values.T] + [f"   ours leads by {_with_interval(v)}" for v in lead.T]
    print(f"{name:<32}{''.join(cells)}")  # noqa: T201


def _with_interval(values):
    half = 2.262 * values.std(ddof=1) / np.sqrt(len(values))  # t of 9 degrees
    return f"{values.mean():.4g} +- {half:.2g}"


def bench_insurance_qini():
    """Rank who is worth a mailing, by five-fold cross-validation of a real experiment, over seeds."""
    if not INSURANCE.exists():
        pytest.skip(f"{INSURANCE} is not there")
    data = pd.read_parquet(INSURANCE)
    mailed, bought = data["TREATMENT"].to_numpy() > 0, data["PURCHASE"].to_numpy(dtype=np.float64)
    X = data.drop(columns=["TREATMENT", "PURCHASE", "UNIQUE_ID"])
    rivals = {"ours": fit_ours, "S-learner, raw": fit_s, "T-learner, raw": fit_t, "at random": None}
    found = {name: [] for name in rivals}
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        fold = rng.permutation(np.arange(len(X)) % 5)
        for name, fit in rivals.items():
            score = rng.random(len(X)) if fit is None else np.empty(len(X))
            for k in range(5) if fit else ():
                rows = fold != k
                score[~rows] = fit(X[rows], mailed[rows], bought[rows])(X[~rows])
            found[name].append([qini_coefficient(bought, score, mailed)])
    print(f"\nQini coefficient on insurance/train by cross-validation, {len(SEEDS)} seeds")  # noqa: T201
    for name, values in found.items():
        show_seeds(name, np.array(values), np.array(found["ours"]))


def fit_ours(X, mailed, bought):
    model = fit_uplift(X, np.where(mailed, "mail", "control"), bought, np.full(len(X), 0.5))
    return lambda asked: model.predict(asked)[:, 0]


RAW = {"objective": "binary:logistic", "max_depth": 4, "eta": 0.05, "subsample": 0.8, "nthread": 2}


def fit_s(X, mailed, bought):
    booster = xgb.train(RAW, xgb.QuantileDMatrix(X.assign(mailed=mailed), bought), num_boost_round=200)
    switched = [lambda asked, on=on: booster.predict(xgb.DMatrix(asked.assign(mailed=on))) for on in (True, False)]
    return lambda asked: switched[0](asked) - switched[1](asked)


def fit_t(X, mailed, bought):
    boosters = [
        xgb.train(RAW, xgb.QuantileDMatrix(X[rows], bought[rows]), num_boost_round=200) for rows in (mailed, ~mailed)
    ]
    return lambda asked: boosters[0].predict(xgb.DMatrix(asked)) - boosters[1].predict(xgb.DMatrix(asked))
