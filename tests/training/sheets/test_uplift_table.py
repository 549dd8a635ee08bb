from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from features.programme import Programme
from features.schema import CONTROL
from training.artifacts import Scores
from training.judging.grounds import Trained
from training.judging.tables import BY_CHURN, MODEL, RANDOM
from training.judging.uplift_metrics import RANKING_METRICS, qini_coefficient
from training.logged.experiment import judge_policies
from training.logged.log import ExperimentLog
from training.policy import greedy, net_values
from training.releases.manifest import OfferSpec
from training.sheets.gallery import pictures
from training.sheets.uplift_table import later_part, tried, uplift_table
from training.splits import Split

N = 6000
OFFERS = tuple(OfferSpec(name, name, "mail", 10, 0, "2017-01-01", "2018-01-01") for name in ("a", "b/ü"))
DAY = pd.Timestamp("2017-06-05", tz="UTC")


class Known:
    """Models that know the truth: offer a brings 100 x, the other 50 to everybody; who has a low x leaves."""

    def score(self, X):
        x, expected = X.T.astype(np.float64)
        uplift = np.column_stack([100 * x, np.full(len(x), 50.0)])
        return Scores(1 / (1 + np.exp(x)), expected, uplift, *[np.zeros_like(uplift)] * 4)


@pytest.fixture(scope="module")
def trained():
    rng = np.random.default_rng(0)
    x, expected = rng.normal(size=N), rng.gamma(1.0, 3000.0, N)
    arm = rng.integers(0, 3, N)
    effect = np.choose(arm, [np.zeros(N), 100 * x, np.full(N, 50.0)])
    frame = pd.DataFrame(
        {
            "member_id": np.arange(N) // 2,
            "as_of": DAY,
            "x": x,
            "expected": expected,
            "treatment": np.array([CONTROL, "a", "b/ü"])[arm],
            "propensity": 1 / 3,
            "outcome": expected + effect + rng.normal(0, 100, N),
            "churned": (rng.random(N) < 1 / (1 + np.exp(x))).astype(float),
        }
    )
    log = ExperimentLog("randomised", OFFERS, frame, frame)
    prepared = SimpleNamespace(
        features=("x", "expected"), programme=Programme(), split=Split((), (DAY,)), part=lambda _: frame
    )
    scores = Known().score(frame[["x", "expected"]].to_numpy())
    policy = greedy(net_values(scores.uplift, np.array([offer.contact_cost for offer in OFFERS])))
    judged = judge_policies(frame, scores, {"a": 0.0, "b/ü": 50.0}, offers=OFFERS, policy=policy, champion=None)
    return Trained(prepared, log, Known(), {}, judged, foreknown=())


@pytest.fixture(scope="module")
def table(trained):
    return uplift_table(trained, np.random.default_rng(1))


def test_each_offer_is_judged_beside_the_ranking_by_churn_and_chance(table):
    assert list(table) == ["a", "b/ü"]
    for row in table.values():
        assert list(row.rows) == [MODEL, BY_CHURN, RANDOM]
        assert list(row.rows[BY_CHURN]) == list(RANKING_METRICS)
        assert list(row.lead) == [BY_CHURN, RANDOM]


def test_the_effects_in_it_are_the_known_ones(table):
    found = table["a"].rows[MODEL]
    # a standard normal x has the mean φ(1.2816) / 0.1 = 1.755 among the top tenth, φ(0.5244) / 0.3 = 1.159 among 30 %
    for metric, effect in (("uplift_at_10", 175.5), ("uplift_at_30", 115.9)):
        assert found[metric].lower < effect < found[metric].upper
    assert table["a"].lead[BY_CHURN].lower > 0  # who stays gains most: ranking by churn is exactly backwards
    assert table["a"].rows[BY_CHURN]["qini_coefficient"].upper < 0
    everybody = table["b/ü"].rows[MODEL]["uplift_at_10"]
    assert everybody.lower < 50 < everybody.upper
    assert table["b/ü"].rows[MODEL]["qini_coefficient"].value == 0


def test_what_was_promised_comes_tenth_by_tenth(table):
    bins = table["a"].calibration
    assert len(bins) == 10  # 2,000 rows an arm
    hit = [one.actual.lower <= one.predicted <= one.actual.upper for one in bins]
    assert sum(hit) >= 8  # of ten at 95 %, fewer than eight happen once in a hundred times
    assert len(table["b/ü"].calibration) == 1


def test_fewer_rows_make_fifths(trained):
    few = replace(trained, log=replace(trained.log, test=trained.log.test.iloc[:1500]))
    assert len(uplift_table(few, np.random.default_rng(1))["a"].calibration) == 5


def test_less_what_was_expected_an_effect_is_the_same_and_surer(trained, table):
    wild = replace(trained, models=SimpleNamespace(score=_expecting_nothing))
    plain = uplift_table(wild, np.random.default_rng(1))["a"].rows[MODEL]["qini_coefficient"]
    kept = table["a"].rows[MODEL]["qini_coefficient"]
    assert kept.upper - kept.lower < (plain.upper - plain.lower) / 5  # noise of 100 instead of 3,000
    assert plain.lower < kept.value < plain.upper


def _expecting_nothing(X):
    return replace(Known().score(X), value=np.zeros(len(X)))


def test_who_got_another_offer_is_no_control(trained):
    frame, came = trained.log.test, tried(trained)["a"]
    rows = frame["treatment"].isin([CONTROL, "a"]).to_numpy()
    assert came.treated.sum() == (frame["treatment"] == "a").sum()
    assert came.members.tolist() == frame.loc[rows, "member_id"].tolist()
    assert came.outcome == pytest.approx((frame["outcome"] - frame["expected"])[rows], abs=1e-3)  # features are float32
    assert qini_coefficient(came.outcome, came.uplift, came.treated) > 0
    assert len(later_part(trained)) == N


def test_without_offers_there_is_no_table(trained):
    assert uplift_table(replace(trained, log=ExperimentLog("none")), np.random.default_rng(1)) == {}


def test_the_log_s_overlap_with_the_policy_is_said_by_treatment(trained):
    overlap = trained.judgement.overlap
    assert list(overlap) == [CONTROL, "a", "b/ü"]
    shares = [seen["policy_share"] for seen in overlap.values()]
    assert sum(shares) == pytest.approx(1)
    # a where 100 x - 10 is above 40, which is x > 0.5, else b; nobody gets nothing
    assert shares == pytest.approx([0, 0.3085, 0.6915], abs=4 * np.sqrt(0.21 / N))
    assert overlap[CONTROL]["reached"] is overlap[CONTROL]["thin_share"] is None
    assert overlap["a"]["reached"] == pytest.approx(1, abs=4 * np.sqrt(2 / (0.3085 * N)))


def test_every_picture_has_a_name_of_its_own_and_is_drawn_alike_again(trained, table):
    drawn = pictures(trained, table, np.random.default_rng(2))
    assert list(drawn) == [
        "churn_reliability.png",
        "uplift_1_a.png",
        "uplift_calibration_1_a.png",
        "uplift_2_b_.png",
        "uplift_calibration_2_b_.png",
        "policies.png",
    ]
    assert len(set(drawn.values())) == len(drawn)
    assert all(png.startswith(b"\x89PNG") for png in drawn.values())
    assert pictures(trained, table, np.random.default_rng(2)) == drawn


def test_without_offers_churn_alone_is_drawn(trained):
    none = replace(trained, log=ExperimentLog("none"), judgement=None)
    assert list(pictures(none, {}, np.random.default_rng(2))) == ["churn_reliability.png"]
