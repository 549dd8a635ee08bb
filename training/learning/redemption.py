"""How likely an offer is redeemed if it is sent, learned from the contacts that sent it.

No control is needed: who was not sent an offer does not redeem it. Nor are propensities: given what is known of a
member, whether the offer was sent says nothing of whether it would be redeemed.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import xgboost as xgb

from training.learning.learners import BINS, Experiment, Floats, Matrix
from training.metrics import log_loss
from training.shape import SHALLOW
from training.splits import each_held_out, folds_of

FOLDS: Final = 3
FEWEST: Final = 10  # members who redeemed, and who did not: with fewer, all have the same chance
MOST_ROUNDS: Final = 200
PATIENCE: Final = 10  # rounds without a lower loss, after which more are not tried
TREES: Final = SHALLOW | {
    "objective": "binary:logistic",
    "learning_rate": 0.1,
    "max_bin": BINS,
    "seed": 0,
    "nthread": 1,
}


def redemption_chances(log: Experiment, rng: np.random.Generator, *, nthread: int) -> Floats:
    """Give every row's chance to redeem each offer if it is sent, `(n, n_offers)`.

    Parameters
    ----------
    log : its outcome is 1 where the offer that was sent was redeemed within the horizon, else 0
    nthread : offers learned side by side
    """
    streams = rng.spawn(log.arms - 1)
    with ThreadPoolExecutor(nthread) as pool:  # XGBoost lets go of Python's lock while it trains
        chances = pool.map(
            lambda arm, stream: _chance(log.take(log.arm == arm), log.X, stream), range(1, log.arms), streams
        )
        return np.column_stack(list(chances))


def _chance(contacts: Experiment, X: Matrix, rng: np.random.Generator) -> Floats:
    """Boost as long as held-out members are foretold better; that of all, where none are."""
    redeemed = contacts.outcome
    of_all = np.full(len(X), redeemed.mean())
    if min(len(np.unique(contacts.cluster[redeemed == label])) for label in (0, 1)) < FEWEST:
        return of_all
    data = xgb.DMatrix(contacts.X, redeemed, nthread=1)
    folds = each_held_out(folds_of(contacts.cluster, FOLDS, rng, outcome=redeemed))
    losses = xgb.cv(
        TREES,
        data,
        num_boost_round=MOST_ROUNDS,
        folds=[(np.flatnonzero(train), np.flatnonzero(test)) for train, test in folds],
        early_stopping_rounds=PATIENCE,
    )["test-logloss-mean"].to_numpy()
    if losses.min() >= log_loss(redeemed, np.full(len(redeemed), redeemed.mean())):
        return of_all
    booster = xgb.train(TREES, data, num_boost_round=int(losses.argmin()) + 1)
    return np.asarray(booster.inplace_predict(X), dtype=np.float64)
