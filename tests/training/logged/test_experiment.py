from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from features.errors import ContractError
from features.offers import Offer, catalogue_of
from features.programme import Programme
from features.synthetic import READ, RESPONSES, TRUTH, OfferTerms, overlay_experiment
from training.artifacts import Release, Scores
from training.learning.effects import Effects
from training.logged.experiment import champion_policy, judge_policies, learn_uplift, served
from training.logged.log import log_of
from training.ope import BEST_FIXED, NO_CONTACT, RANDOM
from training.policy import terms_of
from training.releases.manifest import FeatureSpec, OfferSpec
from training.uplift import UpliftModel
from training.value import fit_value, predict_value

FEATURES = (*READ, "noise")
TERMS = (
    OfferTerms("A", 60, 100, "come_back"),
    OfferTerms("B", 20, 300, "category_coupons"),
)
OFFERS = tuple(
    OfferSpec(t.offer_id, t.offer_id, "mail", t.contact_cost, t.redemption_cost, "2017-01-01", "2018-01-01")
    for t in TERMS
)
VALID = datetime(2017, 1, 1, tzinfo=UTC), datetime(2018, 1, 1, tzinfo=UTC)
CATALOGUE = catalogue_of(
    [Offer(t.offer_id, t.offer_id, "mail", t.contact_cost, t.redemption_cost, *VALID) for t in TERMS], Programme()
)
Z = 1.96


def members(n, seed):
    rng = np.random.default_rng(seed)
    visits = rng.poisson(4, n)
    return pd.DataFrame(
        {
            "member_id": [f"m{i}" for i in range(n)],
            "as_of": pd.Timestamp("2017-06-05", tz="UTC"),
            "overdue_ratio": rng.gamma(2, 0.8, n),
            "visits_28d": visits,
            "spend_84d": 3 * visits * rng.gamma(4, 1000, n),
            "discount_share_84d": rng.beta(1, 4, n),
            "basket_mean_84d": rng.gamma(4, 1000, n),
            "noise": rng.normal(size=n),
            "margin": rng.poisson(1 + visits * 300),
            "churned": rng.random(n) < 0.3 / (1 + visits),
        }
    )


class Fitted(NamedTuple):
    train: pd.DataFrame
    test: pd.DataFrame
    uplift: dict[str, UpliftModel]
    value: object


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    learn, judge = members(4000, 0), members(4000, 1)
    train, test = (
        overlay_experiment(frame, offers=TERMS, rng=np.random.default_rng(seed))
        for frame, seed in ((learn, 2), (judge, 3))
    )
    return Fitted(
        train,
        test,
        learn_uplift(train, FEATURES, OFFERS, np.random.default_rng(4)),
        fit_value(learn[list(FEATURES)], learn["margin"].to_numpy(dtype=np.float64)).booster,
    )


def effects_of(fitted):
    margin, retention = fitted.uplift["margin"], fitted.uplift["retention"]
    return Effects(margin.student, margin.bands, retention.bands)


def judge_of(fitted, *, test=None, champion=None):
    log = fitted.test if test is None else test
    X = log[list(FEATURES)].to_numpy(dtype=np.float32)
    value = predict_value(fitted.value, X)
    scores = Scores(np.zeros(len(X)), value, **effects_of(fitted).predict(X))
    effects = {offer: effect.value for offer, effect in fitted.uplift["margin"].record.average_effect.items()}
    floor = Programme().experiment.floor  # of the champion too
    return judge_policies(
        log,
        scores,
        effects,
        offers=OFFERS,
        policy=served(scores, terms_of(CATALOGUE, OFFERS), floor=floor),
        champion=champion_policy(log, champion, ["A", "B"], catalogue=CATALOGUE) if champion else None,
    )


@pytest.fixture(scope="module")
def judged(fitted):
    return judge_of(fitted)


@pytest.mark.parametrize("policy", [RANDOM, BEST_FIXED, "model", "oracle"])
def test_what_a_policy_is_said_to_gain_is_what_the_simulation_gives_it(judged, policy):
    said, true = judged.table[policy].against_no_contact, judged.truth[policy]
    # the doubly robust estimate is unbiased, so it lies within a few of its standard errors
    assert abs(said.value - true.value) < 4 * (said.upper - said.lower) / (2 * Z)


def test_the_truth_of_a_fixed_policy_is_the_mean_of_its_column(judged, fitted):
    columns = fitted.test[[f"{TRUTH}A", f"{TRUTH}B"]].mean().to_numpy() - [60, 20]
    best = "AB".index(judged.best_fixed)
    assert judged.truth[NO_CONTACT].value == 0
    assert judged.truth[BEST_FIXED].value == pytest.approx(columns[best])
    assert judged.truth[RANDOM].value == pytest.approx(columns.mean())
    gain = np.maximum(fitted.test[[f"{TRUTH}A", f"{TRUTH}B"]].to_numpy() - [60, 20], 0).max(axis=1).mean()
    assert judged.truth["oracle"].value == pytest.approx(gain)


def test_nothing_beats_the_oracle_and_the_model_beats_chance(judged):
    assert max(judged.truth, key=lambda name: judged.truth[name].value) == "oracle"
    assert judged.truth["model"].value > judged.truth[RANDOM].value
    assert min(judged.truth_correlation.values()) > 0.3


def test_every_policy_stands_beside_the_others(judged):
    assert list(judged.table) == [NO_CONTACT, RANDOM, BEST_FIXED, "model", "oracle"]
    assert judged.table[NO_CONTACT].contacted == 0
    assert judged.table[BEST_FIXED].contacted == 1
    assert judged.table[RANDOM].contacted == 1
    assert judged.against_champion is None
    assert judged.personalised
    assert judged.table["model"].contacted == pytest.approx(judged.contacted.mean())


def test_the_models_uplift_never_reads_the_truth(fitted, judged):
    blind = judge_of(fitted, test=fitted.test.drop(columns=[f"{TRUTH}A", f"{TRUTH}B"]))
    assert blind.truth == {}
    assert blind.truth_correlation == {}
    assert blind.table == {name: row for name, row in judged.table.items() if name != "oracle"}


def test_the_best_fixed_offer_is_chosen_on_the_training_part(fitted, judged):
    # the test part is rigged so that there the other offer pays a fortune: choosing it now would be hindsight
    other = "A" if judged.best_fixed == "B" else "B"
    rigged = fitted.test.assign(outcome=fitted.test["outcome"] + 1e5 * (fitted.test["treatment"] == other))
    assert judge_of(fitted, test=rigged).best_fixed == judged.best_fixed


def champion(fitted, parts, offers=OFFERS, features=FEATURES):
    specs = tuple(FeatureSpec(name, name, "number") for name in features)
    manifest = replace(parts.manifest, features=specs, offers=offers)
    effects = effects_of(fitted)
    return Release(manifest, replace(parts.models, churn=fitted.value, value=fitted.value, uplift=effects))


def test_against_a_champion_that_is_the_same_the_difference_is_nothing(fitted, parts):
    judged = judge_of(fitted, champion=champion(fitted, parts))
    found = judged.against_champion
    assert (found.value, found.lower, found.upper, found.n) == (0.0, 0.0, 0.0, len(fitted.test))
    assert judged.table["champion"] == judged.table["model"]


def test_a_champion_that_makes_an_offer_the_log_never_tried_is_not_compared(fitted, parts):
    untried = (OFFERS[0], replace(OFFERS[1], offer_id="C"))
    judged = judge_of(fitted, champion=champion(fitted, parts, offers=untried))
    assert judged.against_champion is None
    assert "champion" not in judged.table


def test_a_champion_that_makes_no_offer_is_compared_as_one_who_contacts_nobody(fitted, parts, judged):
    silent = champion(fitted, parts, offers=())
    silent = replace(silent, models=replace(silent.models, uplift=None))
    found = judge_of(fitted, champion=silent)
    assert found.table["champion"] == found.table[NO_CONTACT]
    assert found.against_champion == judged.table["model"].against_no_contact


def test_one_offer_for_all_is_not_personalised(fitted):
    none, every = np.zeros(len(fitted.test)), np.full((len(fitted.test), 2), 500.0)
    scores = Scores(none, none, every, *[0 * every] * 4)
    policy = served(scores, terms_of(CATALOGUE, OFFERS))
    judged = judge_policies(fitted.test, scores, {"A": 500.0, "B": 500.0}, offers=OFFERS, policy=policy, champion=None)
    assert not judged.personalised
    assert judged.table["model"] == judged.table[BEST_FIXED]


def test_a_champion_that_reads_what_is_no_longer_computed_is_named(fitted, parts):
    stale = champion(fitted, parts, features=(*FEATURES[:-1], "moon_phase"))
    with pytest.raises(ContractError, match=r"no longer computed: \['moon_phase'\]"):
        judge_of(fitted, champion=stale)


def test_an_offer_that_was_never_tried_is_refused(fitted):
    offers = (*OFFERS, replace(OFFERS[0], offer_id="C"))
    with pytest.raises(ContractError, match=r"never tried \['C'\]; explore them, or take them out of the offers table"):
        learn_uplift(fitted.train, FEATURES, offers, np.random.default_rng(0))


def test_columns_come_in_the_order_of_the_offers_or_not_at_all(fitted):
    assert fitted.uplift["margin"].offers == ("A", "B")
    with pytest.raises(ContractError, match=r"\['B', 'A'\], \['A', 'B'\] was wanted: sort them by offer_id"):
        learn_uplift(fitted.train, FEATURES, OFFERS[::-1], np.random.default_rng(0))


def test_a_log_is_written_with_control_first(fitted):
    log = log_of(fitted.test, OFFERS)
    assert log.contact_cost.tolist() == [0.0, 60.0, 20.0]
    names = np.array(["control", "A", "B"])
    assert (names[log.treatment] == fitted.test["treatment"]).all()


def test_retention_is_what_redeeming_keeps(fitted):
    # who redeems has come: an offer keeps at most those who redeem, and of them only those who would have left
    effects = fitted.uplift["retention"].record.average_effect
    lapsing = 1 - fitted.train.loc[fitted.train["treatment"] == "control", "retained"].mean()
    assert all(-0.02 < effect.value < lapsing for effect in effects.values())
    assert fitted.uplift["retention"].student is fitted.uplift["margin"].student


def test_who_redeems_is_foretold_as_the_simulation_draws_it(fitted):
    said = effects_of(fitted).predict(fitted.test[list(FEATURES)].to_numpy(dtype=np.float32))["redemption"]
    for term, chance in zip(TERMS, said.T, strict=True):
        truth = RESPONSES[term.response](fitted.test)[0]
        sent = fitted.train.loc[fitted.train["treatment"] == term.offer_id, "redeemed"]
        error = np.sqrt(sent.mean() * (1 - sent.mean()) / len(sent))
        assert chance.mean() == pytest.approx(truth.mean(), abs=4 * error)
        assert np.corrcoef(chance, truth)[0, 1] > 0.6


def test_how_sure_retention_is_comes_by_band_as_of_margin(fitted):
    X = fitted.test[list(FEATURES)].to_numpy(dtype=np.float32)
    said, retention = effects_of(fitted).predict(X), fitted.uplift["retention"]
    np.testing.assert_array_equal(said["retention_uplift"], retention.predict(X))
    np.testing.assert_array_equal(said["retention_error"], retention.error(X))
    assert (said["retention_error"] > 0).all()


def test_a_floor_of_the_policy_counts_in_its_judgement(fitted):
    none, every = np.zeros(len(fitted.test)), np.full((len(fitted.test), 2), 100.0)
    scores = Scores(none, none, every, np.full(every.shape, 100.0), *[0 * every] * 3)
    bold, careful = (
        judge_policies(
            fitted.test,
            scores,
            {"A": 100.0, "B": 100.0},
            offers=OFFERS,
            policy=served(scores, terms_of(CATALOGUE, OFFERS), floor=floor),
            champion=None,
        )
        for floor in (0.5, 1.0)
    )
    assert (bold.table["model"].contacted, careful.table["model"].contacted) == (1, 0)  # B: 80 is above 50, not 100
