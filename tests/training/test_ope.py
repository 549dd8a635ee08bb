from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chisquare

from features.errors import ContractError
from training import ope
from training.judging import estimators, evidence
from training.judging.estimators import Log
from training.logged.balance import sample_ratio_p
from training.logged.overlap import overlap
from training.metrics import Estimate
from training.policy import MODEL, treatment_probabilities
from training.policy import draw as draw_treatment

COST = np.array([0.0, 5.0, 20.0])


def world(rng, n_members, *, rows=1, heterogeneous=True, exploration=0.5):
    """A bandit with known truth: three treatments, two kinds of member, `rows` decisions on each.

    Returns the log, the mean outcome of each treatment (n, 3), and the policy that is best in truth.
    """
    kind = np.repeat(rng.random(n_members) < 0.4, rows)
    lift = np.where(kind[:, None], [0.0, 40.0, 0.0], [0.0, 0.0, 60.0]) if heterogeneous else np.array([[0.0, 20, 0]])
    mean = 100 + 50 * kind[:, None] + lift
    net, everybody = (mean - COST)[:, 1:] - mean[:, :1], np.ones((len(kind), 2), bool)
    guess = rng.normal(0, 30, net.shape)  # the logging policy knows nothing
    logging = treatment_probabilities(guess, everybody, np.full(len(kind), MODEL), exploration=exploration)
    treatment = draw_treatment(logging, rng.random(len(kind)))
    each = np.arange(len(kind))
    # what a member's rows share, and what they don't
    noise = np.repeat(rng.normal(0, 30, n_members), rows) + rng.normal(0, 30, len(kind))
    member_ids = np.repeat(np.arange(n_members), rows)
    log = Log(treatment, logging[each, treatment], mean[each, treatment] + noise, COST, member_ids)
    best = treatment_probabilities(net, everybody, np.full(len(kind), MODEL), exploration=0.0)
    return log, mean, best


# In `world`, the best policy sends offer 1 to 40 % (150 + 40 - 5) and offer 2 to 60 % (100 + 60 - 20).
TRUTH = 0.4 * 185 + 0.6 * 140


def covers(runs, hits):
    """Whether so many hits in so many runs are those of an interval that covers in 93 to 97 of 100."""
    return binom.cdf(hits, runs, 0.93) > 1e-3 and binom.sf(hits - 1, runs, 0.97) > 1e-3


def done_in_the_head():
    # Two treatments, evenly drawn; the policy sends the offer to the first two members and nothing to the others.
    log = Log(
        treatment=np.array([1, 0, 0, 1]),
        propensity=np.full(4, 0.5),
        outcome=np.array([12.0, 4.0, 6.0, 9.0]),
        contact_cost=np.array([0.0, 2.0]),
        member_ids=["a", "b", "c", "d"],
    )
    policy = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    q = np.array([[5.0, 10.0]] * 4)
    return log, policy, q


def test_every_estimator_done_in_the_head():
    log, policy, q = done_in_the_head()
    # Weights: 2, 0, 2, 0. Rewards: 10, 4, 6, 7.
    assert estimators.importance_weights(log, policy).tolist() == [2, 0, 2, 0]
    assert estimators.ips(log, policy).tolist() == [20, 0, 12, 0]
    # Σ w r / Σ w = 32 / 4 = 8; terms 8 + w (r - 8) / 1.
    assert estimators.snips(log, policy).tolist() == [12, 8, 4, 8]
    # The model says 10 - 2 = 8 for the offer and 5 for control.
    assert estimators.dm(log, policy, q).tolist() == [8, 8, 5, 5]
    # Its errors on the rows that count: 12 - 10 = 2 and 6 - 5 = 1, each twice.
    assert estimators.dr(log, policy, q).tolist() == [12, 8, 7, 5]
    # Mean 8, squares 16 + 0 + 1 + 9, so se² = 4/3 · 26 / 16; Student's quantile of 3 degrees is 3.18.
    estimate = evidence.estimate(estimators.dr(log, policy, q), log.member_ids)
    assert (estimate.value, estimate.n) == (8, 4)
    assert estimate.upper - 8 == pytest.approx(3.182446 * np.sqrt(4 / 3 * 26) / 4)
    assert evidence.effective_sample_size(estimators.importance_weights(log, policy)) == 2


@pytest.mark.parametrize(
    "estimator",
    [
        lambda log, policy, _: estimators.ips(log, policy),
        lambda log, policy, _: estimators.snips(log, policy),
        estimators.dr,
        lambda log, policy, mean: estimators.dr(log, policy, mean * 0 + 70),  # a model that is wrong everywhere
    ],
    ids=["ips", "snips", "dr", "dr with a wrong model"],
)
@pytest.mark.parametrize("rows", [1, 4])
def test_intervals_cover_the_truth_as_often_as_they_say(estimator, rows):
    rng, runs, hits = np.random.default_rng(rows), 400, 0
    for _ in range(runs):
        log, mean, best = world(rng, 400, rows=rows)
        estimate = evidence.estimate(estimator(log, best, mean), log.member_ids)
        hits += estimate.lower <= TRUTH <= estimate.upper
    assert covers(runs, hits)


def test_intervals_that_forget_the_members_cover_too_seldom():
    rng, runs, hits = np.random.default_rng(9), 200, 0
    for _ in range(runs):
        log, mean, best = world(rng, 200, rows=6)
        hits += (e := evidence.estimate(estimators.dr(log, best, mean), np.arange(len(log)))).lower <= TRUTH <= e.upper
    assert hits / runs < 0.9


def test_a_paired_difference_covers_its_truth_and_is_narrower_than_unpaired():
    rng, runs, hits = np.random.default_rng(5), 400, 0
    narrow = []
    for _ in range(runs):
        log, mean, best = world(rng, 400)
        rival = ope.fixed(2, np.ones((len(log), 2), bool))
        ours, theirs = (estimators.dr(log, policy, mean + 25) for policy in (best, rival))
        difference = evidence.estimate(ours - theirs, log.member_ids)
        # The rival sends offer 2 to all: 0.4 · 130 + 0.6 · 140 = 136; ours is 158.
        hits += difference.lower <= TRUTH - 136 <= difference.upper
        apart = [evidence.estimate(terms, log.member_ids) for terms in (ours, theirs)]
        narrow.append(difference.upper - difference.lower < np.hypot(*(e.upper - e.lower for e in apart)))
    assert covers(runs, hits)
    assert np.mean(narrow) > 0.95


def test_four_times_the_data_halve_the_interval():
    rng = np.random.default_rng(7)
    widths = []
    for n in (4000, 16_000):
        log, mean, best = world(rng, n)
        estimate = evidence.estimate(estimators.dr(log, best, mean), log.member_ids)
        widths.append(estimate.upper - estimate.lower)
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.1)


def test_a_good_model_narrows_the_interval_and_a_wrong_one_misleads_only_the_direct_method():
    log, mean, best = world(np.random.default_rng(8), 20_000)
    width = {
        name: (e := evidence.estimate(terms, log.member_ids)).upper - e.lower
        for name, terms in {"dr": estimators.dr(log, best, mean), "ips": estimators.ips(log, best)}.items()
    }
    assert width["dr"] < width["ips"] / 2
    wrong = mean + np.array([0.0, 50.0, 50.0])
    direct = evidence.estimate(estimators.dm(log, best, wrong), log.member_ids)
    assert direct.lower > TRUTH + 40
    robust = evidence.estimate(estimators.dr(log, best, wrong), log.member_ids)
    assert abs(robust.value - TRUTH) < 4 * (robust.upper - robust.lower) / 3.92


def test_the_logging_policy_itself_is_worth_what_was_logged():
    log, mean, _ = world(np.random.default_rng(2), 5000, exploration=1.0)  # every treatment at one third
    itself = np.full((len(log), 3), 1 / 3)
    assert estimators.importance_weights(log, itself) == pytest.approx(1)
    assert estimators.ips(log, itself).mean() == pytest.approx(log.reward.mean())
    assert evidence.effective_sample_size(estimators.importance_weights(log, itself)) == pytest.approx(len(log))
    assert estimators.dr(log, itself, mean).mean() == pytest.approx(log.reward.mean(), abs=4 * 60 / np.sqrt(5000))


def test_snips_moves_with_the_rewards_and_ips_does_not():
    log, _, best = world(np.random.default_rng(2), 300)
    richer = Log(log.treatment, log.propensity, log.outcome + 1000, log.contact_cost, log.member_ids)
    assert estimators.snips(richer, best).mean() == pytest.approx(estimators.snips(log, best).mean() + 1000)
    gain = estimators.ips(richer, best).mean() - estimators.ips(log, best).mean()
    assert gain == pytest.approx(1000 * estimators.importance_weights(log, best).mean())


def test_the_table_knows_the_oracle_and_no_winner_on_noise():
    rng = np.random.default_rng(12)
    train, *_ = world(rng, 8000)
    log, mean, best = world(rng, 8000)
    everybody = np.ones((8000, 2), bool)
    choice = ope.choose_fixed(train, everybody)
    table = ope.compare(log, {"model": best, "oracle": best}, best_fixed=choice, eligible=everybody, q=mean)
    assert list(table) == ["no contact", "random", "best fixed offer", "model", "oracle"]
    # No contact 120; offer 1 to all: 136 - 5 = 131; offer 2: 136; random is their mean.
    truth = {"no contact": 120, "random": 133.5, "best fixed offer": 136, "model": TRUTH}
    assert choice == 2
    for name, value in truth.items():
        row = table[name]
        assert abs(row.policy_value.value - value) < 4 * (row.policy_value.upper - row.policy_value.lower) / 3.92
        assert row.policy_value.n == 8000
    assert table["no contact"].against_no_contact == Estimate(0.0, 0.0, 0.0, 8000)
    assert table["model"].against_best_fixed.lower > 0
    assert table["no contact"].contacted == 0
    assert table["model"].contacted == 1


def test_the_best_fixed_offer_is_found_with_and_without_a_model_and_respects_eligibility():
    log, mean, _ = world(np.random.default_rng(3), 6000, heterogeneous=False)  # offer 1 is worth 15, offer 2 costs 20
    everybody = np.ones((6000, 2), bool)
    assert ope.choose_fixed(log, everybody) == ope.choose_fixed(log, everybody, q=np.broadcast_to(mean, (6000, 3))) == 1
    nobody_gets_the_first = everybody & [False, True]
    policy = ope.fixed(1, nobody_gets_the_first)
    assert policy.tolist() == [[1.0, 0.0, 0.0]] * 6000


def test_random_and_fixed_policies_send_only_what_is_eligible():
    eligible = np.array([[True, True], [False, True], [False, False]])
    assert ope.uniform(eligible).tolist() == [[0, 0.5, 0.5], [0, 0, 1], [1, 0, 0]]
    assert ope.fixed(1, eligible).tolist() == [[0, 1, 0], [1, 0, 0], [1, 0, 0]]
    assert ope.fixed(0, eligible).tolist() == [[1, 0, 0]] * 3


def test_an_effect_of_the_smallest_detectable_size_is_found_four_times_in_five():
    rng, runs, found = np.random.default_rng(6), 500, 0
    error = 1 / np.sqrt(100)
    effect = evidence.smallest_detectable_effect(Estimate(0.0, -1.959964 * error, 1.959964 * error, 100))
    for _ in range(runs):
        found += evidence.estimate(rng.normal(effect, 1, 100), np.arange(100)).lower > 0
    assert found / runs == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / runs))


def test_the_sample_ratio_test_agrees_with_scipy_and_finds_cookie_cats():
    counts, shares = [812, 1105, 1083], [0.3, 0.35, 0.35]
    expected = chisquare(counts, 3000 * np.array(shares)).pvalue
    assert evidence.sample_ratio_mismatch(counts, shares) == pytest.approx(expected, rel=1e-9)
    # The public Cookie Cats A/B test: 44,700 and 45,489 players where halves were planned.
    assert evidence.sample_ratio_mismatch([44_700, 45_489], [0.5, 0.5]) == pytest.approx(0.00861, abs=5e-5)


@pytest.mark.real_data
def test_a_log_of_cookie_cats_says_that_its_arms_are_not_halves():
    path = Path(__file__).parents[3] / "shared/data/cookie_cats/cookie_cats.csv"
    if not path.exists():
        pytest.skip(f"{path} is not there; it may not be passed on")
    players = pd.read_csv(path)
    log = pd.DataFrame(
        {
            "treatment": players["version"].map({"gate_30": "control", "gate_40": "gate_40"}),
            "propensity": 0.5,
            "outcome": players["retention_7"].astype(float),
        }
    )
    table = ope.evaluate_policy(log, np.full(len(log), "gate_40"))
    p = chisquare(log["treatment"].value_counts()).pvalue
    assert table["sample_ratio_p"].to_numpy() == pytest.approx(p, rel=1e-9)
    assert p == pytest.approx(0.009, abs=5e-4)


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        ("propensity", np.array([0.5, 0.0, 0.5, 0.5]), r"1 propensities outside \(0, 1\]"),
        ("propensity", np.array([0.5, np.nan, 0.5, 1.5]), r"2 propensities outside \(0, 1\]"),
        ("outcome", np.array([1.0, np.inf, 0.0, 0.0]), "no finite number"),
        ("treatment", np.array([0, 1, 2, 0]), "outside 0 to 1"),
        ("treatment", np.array([0, 1]), r"columns of \[2, 4\] rows"),
    ],
)
def test_a_log_from_which_nothing_follows_is_refused(column, value, match):
    log, *_ = done_in_the_head()
    columns = {name: getattr(log, name) for name in Log.__dataclass_fields__}
    with pytest.raises(ContractError, match=match):
        Log(**columns | {column: value})


def test_a_policy_of_another_shape_is_refused():
    log, *_ = done_in_the_head()
    with pytest.raises(ContractError, match=r"\(4, 2\) was wanted"):
        estimators.ips(log, np.ones((4, 3)) / 3)


def test_predictions_that_are_missing_are_refused():
    log, policy, q = done_in_the_head()
    with pytest.raises(ContractError, match="finite ones"):
        estimators.dr(log, policy, q * np.nan)


def test_a_policy_the_log_never_followed_has_no_value():
    log, *_ = done_in_the_head()
    never = np.eye(2)[1 - log.treatment]
    with pytest.raises(ContractError, match="nothing is known of it"):
        estimators.snips(log, never)


def logged(n=4000, seed=0):
    """A plain frame of an experiment on two kinds of member: offer a suits one kind, offer b the other."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(["home", "abroad"], n)
    treatment = rng.choice(["control", "a", "b"], n, p=[0.5, 0.25, 0.25])
    suits = np.where(kind == "home", treatment == "a", treatment == "b")
    return pd.DataFrame(
        {
            "member_id": rng.permutation(n),
            "kind": kind,
            "treatment": treatment,
            "propensity": np.where(treatment == "control", 0.5, 0.25),
            "outcome": 100.0 + 40 * suits + 30 * (kind == "home") + rng.normal(0, 20, n),
        }
    )


COSTS = {"a": 10.0, "b": 10.0}
# everybody gets what suits them: 40 - 10; one offer for all suits half: 20 - 10; at random one of two: 20 - 10


@pytest.mark.parametrize("estimator", ["dr", "snips", "ips", "dm"])
def test_a_policy_on_a_plain_frame_stands_beside_its_rivals(estimator):
    log = logged()
    table = ope.evaluate_policy(
        log, np.where(log["kind"] == "home", "a", "b"), features=["kind"], contact_cost=COSTS
    ).xs(estimator, level="estimator")
    assert list(table.index) == [ope.NO_CONTACT, ope.RANDOM, ope.BEST_FIXED, ope.GIVEN]
    truth = {ope.NO_CONTACT: 0.0, ope.RANDOM: 10.0, ope.BEST_FIXED: 10.0, ope.GIVEN: 30.0}
    for name, gain in truth.items():
        row = table.loc[name]
        error = (row["against_no_contact_upper"] - row["against_no_contact_lower"]) / 3.92
        assert abs(row["against_no_contact"] - gain) <= 4 * error + (1.5 if estimator == "dm" else 0)
        assert row["policy_value"] == pytest.approx(115 + gain, abs=12)
    assert table.loc[ope.GIVEN, "against_best_fixed_lower"] > 10
    assert table.loc[ope.NO_CONTACT, "contacted"] == 0


def test_the_doubly_robust_interval_is_the_narrowest():
    log = logged()
    table = ope.evaluate_policy(log, np.where(log["kind"] == "home", "a", "control"), features=["kind"])
    width = (table["policy_value_upper"] - table["policy_value_lower"]).xs(ope.GIVEN)
    assert width["dr"] < width["snips"] < width["ips"]


def test_without_effects_the_best_fixed_offer_does_not_win_by_luck():
    # 60 logs of nothing, ten offers: chosen on the rows it is judged on, the best would seem to earn a lot
    rng = np.random.default_rng(7)
    gains = []
    for _ in range(60):
        n = 400
        log = pd.DataFrame({"treatment": rng.choice(["control", *"abcdefghij"], n), "propensity": 1 / 11})
        log["outcome"] = rng.normal(0, 1, n)
        gains.append(ope.evaluate_policy(log, np.full(n, "a")).loc[(ope.BEST_FIXED, "ips"), "policy_value"])
    assert abs(np.mean(gains)) < 4 * np.std(gains) / np.sqrt(len(gains))


def test_probabilities_come_as_a_frame_and_what_was_never_tried_is_not_known():
    log = logged(400)
    half = pd.DataFrame({"control": 0.5, "a": 0.5}, index=log.index)
    assert ope.evaluate_policy(log, half).loc[(ope.GIVEN, "ips"), "contacted"] == 0.5
    table = ope.evaluate_policy(log, np.full(400, "c"), contact_cost={"c": 1.0})
    assert table.loc[ope.GIVEN, "policy_value"].isna().all()
    assert table.loc[ope.BEST_FIXED, "policy_value"].notna().all()
    assert (table.loc[ope.GIVEN, "effective_sample_size"] == 0).all()


@pytest.mark.parametrize(
    ("spoil", "policy", "said"),
    [
        (lambda log: log.drop(columns="propensity"), "a", r"lacks \['propensity'\]"),
        (lambda log: log.assign(propensity=0.0), "a", "propensities outside"),
        (lambda log: log.assign(propensity=np.nan), "a", "propensities outside"),
        (lambda log: log.assign(outcome=np.inf), "a", "outcome"),
        (lambda log: log.assign(treatment="control"), "control", "at least one offer"),
        (lambda log: log, "z", "'z'"),
        (lambda log: log.iloc[:0], "a", "at least one"),
        (lambda log: log.assign(outcome=np.nan), "a", "no finite number"),
        (lambda log: log.assign(member_id=1), "a", "at least two members"),
        (lambda log: log.assign(decision_id=[*range(58), 7, 8]), "a", "2 rows of decisions that are there already"),
    ],
)
def test_a_frame_from_which_nothing_can_be_estimated_is_refused(spoil, policy, said):
    log = spoil(logged(60))
    with pytest.raises(ContractError, match=said):
        ope.evaluate_policy(log, np.full(len(log), policy))


def test_each_interval_stands_twice_beside_what_the_log_could_detect():
    log = logged()
    table = ope.evaluate_policy(log, np.where(log["kind"] == "home", "a", "b"), contact_cost=COSTS)
    for measure in ope.MEASURES:
        asymptotic, resampled = (
            table[f"{measure}{kind}_upper"] - table[f"{measure}{kind}_lower"] for kind in ("", "_bootstrap")
        )
        assert resampled.to_numpy() == pytest.approx(asymptotic.to_numpy(), rel=0.12, abs=1e-9)
        assert (table[f"{measure}_bootstrap_lower"] <= table[measure]).all()
        assert (table[measure] <= table[f"{measure}_bootstrap_upper"]).all()
    width = table["against_best_fixed_upper"] - table["against_best_fixed_lower"]
    assert table["smallest_detectable_effect"].to_numpy() == pytest.approx(width * 2.8016 / 3.9199, rel=1e-3)
    assert table["sample_ratio_p"].between(0.001, 1).all()


def test_a_difference_is_resampled_pair_by_pair_and_by_member():
    log, _, best = world(np.random.default_rng(4), 3000, rows=3)
    rival = ope.fixed(2, np.ones((len(log), 2), bool))
    ours, theirs = (estimators.snips(log, policy) for policy in (best, rival))
    columns = np.column_stack([ours - theirs, ours, theirs, ours - ours])
    paired, *apart, nothing = evidence.bootstrap(columns, log.member_ids, rng=np.random.default_rng(0))
    width = [found.upper - found.lower for found in (paired, *apart)]
    assert width[0] < np.hypot(*width[1:])
    by_theory = evidence.estimate(ours - theirs, log.member_ids)
    assert width[0] == pytest.approx(by_theory.upper - by_theory.lower, rel=0.1)
    forgetful, *_ = evidence.bootstrap(columns, np.arange(len(log)), rng=np.random.default_rng(0))
    assert forgetful.upper - forgetful.lower != pytest.approx(width[0], rel=1e-3)
    assert nothing == Estimate(0.0, 0.0, 0.0, len(log))


def test_of_many_members_groups_are_drawn_to_the_same_interval():
    terms = np.random.default_rng(3).lognormal(size=(40_000, 1))
    by_theory = evidence.estimate(terms[:, 0], np.arange(40_000))
    (found,) = evidence.bootstrap(terms, np.arange(40_000), rng=np.random.default_rng(0))
    # 1,000 resamples know the width to about 3 %, 10,000 groups of members to 1 %
    assert found.upper - found.lower == pytest.approx(by_theory.upper - by_theory.lower, rel=0.1)


def test_where_one_carries_the_mean_resampled_intervals_reach_further():
    rng = np.random.default_rng(6)
    columns = np.column_stack([rng.normal(size=200), np.r_[30.0, np.zeros(199)]])
    normal, lone = evidence.bootstrap(columns, np.arange(200), rng=rng, n_resamples=4000)
    assert normal.upper - normal.lower == pytest.approx(2 * 1.97 * columns[:, 0].std() / np.sqrt(200), rel=0.05)
    # by Poisson's law the one is drawn more than 3 times in 1.9 % of draws, so a plain percentile stops at 3
    assert lone.upper > 30 * 3 / 200


def test_a_treatment_that_hardly_anybody_got_is_not_known_and_spoils_nothing_else():
    log = logged(600)
    log.loc[0, ["treatment", "propensity", "outcome"]] = ["c", 0.01, 1e6]  # so lucky that it would seem the best
    for features in ([], ["kind"]):
        table = ope.evaluate_policy(log, np.full(600, "c"), features=features)
        assert table.loc[ope.GIVEN, "policy_value"].isna().all()
        rest = table.loc[[ope.NO_CONTACT, ope.BEST_FIXED], ["policy_value", "against_best_fixed_lower"]]
        assert rest.notna().all(axis=None)


def test_a_log_without_an_offer_that_members_got_has_no_best_one():
    log, *_ = world(np.random.default_rng(0), 12)
    with pytest.raises(ContractError, match="no offer went to 10 members"):
        ope.choose_fixed(log, np.ones((12, 2), bool))


def test_the_overlap_of_each_treatment_done_in_the_head():
    log = pd.DataFrame(
        {
            "treatment": ["control", "control", "a", "a", "b"],
            "propensity": [0.5, 0.5, 0.25, 0.005, 0.5],
            "outcome": 1.0,
        }
    )
    found = overlap(log, pd.DataFrame({"a": [1.0, 0.0, 0.5, 0.5, 0.0], "c": [0.0, 1.0, 0.5, 0.5, 1.0]}))
    assert list(found.index) == ["control", "a", "b", "c"]
    assert found["rows"].tolist() == [2, 2, 1, 0]
    assert found["policy_share"].tolist() == [0, 0.4, 0, 0.6]
    # The weights of a are 0.5 / 0.25 and 0.5 / 0.005: the second is nearly all there is.
    assert found["effective_sample_size"].tolist() == pytest.approx([0, 102**2 / (2**2 + 100**2), 0, 0])
    assert found["largest_weight"].tolist() == pytest.approx([0, 100, 0, 0])
    assert found.loc[["a", "c"], "reached"].tolist() == pytest.approx([102 / 2, 0])
    assert found.loc[["a", "c"], "thin_share"].tolist() == [1, 1]
    assert found.loc[["control", "b"], ["reached", "thin_share"]].isna().all(axis=None)


def test_what_could_not_be_reached_shows_in_the_overlap():
    rng, n = np.random.default_rng(1), 20_000
    may = rng.random(n) < 0.6  # the others never get the offer
    got = may & (rng.random(n) < 0.5)
    propensity = np.where(may, 0.5, 1.0)
    log = pd.DataFrame({"treatment": np.where(got, "a", "control"), "propensity": propensity, "outcome": 0.0})
    assert overlap(log, np.full(n, "a")).loc["a", "reached"] == pytest.approx(0.6, abs=0.03)
    reached = overlap(log, np.where(may, "a", "control"))["reached"]
    assert reached.tolist() == pytest.approx([1, 1], abs=0.03)


@pytest.mark.parametrize(
    ("propensity", "low", "high"),
    [
        ([0.5, 0.25, 0.25], 0.001, 1.0),
        ([0.25, 0.5, 0.25], 0.0, 1e-6),  # written to the wrong treatments
        ([0.4, 0.2, 0.2], 0.0, 1e-6),  # a treatment of 0.2 was never seen
        ([0.5, 0.5, 0.5], 0.0, 0.0),  # no plan
    ],
)
def test_treatments_come_as_often_as_their_propensities_say(propensity, low, high):
    log = logged()
    log["propensity"] = log["treatment"].map(dict(zip(["control", "a", "b"], propensity, strict=True)))
    found = ope.evaluate_policy(log, np.full(len(log), "a"))["sample_ratio_p"]
    assert found.between(low, high).all()


def test_a_plan_that_differs_between_rows_is_tested_too_and_certain_rows_are_not():
    rng, p = np.random.default_rng(0), []
    for _ in range(200):
        log, *_ = world(rng, 500)
        p.append(sample_ratio_p(log))
    assert np.mean(np.array(p) < 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)  # Bonferroni errs on this side
    certain = rng.random(len(log)) < 0.2  # a hold-out group
    held_out = replace(
        log, treatment=np.where(certain, 0, log.treatment), propensity=np.where(certain, 1.0, log.propensity)
    )
    assert sample_ratio_p(held_out) == sample_ratio_p(log.take(~certain)) > 1e-3
    halved = log.propensity * np.where(log.treatment == 2, 0.5, 1.0)  # as if it had been drawn half as often as it was
    assert sample_ratio_p(replace(log, propensity=halved)) < 1e-6


@st.composite
def logs_and_policies(draw):
    """Any randomised log of two offers on a few members, and two policies on it."""
    n = draw(st.integers(4, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logging, *policies = (rng.dirichlet(np.ones(3) * draw(st.sampled_from([0.3, 1.0, 5.0])), n) for _ in range(3))
    logging = 0.9 * logging + 0.1 / 3
    treatment = draw_treatment(logging, rng.random(n))
    members = np.concatenate([[0, 1], rng.integers(0, draw(st.integers(2, 10)), n - 2)])
    return Log(treatment, logging[np.arange(n), treatment], rng.lognormal(3, 1, n), COST, members), policies


@given(logs_and_policies(), st.floats(0, 1), st.floats(-50, 50))
def test_a_mixture_of_policies_is_worth_the_mixture_of_their_values(case, share, level):
    log, (one, other) = case
    q = np.full((len(log), 3), level)
    for value in (estimators.ips, lambda *of: estimators.dm(*of, q), lambda *of: estimators.dr(*of, q)):
        mixed = value(log, share * one + (1 - share) * other)
        assert mixed == pytest.approx(share * value(log, one) + (1 - share) * value(log, other), abs=1e-6)


@given(logs_and_policies(), st.floats(-1e4, 1e4), st.floats(0.01, 100))
def test_intervals_move_and_stretch_with_their_terms_and_hold_the_mean(case, shift, scale):
    log, (policy, _) = case
    terms = estimators.ips(log, policy)
    columns = np.column_stack([terms, shift + scale * terms])
    resampled = evidence.bootstrap(columns, log.member_ids, rng=np.random.default_rng(0), n_resamples=200)
    asymptotic = [evidence.estimate(column, log.member_ids) for column in columns.T]
    for plain, moved in (resampled, asymptotic):
        assert [moved.value, moved.lower, moved.upper] == pytest.approx(
            [shift + scale * each for each in (plain.value, plain.lower, plain.upper)], rel=1e-6, abs=1e-6
        )
        assert plain.lower <= plain.upper
    assert asymptotic[0].lower <= asymptotic[0].value <= asymptotic[0].upper


@given(logs_and_policies())
def test_the_overlap_accounts_for_every_row_and_all_of_the_policy(case):
    log, (policy, _) = case
    names = np.array(["control", "a", "b"])
    frame = pd.DataFrame({"treatment": names[log.treatment], "propensity": log.propensity, "outcome": 0.0})
    found = overlap(frame, pd.DataFrame(policy, columns=names)).loc[names]
    weights = estimators.importance_weights(log, policy)
    assert found["rows"].sum() == len(log)
    assert found["policy_share"].sum() == pytest.approx(1)
    assert found["largest_weight"].max() == pytest.approx(weights.max())
    assert (found["reached"] * found["policy_share"]).sum() == pytest.approx(weights.mean())
    assert (found["effective_sample_size"] <= found["rows"] + 1e-9).all()
    assert found["thin_share"].between(0, 1).all()
