"""How likely an offer is redeemed if it is sent, learned from the contacts that sent it.

No control is needed: who was not sent an offer does not redeem it. Nor are propensities: given what is known of a
member, whether the offer was sent says nothing of whether it would be redeemed.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import xgboost as xgb

from training.learning.learners import BINS, Experiment, Flags, Floats, Ints
from training.metrics import log_loss
from training.shape import SHALLOW
from training.splits import each_held_out

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


@dataclass(frozen=True)
class Chances:
    """Hold how likely each row would redeem each offer if it is sent, `(n, n_offers)`."""

    teacher: Floats  # by models of all members
    held_out: Floats  # by models that have not seen whether the row's member redeemed


def redemption_chances(log: Experiment, fold: Ints, *, nthread: int) -> Chances:
    """Learn who would redeem each offer.

    Parameters
    ----------
    log : its outcome is 1 where the offer that was sent was redeemed within the horizon, else 0
    fold : (n,) the same for all rows of a member
    nthread : offers learned side by side
    """
    with ThreadPoolExecutor(nthread) as pool:  # XGBoost lets go of Python's lock while it trains
        chances = pool.map(lambda arm: _chance(log, fold, log.arm == arm), range(1, log.arms))
        return Chances(*map(np.column_stack, zip(*chances, strict=True)))


def _chance(log: Experiment, fold: Ints, sent: Flags) -> tuple[Floats, Floats]:
    """Boost as long as held-out members are foretold better; that of all, where none are."""
    contacts = log.take(sent)
    redeemed = contacts.outcome
    of_all = np.full(len(fold), redeemed.mean()), np.full(len(fold), redeemed.mean())
    if min(len(np.unique(contacts.cluster[redeemed == label])) for label in (0, 1)) < FEWEST:
        return of_all
    data = xgb.DMatrix(contacts.X, redeemed, nthread=1)
    folds = [(np.flatnonzero(train), np.flatnonzero(test)) for train, test in each_held_out(fold[sent])]
    losses = xgb.cv(
        TREES,
        data,
        num_boost_round=MOST_ROUNDS,
        folds=folds,
        early_stopping_rounds=PATIENCE,
    )["test-logloss-mean"].to_numpy()
    if losses.min() >= log_loss(redeemed, np.full(len(redeemed), redeemed.mean())):
        return of_all
    rounds, held_out = int(losses.argmin()) + 1, np.empty(len(fold))
    for k, (train, _) in enumerate(folds):
        held_out[fold == k] = xgb.train(TREES, data.slice(train), rounds).inplace_predict(log.X[fold == k])
    return np.asarray(xgb.train(TREES, data, rounds).inplace_predict(log.X), dtype=np.float64), held_out
