import numpy as np
import pytest

from training.judging.estimators import Log
from training.judging.tables import CHURN_METRICS, VALUE_METRICS, judge_churn, judge_uplift, judge_value
from training.judging.uplift_metrics import RANKING_METRICS, qini_coefficient, uplift_calibration_error
from training.metrics import Estimate, auc, mean_absolute_error

N_MEMBERS = 400
MEMBERS = np.repeat(np.arange(N_MEMBERS), 3)


@pytest.fixture(scope="module")
def scored():
    rng = np.random.default_rng(0)
    p = rng.beta(1.5, 4, len(MEMBERS))
    churned = (rng.random(len(p)) < p).astype(np.float64)
    worse = np.clip(p + rng.normal(0, 0.2, len(p)), 0.01, 0.99)
    return churned, {"model": p, "copy": p.copy(), "worse": worse, "visits": -10 * p + rng.normal(0, 3, len(p))}


@pytest.fixture(scope="module")
def judged(scored):
    churned, predictions = scored
    return judge_churn(churned, predictions, MEMBERS, np.random.default_rng(1))


def test_every_rival_stands_in_the_table_with_every_metric_and_its_interval(judged, scored):
    assert list(judged.rows) == ["model", "copy", "worse", "visits"]
    for name in ("model", "copy", "worse"):
        assert list(judged.rows[name]) == list(CHURN_METRICS)
        for metric, estimate in judged.rows[name].items():
            assert estimate.lower < estimate.upper
            assert estimate.n == len(MEMBERS)
            assert estimate.value == pytest.approx(CHURN_METRICS[metric](scored[0], scored[1][name]))


def test_a_score_that_is_no_probability_is_judged_by_its_ranking_alone(judged):
    assert list(judged.rows["visits"]) == ["auc", "average_precision", "lift"]


def test_a_copy_of_the_model_is_led_by_exactly_nothing(judged):
    assert judged.lead["copy"] == Estimate(0.0, 0.0, 0.0, len(MEMBERS))
    assert list(judged.lead) == ["copy", "worse", "visits"]


def test_a_lead_is_the_difference_in_auc_and_above_0_for_the_better(judged, scored):
    churned, predictions = scored
    for rival in ("worse", "visits"):
        wanted = auc(churned, predictions["model"]) - auc(churned, predictions[rival])
        assert judged.lead[rival].value == pytest.approx(wanted)
        assert judged.lead[rival].lower > 0


def test_the_same_stream_gives_the_same_table(judged, scored):
    assert judge_churn(*scored, MEMBERS, np.random.default_rng(1)) == judged


def test_more_rows_of_the_same_members_are_no_more_evidence(scored):
    churned, predictions = scored
    once = {name: predictions[name] for name in ("model", "worse")}
    thrice = {name: np.tile(values, 3) for name, values in once.items()}
    tables = [
        judge_churn(churned, once, MEMBERS, np.random.default_rng(2)),
        judge_churn(np.tile(churned, 3), thrice, np.tile(MEMBERS, 3), np.random.default_rng(2)),
    ]
    # the same draws of the same members
    for shown in (lambda table: table.rows["model"]["auc"], lambda table: table.lead["worse"]):
        few, many = map(shown, tables)
        assert (many.value, many.lower, many.upper) == pytest.approx((few.value, few.lower, few.upper))


def test_values_are_judged_likewise_and_a_lead_below_0_is_an_error_made_smaller():
    rng = np.random.default_rng(3)
    expected = rng.gamma(2, 1000, len(MEMBERS))
    margin = rng.poisson(expected).astype(np.float64)
    predictions = {
        "model": expected,
        "copy": expected.copy(),
        "last period": expected + rng.normal(0, 300, len(expected)),
    }
    judged = judge_value(margin, predictions, MEMBERS, np.random.default_rng(4))
    assert list(judged.rows) == list(predictions)
    for name, row in judged.rows.items():
        assert list(row) == list(VALUE_METRICS)
        for metric, estimate in row.items():
            assert estimate.value == pytest.approx(VALUE_METRICS[metric](margin, predictions[name]))
            assert estimate.lower < estimate.value < estimate.upper
    assert judged.lead["copy"] == Estimate(0.0, 0.0, 0.0, len(MEMBERS))
    gap = mean_absolute_error(margin, expected) - mean_absolute_error(margin, predictions["last period"])
    assert judged.lead["last period"].value == pytest.approx(gap)
    assert judged.lead["last period"].upper < 0


@pytest.fixture(scope="module")
def experiment():
    """Offer a has effect x, offer b has 0.5 for everybody; treatment depends on x, by known propensities."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=len(MEMBERS))
    chance = np.column_stack([np.full(len(x), 1 / 3), np.where(x > 0, 0.5, 0.25), np.where(x > 0, 1 / 6, 5 / 12)])
    arm = (rng.random(len(x))[:, None] > chance.cumsum(axis=1)).sum(axis=1)
    outcome = 2 * x + np.choose(arm, [np.zeros(len(x)), x, np.full(len(x), 0.5)]) + rng.normal(size=len(x))
    log = Log(arm, chance[np.arange(len(x)), arm], outcome, np.zeros(3), MEMBERS)
    uplift = np.column_stack([x, np.full(len(x), 0.5)])
    return log, {"model": uplift, "one learner": -uplift, "churn": -x}


@pytest.fixture(scope="module")
def judged_uplift(experiment):
    return judge_uplift(*experiment, offers=("a", "b"), rng=np.random.default_rng(6))


def test_uplift_is_judged_offer_by_offer_beside_its_rivals_and_chance(judged_uplift, experiment):
    log, predictions = experiment
    assert list(judged_uplift) == ["a", "b"]
    judged = judged_uplift["a"]
    assert list(judged.rows) == ["model", "one learner", "churn", "random"]
    rows = log.treatment < 2
    data = (log.outcome[rows], predictions["model"][rows, 0], log.treatment[rows])
    weight = 1 / log.propensity[rows]
    qini = judged.rows["model"]["qini_coefficient"]
    assert qini.value == pytest.approx(qini_coefficient(*data, weight=weight))
    assert (qini.lower < qini.value < qini.upper, qini.n) == (True, rows.sum())
    calibration = judged.rows["model"]["uplift_calibration_error"]
    assert calibration.value == pytest.approx(uplift_calibration_error(*data, weight=weight, bins=5))
    assert judged.rows["random"]["qini_coefficient"].value == 0


def test_a_ranking_that_promises_nothing_is_judged_by_its_order_alone(judged_uplift):
    rows = judged_uplift["a"].rows
    assert list(rows["churn"]) == list(rows["random"]) == list(RANKING_METRICS)
    assert list(rows["model"]) == list(rows["one learner"]) == [*RANKING_METRICS, "uplift_calibration_error"]


def test_the_lead_in_uplift_is_paired_and_has_its_sign(judged_uplift):
    lead, rows = judged_uplift["a"].lead, judged_uplift["a"].rows
    qini = {name: row["qini_coefficient"] for name, row in rows.items()}
    for rival in ("one learner", "churn", "random"):
        assert lead[rival].value == pytest.approx(qini["model"].value - qini[rival].value)
        assert lead[rival].lower > 0
    # Both rank exactly backwards: twins on every draw.
    assert lead["one learner"] == lead["churn"]
    flat = judged_uplift["b"]
    assert flat.lead["random"] == Estimate(0.0, 0.0, 0.0, flat.lead["random"].n)
