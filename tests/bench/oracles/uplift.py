"""Fit and ask one rival of `bench_uplift.py` in a process of its own, and print what it took as JSON.

Run as `python uplift.py RIVAL FOLDER OPTIONS`, causalml's rivals by the interpreter of `.oracles`. The folder holds X,
arm, outcome and fresh (the members asked about) as .npy; the answers are written beside them as answers.npy.
"""

import json
import statistics
import sys
import threading
import time
from pathlib import Path

import numpy as np

ARMS = ("control", "bonus", "coupon", "gift")
THREADS = 2


def causalml(learner):
    """Give what fits causalml's X- or DR-learner: the options are those of XGBoost, and `known` propensities."""
    from causalml.inference.meta import BaseDRRegressor, BaseXRegressor
    from xgboost import XGBRegressor

    kind = {"X": BaseXRegressor, "DR": BaseDRRegressor}[learner]

    def fit(X, arm, outcome, *, known, **options):
        model = kind(learner=XGBRegressor(n_jobs=THREADS, **options), control_name="control")
        half = {offer: np.full(len(X), 0.5) for offer in ARMS[1:]}  # of an offer, between it and control
        # its model of propensities can't read missing values
        model.fit(X if known else np.nan_to_num(X), np.array(ARMS)[arm], outcome, p=half if known else None)
        return lambda fresh: model.predict(fresh, p={offer: np.full(len(fresh), 0.5) for offer in ARMS[1:]})

    return fit


def ours(X, arm, outcome, *, known):
    """Fit what the product fits: all learners, the choice between them, and the one booster."""
    from training.uplift import fit_uplift

    propensity = np.full(len(X), 0.25) if known else None
    return fit_uplift(X, np.array(ARMS)[arm], outcome, propensity, nthread=THREADS).predict


def our(learner, fresh):
    """Give what fits one of the product's learners alone, with trees as told."""
    from training.learning.learners import LEARNERS, Experiment, Trees, fit_nuisance

    def fit(X, arm, outcome, *, max_depth, learning_rate, n_estimators, reg_lambda):
        trees = Trees(max_depth, learning_rate, n_estimators, leaf_share=0.0, ridge=reg_lambda)
        log = Experiment(X, arm, outcome, np.full(len(X), 0.25), np.arange(len(X)), arms=len(ARMS))
        rng = np.random.default_rng(0)
        nuisance = fit_nuisance(log, rng=rng, threads=THREADS, baseline_trees=trees, effect_trees=trees)
        answers = LEARNERS[learner](nuisance, fresh)  # they fit and answer in one
        return lambda asked: answers[: len(asked)]

    return fit


def play(rival, folder, options):
    """Fit, ask about everybody and about one member, and say what it took."""
    X, arm, outcome, fresh = (np.load(folder / f"{name}.npy") for name in ("X", "arm", "outcome", "fresh"))
    fit = {
        "ours": lambda: ours,
        "our X-learner": lambda: our("X-learner", fresh),
        "our DR-learner": lambda: our("DR-learner", fresh),
        "causalml X": lambda: causalml("X"),
        "causalml DR": lambda: causalml("DR"),
    }[rival]()
    fit(X[:2000].copy(), arm[:2000], outcome[:2000], **options)  # what is loaded when first used
    held = own_memory()
    peaks, start, worked = watch_memory(), time.perf_counter(), time.process_time()
    predict = fit(X, arm, outcome, **options)
    took = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - worked}
    took["megabytes"] = (max(peaks) - held) / 1024
    start, worked = time.perf_counter(), time.process_time()
    answers = predict(fresh)
    took |= {"ask_all": time.perf_counter() - start, "ask_cpu": time.process_time() - worked}
    took["ask_one"] = seconds_for_one(predict, fresh)
    np.save(folder / "answers.npy", answers)
    print(json.dumps(took))  # noqa: T201


def seconds_for_one(predict, fresh):
    times = []
    for place in range(100):
        start = time.perf_counter()
        predict(fresh[place : place + 1])
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def own_memory():
    """Give the memory that is the process's own (not files that it maps), in kB."""
    return int(Path("/proc/self/status").read_text(encoding="utf-8").split("RssAnon:")[1].split()[0])


def watch_memory():
    """Note that memory fifty times a second."""
    peaks = [own_memory()]

    def note():
        while True:
            peaks.append(own_memory())
            time.sleep(0.02)

    threading.Thread(target=note, daemon=True).start()
    return peaks


if __name__ == "__main__":
    play(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))
