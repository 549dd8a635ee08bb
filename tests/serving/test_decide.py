from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from serving.decide import Decider
from serving.explain import Explainer, contributions
from training.artifacts import load_release
from training.calibration import logit
from training.learning.effects import EffectBands

NOW = datetime(2017, 12, 1, 12, tzinfo=UTC)


@pytest.fixture
def assess(decider, members):
    def assess(member_ids, *, offers=None, now=NOW):
        features = members.online(member_ids, decider.release.feature_names)
        return decider.assess(features, offers=offers, now=now)

    return assess


def decide(decider, assessment, uniform):
    return decider.decide(
        assessment, uniform, now=NOW, new_id=iter(map(str, range(10**6))).__next__, campaign_id="c", context={},
        idempotency_key=None,
    )  # fmt: skip


def test_the_logged_propensity_is_the_frequency(decider, assess):
    draws = 20_000
    assessment = assess(["m1"])
    wanted = assessment.probabilities[0]
    uniform = np.random.default_rng(1).random(draws)
    many = [decide(decider, assessment, uniform[i : i + 1])[0] for i in range(draws)]
    for index, treatment in enumerate(decider.treatments):
        frequency = sum(one.treatment == treatment for one in many) / draws
        error = np.sqrt(wanted[index] * (1 - wanted[index]) / draws)
        assert abs(frequency - wanted[index]) <= 4.5 * error, treatment
    assert all(one.propensity == wanted[decider.treatments.index(one.treatment)] for one in many)


def test_a_held_out_member_is_control_whatever_is_drawn(decider, assess, held_out):
    uniform = np.linspace(0, 0.999, len(held_out))
    for one in decide(decider, assess(held_out), uniform):
        assert (one.treatment, one.propensity, one.outcome) == ("control", 1.0, "hold_out")
        assert one.churn_probability is not None  # scored all the same: promised and realised are compared on them


def test_an_offer_is_eligible_only_while_it_is_valid_and_asked_for(decider, assess):
    assert decider.treatments == ("control", "A", "B", "OLD")
    assert assess(["m1"]).eligible.tolist() == [[True, True, False]]
    assert assess(["m1"], offers=("B",)).eligible.tolist() == [[False, True, False]]
    assert not assess(["m1"], now=NOW + timedelta(days=365)).eligible.any()
    ends = assess(["m1"], now=NOW.replace(year=2018, month=1, day=1, hour=0))
    assert not ends.eligible.any()  # valid_until itself is too late


def test_who_can_not_be_scored_gets_control_and_leaves_the_others_alone(decider, assess):
    together = decide(decider, assess(["m1", "nobody", "infinite", "m2"]), np.full(4, 0.5))
    alone = decide(decider, assess(["m1", "m2"]), np.full(2, 0.5))
    reasons = [one.fallback_reason for one in together]
    assert reasons == [None, "unknown_member", "features_invalid", None]
    for one in together[1:3]:
        assert (one.outcome, one.treatment, one.propensity, one.uplift) == ("fallback", "control", 1.0, ())
    for mixed, single in zip((together[0], together[3]), alone, strict=True):
        assert (mixed.treatment, mixed.churn_probability, mixed.uplift) == (
            single.treatment, single.churn_probability, single.uplift
        )  # fmt: skip


def test_a_decision_is_replayed_from_its_features_and_its_draw(decider, assess, members):
    for one in decide(decider, assess([f"m{i}" for i in range(50)]), np.random.default_rng(2).random(50)):
        X = np.frombuffer(one.features, dtype="<f4")[None, :]
        features = members.online([one.member_id], decider.release.feature_names)
        np.testing.assert_array_equal(features.X, X)
        (again,) = decide(decider, decider.assess(features, offers=None, now=NOW), np.array([one.draw]))
        assert (again.treatment, again.propensity, again.probabilities) == (
            one.treatment,
            one.propensity,
            one.probabilities,
        )


def test_the_best_offer_in_net_value_is_the_likeliest(decider, assess, held_out):
    contacted = [f"m{i}" for i in range(100) if f"m{i}" not in held_out]
    for one in decide(decider, assess(contacted), np.full(len(contacted), 0.5)):
        worth = [max(value, 0) if fine else 0 for value, fine in zip(one.net_value, one.eligible, strict=True)]
        best = int(np.argmax([0, *worth]))
        assert np.argmax(one.probabilities) == best
        assert one.net_value == tuple(
            uplift - offer.contact_cost
            for uplift, offer in zip(one.uplift, decider.release.manifest.offers, strict=True)
        )


def test_contributions_add_up_to_the_log_odds(decider, members):
    X = members.online([f"m{i}" for i in range(30)], decider.release.feature_names).X
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


def test_every_decision_says_when_its_features_are_from(decider, assess):
    known, unknown = decide(decider, assess(["m1", "nobody"]), np.full(2, 0.5))
    assert (known.event_timestamp, unknown.event_timestamp) == (NOW - timedelta(days=2), None)


def test_features_that_can_not_be_read_mean_control_for_all(decider):
    for one in decide(decider, decider.unavailable(["m1", "m2"]), np.array([0.1, 0.9])):
        assert (one.treatment, one.propensity, one.fallback_reason) == ("control", 1.0, "features_unavailable")


@pytest.mark.parametrize("n", [1, 500])
def test_as_many_decisions_as_members_in_their_order(decider, assess, n):
    asked = [f"m{i}" for i in range(n)]
    decided = decide(decider, assess(asked), np.full(n, 0.5))
    assert [one.member_id for one in decided] == asked


def test_an_offer_within_the_noise_of_its_uplift_is_not_sent(release_root, members):
    release = load_release(release_root)
    effects = release.models.uplift
    noisy = replace(effects, margin=(EffectBands(edges=(), effect=(0.0,), error=(1e9,)),) * len(effects.margin))
    decider = Decider(replace(release, models=replace(release.models, uplift=noisy)))
    found = decider.assess(members.online(["m1", "m2"], release.feature_names), offers=None, now=NOW)
    assert (found.net_value > 0).any(axis=1).all()
    assert (found.probabilities.argmax(axis=1) == 0).all()
