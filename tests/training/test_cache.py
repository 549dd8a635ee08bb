import json

import numpy as np
import pytest
import xgboost as xgb

from training.cache import Step, cached
from training.metrics import Estimate


@pytest.fixture
def booster():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3)).astype(np.float32)
    return xgb.train({"max_depth": 2, "nthread": 1}, xgb.DMatrix(X, X[:, 0], nthread=1), 5)


@pytest.fixture
def counted(booster):
    """A step that counts how often it is done."""

    def compute():
        compute.times += 1
        return Step({"auc": Estimate(0.8, 0.7, 0.9, 10), "words": ("a", "b")}, {"churn": booster})

    compute.times = 0
    return compute


def test_a_step_is_done_once_and_reads_back_the_same_bytes(tmp_path, counted, booster):
    first, second = (cached(tmp_path, "churn", "key", counted) for _ in range(2))
    assert counted.times == 1
    assert (
        first.record
        == second.record
        == {"auc": {"value": 0.8, "lower": 0.7, "upper": 0.9, "n": 10}, "words": ["a", "b"]}
    )
    wanted = bytes(booster.save_raw("json"))
    assert bytes(first.boosters["churn"].save_raw("json")) == bytes(second.boosters["churn"].save_raw("json")) == wanted


def test_other_inputs_are_another_step_and_names_do_not_meet(tmp_path, counted):
    cached(tmp_path, "churn", "key", counted)
    cached(tmp_path, "value", "key", counted)
    cached(tmp_path, "churn", "other", counted)
    assert counted.times == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["churn.json", "value.json"]


@pytest.mark.parametrize("spoil", [lambda text: text[:-40], lambda text: text.replace("0.8", "0.9"), lambda _: "[]"])
def test_what_is_spoilt_is_made_again(tmp_path, counted, spoil):
    cached(tmp_path, "churn", "key", counted)
    path = tmp_path / "churn.json"
    path.write_text(spoil(path.read_text()))
    assert cached(tmp_path, "churn", "key", counted).record["auc"]["value"] == 0.8
    assert counted.times == 2
    assert json.loads(path.read_bytes())["body"]["key"] == "key"


def test_a_step_that_fails_leaves_nothing(tmp_path):
    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path, "churn", "key", fail)
    assert not list(tmp_path.iterdir())
