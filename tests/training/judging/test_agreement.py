"""The estimators against a published implementation, on its own small log.

Open Bandit Pipeline 0.5.5 (Saito, Aihara, Matsutani and Narita, NeurIPS 2021) gave the numbers, in an environment of
its own, by:

    from obp import ope

    d = pd.read_csv(obp.__path__[0] + "/dataset/obd/bts/all/all.csv", index_col=0)[:4000]
    item, place, click = d.item_id.to_numpy(), d.position.to_numpy() - 1, d.click.to_numpy()
    q = (np.bincount(item, click, 80) + 1) / (np.bincount(item, minlength=80) + 200)
    liking = 1.0 + np.arange(80)[:, None] * np.arange(1, 4) % 80
    for policy in (np.full((80, 3), 1 / 80), liking / liking.sum(axis=0)):
        known = dict(
            reward=click, action=item, position=place, pscore=d.propensity_score.to_numpy(),
            action_dist=np.tile(policy, (4000, 1, 1)), estimated_rewards_by_reg_model=np.tile(q[:, None], (4000, 1, 3)),
        )
        for estimator in (
            ope.InverseProbabilityWeighting, ope.SelfNormalizedInverseProbabilityWeighting, ope.DirectMethod,
            ope.DoublyRobust,
        ):
            print(repr(float(estimator().estimate_policy_value(**known))))

Its `bts` is Thompson sampling over 80 items in 3 places of a page; propensities go down to 0.000095.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from training.judging import estimators
from training.judging.estimators import Log

ITEMS = 80
LIKING = 1.0 + np.arange(ITEMS)[:, None] * np.arange(1, 4) % ITEMS
POLICIES = {"uniform": np.full((ITEMS, 3), 1 / ITEMS), "by place": LIKING / LIKING.sum(axis=0)}
PUBLISHED = {
    ("uniform", "ips"): 0.0035281916033410984,
    ("uniform", "snips"): 0.0039009175152657943,
    ("uniform", "dm"): 0.005052860048495539,
    ("uniform", "dr"): 0.0040333479080500965,
    ("by place", "ips"): 0.003962069179380368,
    ("by place", "snips"): 0.004529241517616482,
    ("by place", "dm"): 0.005086525664491591,
    ("by place", "dr"): 0.004627792172298132,
}


@pytest.fixture(scope="module")
def shown():
    return pd.read_csv(Path(__file__).with_name("open_bandit.csv"), comment="#")


@pytest.mark.parametrize(("policy", "estimator"), PUBLISHED)
def test_estimators_agree_with_open_bandit_pipeline(shown, policy, estimator):
    item, n = shown["item_id"].to_numpy(), len(shown)
    log = Log(
        treatment=item,  # an item is always shown: the first stands where control does elsewhere
        propensity=shown["propensity_score"].to_numpy(),
        outcome=shown["click"].to_numpy(dtype=float),
        contact_cost=np.zeros(ITEMS),
        member_ids=np.arange(n),
    )
    probabilities = POLICIES[policy].T[shown["position"] - 1]
    rate = (np.bincount(item, log.outcome, ITEMS) + 1) / (np.bincount(item, minlength=ITEMS) + 200)
    q = (np.tile(rate, (n, 1)),) if estimator in {"dm", "dr"} else ()
    value = getattr(estimators, estimator)(log, probabilities, *q).mean()
    assert value == pytest.approx(PUBLISHED[policy, estimator], rel=1e-9)
