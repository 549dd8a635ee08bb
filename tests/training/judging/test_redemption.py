from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from training.judging.redemption import redemption_table
from training.logged.log import ExperimentLog
from training.releases.manifest import OfferSpec

OFFERS = tuple(OfferSpec(name, name, "mail", 10, 100, "2017-01-01", "2018-01-01") for name in "AB")


def part(treatments, redeemed):
    ids = [f"m{i}" for i in range(len(redeemed))]
    return pd.DataFrame({"member_id": ids, "treatment": list(treatments), "redeemed": np.asarray(redeemed, float)})


def judged(train, test, chance):
    scores = SimpleNamespace(redemption=np.asarray(chance, float))
    return redemption_table(SimpleNamespace(log=ExperimentLog("randomised", OFFERS, train, test), log_scores=scores))


def test_an_offers_chances_are_judged_on_the_later_contacts_that_sent_it():
    learnt = part(["A"] * 4 + ["B"] * 2, [1, 0, 0, 0, 0, 0])
    came = part(["A", "B", "A", "control", "B"], [1, 0, 0, 0, 1])
    found = judged(learnt, came, [[0.5, 0], [0, 0.5], [0.1, 0], [0, 0], [0, 0.5]])
    of = found["A"]
    assert (of.rate.value, of.rate.n, of.expected.value) == (0.5, 2, pytest.approx(0.3))
    # who redeemed was given 0.5, who did not 0.1; the rate of the training, 1 in 4, was given to both
    ours, rate = -np.log([0.5, 0.9]).mean(), -np.log([0.25, 0.75]).mean()
    assert of.log_loss.value == pytest.approx(ours)
    assert of.log_loss_lead.value == pytest.approx(ours - rate)
    assert of.log_loss_lead.lower < of.log_loss_lead.value < of.log_loss_lead.upper
    assert (found["B"].rate.n, found["B"].log_loss.value) == (2, pytest.approx(np.log(2)))


def test_where_no_redemption_was_brought_there_is_nothing_to_judge():
    learnt, came = part(["A", "B"], [0, 0]), part(["A", "B"], [0, 0])
    assert judged(learnt, came, np.zeros((2, 2))) == {}
