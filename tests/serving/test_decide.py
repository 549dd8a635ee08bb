from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.log.standing import nobody_contacted
from serving.batch.prices import claims_of, price
from serving.decide import Decider, Occasion, Purse, Worth
from serving.explain import Explainer
from serving.record import Request, blank_file, open_file, record
from training.calibration import logit
from training.learning.effects import EffectBands
from training.policy import HELD_OUT
from training.prediction import contributions

NOW = datetime(2017, 12, 1, 12, tzinfo=UTC)


@pytest.fixture
def decide(decider, members):
    return partial(_decide, decider, members)


def _decide(decider, members, member_ids, uniform=0.5, *, asked=None, now=NOW, purse=None):
    """Decide for members of whom nobody was contacted before."""
    n, offers = len(member_ids), len(decider.release.offer_ids)
    features = members.online(member_ids, decider.release.feature_names, facts=decider.facts)
    file = open_file(decider, features, nobody_contacted(n, offers))
    return draw(decider, file, np.broadcast_to(uniform, n), occasion(decider, asked=asked, now=now, purse=purse))


def occasion(decider, *, asked=None, now=NOW, purse=None):
    plenty = Purse(np.inf, decider.stock, 0.0, np.zeros(len(decider.release.offer_ids)))
    return Occasion(now, "c", asked, purse or plenty)


def draw(decider, file, uniform, when):
    worth = decider.weigh(file.members, when.campaign_id)
    choice = decider.choose(file.members, worth, occasion=when, uniform=uniform)
    n = len(uniform)
    request = Request(when, uniform, ({},) * n, (None,) * n, iter(map(str, range(10**6))).__next__)
    return record(decider, file, worth=worth, choice=choice, request=request)


def test_the_logged_propensity_is_the_frequency(decider, decide):
    draws = 20_000
    (one,) = decide(["m1"])
    wanted = np.array(one.probabilities)
    many = decide(["m1"] * draws, np.random.default_rng(1).random(draws))
    for index, treatment in enumerate(decider.treatments):
        frequency = sum(one.treatment == treatment for one in many) / draws
        error = np.sqrt(wanted[index] * (1 - wanted[index]) / draws)
        assert abs(frequency - wanted[index]) <= 4.5 * error, treatment
    assert all(one.propensity == wanted[decider.treatments.index(one.treatment)] for one in many)


def test_a_held_out_member_is_control_whatever_is_drawn(decide, held_out):
    uniform = np.linspace(0, 0.999, len(held_out))
    for one in decide(held_out, uniform):
        assert (one.treatment, one.propensity, one.outcome) == ("control", 1.0, "hold_out")
        assert one.churn_probability is not None  # scored all the same: promised and realised are compared on them


def test_an_offer_is_eligible_only_while_it_is_valid_and_asked_for(decider, decide):
    assert decider.treatments == ("control", "A", "B", "OLD")
    assert decide(["m1"])[0].refusals == ("", "", "validity")
    assert decide(["m1"], asked=("B",))[0].refusals == ("not_asked", "", "not_asked")
    assert not any(decide(["m1"], now=NOW + timedelta(days=365))[0].eligible)
    ends = decide(["m1"], now=NOW.replace(year=2018, month=1, day=1, hour=0))
    assert not any(ends[0].eligible)  # valid_until itself is too late


def test_who_can_not_be_scored_gets_control_and_leaves_the_others_alone(decide):
    together = decide(["m1", "nobody", "infinite", "m2"])
    alone = decide(["m1", "m2"])
    reasons = [one.fallback_reason for one in together]
    assert reasons == [None, "unknown_member", "features_invalid", None]
    for one in together[1:3]:
        assert (one.outcome, one.treatment, one.propensity, one.uplift) == ("fallback", "control", 1.0, ())
    for mixed, single in zip((together[0], together[3]), alone, strict=True):
        assert replace(mixed, decision_id="") == replace(single, decision_id="")


def test_the_best_offer_in_net_value_is_the_likeliest(decider, decide):
    for one in decide([f"m{i}" for i in range(100)]):
        if one.outcome != "model":
            continue
        worth = [max(value, 0) if fine else 0 for value, fine in zip(one.net_value, one.eligible, strict=True)]
        best = int(np.argmax([0, *worth]))
        assert np.argmax(one.probabilities) == best
        # the cost is rounded before it is subtracted, and the rest after
        redeemed = [cost - offer.contact_cost for cost, offer in zip(one.cost, decider.catalogue.offers, strict=True)]
        for net_value, uplift, redemption, cost in zip(one.net_value, one.uplift, redeemed, one.cost, strict=True):
            assert redemption >= 0
            assert net_value == pytest.approx(uplift + redemption - cost, abs=1.5)


def test_contributions_add_up_to_the_log_odds(decider, members):
    X = members.online([f"m{i}" for i in range(30)], decider.release.feature_names, facts=()).X
    effects = contributions(decider.release.models.churn, X)
    raw = decider.release.models.churn.inplace_predict(X).astype(float)
    bias = logit(raw) - effects.sum(axis=1)
    np.testing.assert_allclose(bias, bias[0], atol=1e-3)  # additivity: what is left is one number for all


def test_reasons_are_words_with_the_feature_s_unit(decider):
    explainer = Explainer(decider.release.manifest.features, decider.programme)
    X = np.array([[23, np.nan, 123456, 0.5]], dtype=np.float32)
    effects = np.array([[0.5, -0.25, 0.125, 0.0]], dtype=np.float32)
    texts = [reason["text"] for reason in explainer.reasons(X, effects)[0]]
    assert texts == [
        "Days since the last visit: 23 (raises the risk)",
        "Visits in the last 28 days: not known (lowers the risk)",
        "Spend in the last 28 days: 1,234.56 USD (raises the risk)",
    ]


def test_every_decision_says_when_its_features_are_from(decide):
    known, unknown = decide(["m1", "nobody"])
    assert (known.event_timestamp, unknown.event_timestamp) == (NOW - timedelta(days=2), None)


def test_features_that_can_not_be_read_mean_control_for_all(decider):
    file = blank_file(decider, ["m1", "m2"], nobody_contacted(2, 3))
    for one in draw(decider, file, np.array([0.1, 0.9]), occasion(decider)):
        assert (one.treatment, one.propensity, one.fallback_reason) == ("control", 1.0, "features_unavailable")


@pytest.mark.parametrize("n", [1, 500])
def test_as_many_decisions_as_members_in_their_order(decide, n):
    asked = [f"m{i}" for i in range(n)]
    assert [one.member_id for one in decide(asked)] == asked


def test_an_offer_within_the_noise_of_its_uplift_is_not_sent(decider, members):
    effects = decider.release.models.uplift
    noisy = replace(effects, margin=(EffectBands(edges=(), effect=(0.0,), error=(1e9,)),) * len(effects.margin))
    release = replace(decider.release, models=replace(decider.release.models, uplift=noisy))
    found = _decide(Decider(release, decider.catalogue), members, ["m1", "m2"])
    assert all(max(one.net_value) > 0 for one in found)
    assert all(np.argmax(one.probabilities) == 0 for one in found)


def test_who_opted_out_is_not_scored_and_gets_control(decide):
    (one,) = decide(["m7no"])
    assert (one.outcome, one.treatment, one.propensity) == ("opt_out", "control", 1.0)
    assert one.churn_probability is None
    assert np.isnan(np.frombuffer(one.features, dtype="<f4")).all()
    assert set(one.refusals) == {"opt_out"}


def tight(decider, *, budget=400.0, stock=3.0):
    limits = np.array([stock if offer_id == "A" else np.inf for offer_id in decider.release.offer_ids])
    return Purse(budget, limits, 0.25, np.zeros(len(limits)))


@pytest.fixture
def crowd(constrained, members):
    """Members of whom the first ones use up what there is."""
    ids = [f"m{i}" for i in range(60)] + ["nobody"] * 3
    features = members.online(ids, constrained.release.feature_names, facts=constrained.facts)
    return open_file(constrained, features, nobody_contacted(len(ids), 3))


@given(budget=st.integers(0, 1_500), stock=st.integers(0, 12), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_together_members_get_what_they_get_one_after_the_other(constrained, crowd, budget, stock, seed):
    uniform = np.random.default_rng(seed).random(len(crowd.member_ids))
    worth = constrained.weigh(crowd.members, "c")
    when = occasion(constrained, purse=tight(constrained, budget=float(budget), stock=float(stock)))
    together = constrained.choose(crowd.members, worth, occasion=when, uniform=uniform)
    for place in range(len(uniform)):
        one = slice(place, place + 1)
        alone = constrained.choose(crowd.members.rows(one), worth.rows(one), occasion=when, uniform=uniform[one])
        for name, values in vars(alone).items():
            np.testing.assert_array_equal(getattr(together, name)[one], values, err_msg=name)
        used = np.bincount(alone.chosen, minlength=4)[1:]
        left = replace(when.purse, budget=when.purse.budget - alone.spent[0], stock=when.purse.stock - used)
        when = replace(when, purse=left)
        assert left.budget >= 0
        assert (left.stock >= 0).all()


def test_propensities_are_frequencies_after_all_constraints(constrained, crowd):
    """Draws less their probabilities are a martingale, whatever ran out before: so their sum has mean 0."""
    worth, when = constrained.weigh(crowd.members, "c"), occasion(constrained, purse=tight(constrained))
    rng, surplus, variance, weights = np.random.default_rng(5), np.zeros(4), np.zeros(4), []
    for _ in range(400):
        uniform = rng.random(len(crowd.member_ids))
        choice = constrained.choose(crowd.members, worth, occasion=when, uniform=uniform)
        drawn = choice.chosen[:, None] == np.arange(4)
        surplus += (drawn - choice.probabilities).sum(axis=0)
        variance += (choice.probabilities * (1 - choice.probabilities)).sum(axis=0)
        sent = choice.probabilities[:, 2] > 0
        weights.append((drawn[sent, 2] / choice.probabilities[sent, 2]).mean())
    possible = variance > 0
    assert possible.sum() == 3
    assert (np.abs(surplus[possible]) < 4.5 * np.sqrt(variance[possible])).all()
    assert np.mean(weights) == pytest.approx(1, abs=4.5 * np.std(weights) / np.sqrt(len(weights)))


def test_the_fallback_offer_goes_to_whom_nothing_else_protects(constrained, members):
    ids = [
        "nobody",
        "stranger",
        *(name for name in (f"x{n}" for n in range(400)) if constrained.drawn([name])[1] == HELD_OUT),
    ]
    features = members.online(ids, constrained.release.feature_names, facts=constrained.facts)
    standing = nobody_contacted(len(ids), 3)
    standing.since_any[1] = 0.5  # policy: a day
    file = open_file(constrained, features, standing)
    decisions = draw(constrained, file, np.full(len(ids), 0.5), occasion(constrained))
    assert [one.treatment for one in decisions] == ["LETTER", *["control"] * (len(ids) - 1)]
    assert decisions[0].treatments == ("control", "LETTER")
    assert (decisions[0].cost, decisions[0].propensity, decisions[0].outcome) == ((7,), 1.0, "fallback")
    poor = draw(constrained, file, np.full(len(ids), 0.5), occasion(constrained, purse=tight(constrained, budget=6.0)))
    assert {one.treatment for one in poor} == {"control"}


def test_a_budget_reaches_a_crowd_that_is_exactly_alike_and_not_by_its_ids(decider):
    # as after training on data without heterogeneity: everybody is worth the same, and money is for three in ten
    n, ids = 4_000, [f"m{number:04}" for number in range(4_000)]
    file = blank_file(decider, ids, nobody_contacted(n, len(decider.release.offer_ids)))
    members = replace(file.members, fallback=np.zeros(n, dtype=np.int8))
    money = np.tile([400.0, 0.0, 0.0], (n, 1))
    worth = Worth(np.zeros(n), np.zeros(n), money, money, np.tile([100.0, 5.0, 5.0], (n, 1)), 0 * money, 1 + 0 * money)
    budget = 0.3 * n * 100
    left = Purse(budget, np.full(3, np.inf), 0.0, np.zeros(3))
    refusals = decider.refusals(members, worth, occasion(decider, purse=left))
    purse = price(decider, claims_of(members, worth, refusals == 0), left).purse
    uniform = np.random.default_rng(3).random(n)
    choice = decider.choose(members, worth, occasion=occasion(decider, purse=purse), uniform=uniform)
    assert 0.97 * budget < choice.spent.sum() <= budget
    sent = np.flatnonzero(choice.chosen == 1)
    assert abs(sent.mean() - n / 2) < 4 * n / np.sqrt(12 * len(sent))  # of numbers drawn evenly
