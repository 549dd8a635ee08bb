import hashlib
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.stats import binom, chi2, chisquare

from features.errors import ContractError
from training.policy import (
    HELD_OUT,
    MODEL,
    RANDOM,
    Terms,
    arms,
    benefit_errors,
    benefits,
    costs,
    draw,
    member_numbers,
    net_values,
    terms_of,
    treatment_probabilities,
)
from training.releases.manifest import OfferSpec

FEWER = settings(max_examples=60)
MONEY = st.floats(-1e9, 1e9)


def all_of(arm, n):
    return np.full(n, arm, dtype=np.int8)


@st.composite
def situations(draw_):
    shape = (draw_(st.integers(0, 8)), draw_(st.integers(0, 10)))
    values = MONEY | st.sampled_from([0.0, 1.0, np.nan, np.inf, -np.inf])
    kind = draw_(st.sampled_from([np.float64, np.float32]))
    return {
        "net_value": draw_(npst.arrays(kind, shape, elements=values.map(kind))),
        "eligible": draw_(npst.arrays(np.bool_, shape)),
        "arm": draw_(npst.arrays(np.int8, shape[0], elements=st.sampled_from([HELD_OUT, MODEL, RANDOM]))),
        "exploration": draw_(st.floats(0, 1)),
        "regret": draw_(st.none() | st.floats(0, 1e6)),
        "bar": draw_(npst.arrays(np.float64, shape, elements=st.floats(0, 1e6))),
        "error": draw_(st.none() | npst.arrays(np.float64, shape, elements=st.floats(0, 1e6))),
        "mandatory": draw_(st.none() | npst.arrays(np.bool_, shape)),
    }


def allowed_in(situation):
    """Which treatments each member may get: (n, 1 + k), control first."""
    possible = situation["eligible"] & np.isfinite(situation["net_value"]) & (situation["arm"] != HELD_OUT)[:, None]
    must = possible & situation["mandatory"] if situation["mandatory"] is not None else np.zeros_like(possible)
    bound = must.any(axis=1)
    return np.column_stack([~bound, np.where(bound[:, None], must, possible)]), bound


@FEWER
@given(situations())
def test_whatever_comes_rows_are_probabilities_and_what_is_not_allowed_has_none(situation):
    probabilities = treatment_probabilities(**situation)
    n, k = situation["net_value"].shape
    assert probabilities.shape == (n, 1 + k)
    assert probabilities.dtype == np.float64
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=0, atol=8 * np.finfo(float).eps)
    allowed, _ = allowed_in(situation)
    assert (probabilities[~allowed] == 0).all()
    assert (probabilities[situation["arm"] == HELD_OUT, 0] == 1).all()


@FEWER
@given(situations())
def test_exploration_leaves_everything_that_is_allowed_a_chance(situation):
    situation |= {"exploration": max(situation["exploration"], 1e-3), "regret": max(situation["regret"] or 1.0, 1e-3)}
    # Without it, inverse propensities have no bound and no later policy can be judged from the log.
    assert (treatment_probabilities(**situation)[allowed_in(situation)[0]] > 0).all()


@FEWER
@given(situations())
def test_without_a_regret_budget_everything_allowed_has_half_its_even_share_at_least(situation):
    probabilities = treatment_probabilities(**situation | {"regret": None})
    allowed, _ = allowed_in(situation)
    floor = situation["exploration"] * (0.5 if situation["error"] is not None else 1.0) / allowed.sum(axis=1)
    assert (probabilities >= np.where(allowed, floor[:, None] * (1 - 1e-12), 0)).all()


@FEWER
@given(situations())
def test_exploring_takes_no_more_probability_than_exploration_and_costs_no_more_than_the_regret_budget(situation):
    probabilities = treatment_probabilities(**situation)
    sure = treatment_probabilities(**situation | {"exploration": 0.0})
    _, bound = allowed_in(situation)
    model = (situation["arm"] == MODEL) & ~bound
    np.testing.assert_allclose(sure.max(axis=1)[model], 1)
    taken = 1 - probabilities[sure == 1][model[np.nonzero(sure == 1)[0]]]
    assert (taken <= situation["exploration"] + 1e-12).all()
    if situation["regret"] is not None:
        worth = np.column_stack([np.zeros(len(sure)), np.nan_to_num(situation["net_value"], posinf=0, neginf=0)])
        lost = ((sure - probabilities) * worth.astype(np.float64)).sum(axis=1)[model]
        assert (lost <= situation["regret"] * (1 + 1e-9) + 1e-5).all()  # 1e-5: rounding of 1e9 in float64, times k


@FEWER
@given(situations())
def test_without_exploration_nobody_gets_an_offer_that_does_not_pay_or_is_not_the_best(situation):
    situation |= {"exploration": 0.0, "mandatory": None, "arm": all_of(MODEL, len(situation["arm"]))}
    net_value, bar = situation["net_value"], situation["bar"]
    row, column = np.nonzero(treatment_probabilities(**situation))
    np.testing.assert_array_equal(row, np.arange(len(net_value)))
    for member, treatment in zip(row, column, strict=True):
        usable = situation["eligible"][member] & np.isfinite(net_value[member])
        payable = usable & (net_value[member] > bar[member])
        if treatment == 0:
            assert not payable.any()
        else:
            assert payable[treatment - 1]
            assert net_value[member, treatment - 1] == net_value[member, payable].max()


@FEWER
@given(situations(), st.floats(0, 1, exclude_max=True))
def test_a_member_alone_gets_the_same_bits_as_among_others(situation, number):
    # What replays one decision has to find the probabilities of a batch of millions.
    together = treatment_probabilities(**situation)
    drawn = draw(together, np.full(len(together), number))
    for i in range(len(together)):
        alone = {
            name: value[i : i + 1] if isinstance(value, np.ndarray) else value for name, value in situation.items()
        }
        row = treatment_probabilities(**alone)
        assert row.tobytes() == together[i].tobytes()
        assert draw(row, np.array([number])).tolist() == [drawn[i]]


def test_a_case_done_in_the_head():
    net_value = np.array([[30.0, 20.0, 50.0], [-1.0, -2.0, -3.0], [30.0, 20.0, 50.0], [30.0, 20.0, 50.0]])
    eligible = np.array([[True, True, False], [True, True, True], [True, True, True], [True, True, False]])
    arm = np.array([MODEL, MODEL, HELD_OUT, RANDOM])
    probabilities = treatment_probabilities(net_value, eligible, arm, exploration=0.12)
    # 0.12 over control and two offers is 0.04 each, over control and three 0.03; the best one adds 0.88.
    third = 1 / 3
    expected = [[0.04, 0.92, 0.04, 0.0], [0.91, 0.03, 0.03, 0.03], [1.0, 0.0, 0.0, 0.0], [third, third, third, 0.0]]
    np.testing.assert_allclose(probabilities, expected, atol=1e-15)


def test_a_regret_budget_done_in_the_head():
    one, arm = np.ones((1, 2), bool), np.array([MODEL])
    probabilities = treatment_probabilities(np.array([[100.0, 90.0]]), one, arm, exploration=0.3, regret=3.0)
    # Weights of a third each: control may have 3 / 100 of it, the second offer 3 / 10, as much as exploration lets it.
    np.testing.assert_allclose(probabilities, [[0.03 / 3, 1 - 0.03 / 3 - 0.1, 0.1]], atol=1e-15)


def test_exploration_goes_where_least_is_known():
    one, arm = np.ones((1, 3), bool), np.array([MODEL])
    net_value, error = np.array([[100.0, 90.0, 90.0]]), np.array([[1.0, 3.0, 1.0]])
    probabilities = treatment_probabilities(net_value, one, arm, exploration=0.12, error=error)
    # Half of it evenly, 0.015 each; half by variance, of 1 (control, as the best offer), 1, 9 and 1.
    rest = 0.06 * np.array([1, 9, 1]) / 12 + 0.015
    np.testing.assert_allclose(probabilities, [[rest[0], 1 - rest.sum(), rest[1], rest[2]]], atol=1e-15)


def test_an_offer_that_is_mandatory_is_sent_whatever_it_is_worth_but_never_to_who_is_held_out_or_may_not_have_it():
    net_value = np.full((4, 3), [50.0, -90.0, -90.0])
    eligible = np.array([[True, True, True], [True, False, True], [True, False, False], [True, True, True]])
    arm, mandatory = np.array([MODEL, RANDOM, MODEL, HELD_OUT]), np.full((4, 3), [False, True, True])
    probabilities = treatment_probabilities(net_value, eligible, arm, exploration=0.0, mandatory=mandatory)
    assert probabilities.tolist() == [[0, 0, 0.5, 0.5], [0, 0, 0, 1], [0, 1, 0, 0], [1, 0, 0, 0]]


def test_of_equal_offers_the_first_wins_and_an_offer_worth_nothing_loses_to_control():
    net_value = np.array([[7.0, 7.0], [0.0, 0.0]])
    probabilities = treatment_probabilities(net_value, np.ones((2, 2), bool), all_of(MODEL, 2), exploration=0.0)
    assert probabilities.argmax(axis=1).tolist() == [1, 0]


def test_a_dearer_budget_never_sends_more():
    rng = np.random.default_rng(3)
    uplift, cost = rng.normal(0, 100, (500, 3)), np.array([10.0, 30.0, 90.0])
    sent = []
    for price in (0.0, 0.5, 2.0, 50.0):
        net_value = net_values(uplift, cost, price=price)
        probabilities = treatment_probabilities(
            net_value, np.ones_like(uplift, bool), all_of(MODEL, 500), exploration=0.0
        )
        sent.append(probabilities[:, 1:].sum())
    assert sent == sorted(sent, reverse=True)
    assert sent[0] > sent[-1] == 0


@FEWER
@given(situations(), st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_higher_bar_never_sends_more_and_nothing_that_is_not_above_it(situation, one, two):
    net_value, low, high = situation["net_value"], *sorted([one, two])
    situation |= {"exploration": 0.0, "mandatory": None, "arm": all_of(MODEL, len(net_value))}
    sent = [treatment_probabilities(**situation | {"bar": bar})[:, 1:] for bar in (low, high)]
    assert (sent[1].sum(axis=1) <= sent[0].sum(axis=1)).all()
    assert (net_value[sent[1] > 0] > high).all()
    # Who still gets something gets the same: a bar takes offers away, and the best is the last to go.
    still = sent[1].any(axis=1)
    np.testing.assert_array_equal(sent[1][still], sent[0][still])


def test_an_offer_that_is_not_sure_gives_way_to_the_next_that_is():
    net_value, bar = np.array([[50.0, 20.0]]), np.array([[60.0, 10.0]])
    probabilities = treatment_probabilities(
        net_value, np.ones((1, 2), bool), all_of(MODEL, 1), exploration=0.0, bar=bar
    )
    assert probabilities.tolist() == [[0.0, 0.0, 1.0]]


@pytest.mark.parametrize("bar", [-1.0, float("nan")])
def test_a_bar_that_lets_losses_through_is_refused(bar):
    with pytest.raises(ContractError, match="at least 0 was wanted"):
        treatment_probabilities(np.zeros((1, 1)), np.ones((1, 1), bool), all_of(MODEL, 1), exploration=0.1, bar=bar)


def test_draws_come_as_often_as_their_probability_says():
    rng = np.random.default_rng(20)
    probabilities = np.array([0.03, 0.0, 0.9, 0.07, 0.0])
    n = 200_000
    drawn = draw(np.broadcast_to(probabilities, (n, 5)), rng.random(n))
    counts = np.bincount(drawn, minlength=5)
    assert counts[1] == counts[4] == 0
    possible = probabilities > 0
    assert chisquare(counts[possible], n * probabilities[possible]).pvalue > 1e-3


def logged(rng, n, k, **limits):
    net_value, error = rng.normal(0, 50, (n, k)), rng.uniform(1, 30, (n, k))
    arm = rng.choice(np.array([HELD_OUT, MODEL, RANDOM]), n, p=[0.05, 0.9, 0.05])
    eligible = rng.random((n, k)) < 0.8
    probabilities = treatment_probabilities(net_value, eligible, arm, exploration=0.2, error=error, **limits)
    return probabilities, draw(probabilities, rng.random(n))


def test_a_million_decisions_come_as_often_as_their_logged_propensities_say():
    rng = np.random.default_rng(20)
    situation = logged(rng, 40, 3, regret=5.0)[0]
    n = 1_000_000
    member = rng.integers(len(situation), size=n)
    drawn = draw(situation[member], rng.random(n))
    counts = np.zeros_like(situation)
    np.add.at(counts, (member, drawn), 1)
    expected, possible = counts.sum(axis=1, keepdims=True) * situation, situation > 0
    assert (counts[~possible] == 0).all()
    statistic = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    assert chi2.sf(statistic, possible.sum() - len(situation)) > 1e-3


@pytest.mark.parametrize("limits", [{}, {"regret": 20.0}])
def test_inverse_propensity_weights_average_one(limits):
    probabilities, drawn = logged(np.random.default_rng(4), 60_000, 3, **limits)
    # Each treatment's indicator over its propensity estimates the share of members who could have had it.
    for treatment in range(4):
        could = probabilities[:, treatment] > 0
        p = probabilities[could, treatment]
        weights = (drawn[could] == treatment) / p
        error = np.sqrt(np.mean(1 / p - 1) / could.sum())
        assert abs(weights.mean() - 1) < 4 * error


@FEWER
@given(npst.arrays(np.float64, (3, 4), elements=st.floats(0, 1)), st.floats(0, 1, exclude_max=True))
def test_what_has_probability_zero_is_never_drawn(raw, uniform):
    raw[:, 0] += (raw.sum(axis=1) < 1e-6).astype(float)
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    drawn = draw(probabilities, np.full(3, uniform))
    assert (probabilities[np.arange(3), drawn] > 0).all()


def test_the_edges_of_the_uniform_draw_what_is_possible():
    probabilities = np.array([[0.0, 0.7, 0.2, 0.1, 0.0]] * 2)
    assert draw(probabilities, np.array([0.0, np.nextafter(1.0, 0.0)])).tolist() == [1, 3]


def test_the_arms_have_their_shares_and_another_salt_draws_others():
    ids = [f"m{i}" for i in range(40_000)]
    spring, summer = (arms(ids, salt=salt, hold_out=0.05, random_arm=0.02) for salt in ("spring", "summer"))
    for arm, share in ((HELD_OUT, 0.05), (RANDOM, 0.02)):
        assert binom.cdf((spring == arm).sum(), len(ids), share) == pytest.approx(0.5, abs=0.4995)
        both = ((spring == arm) & (summer == arm)).sum()
        assert binom.cdf(both, len(ids), share**2) == pytest.approx(0.5, abs=0.4995)  # independent of each other


IDS = st.lists(st.text(min_size=1, max_size=20), max_size=20)
SHARE = st.floats(0, 1)


@FEWER
@given(IDS, st.text(max_size=10), SHARE, SHARE, SHARE)
def test_who_is_in_an_arm_stays_in_it_when_its_share_grows(ids, salt, one, two, other):
    small, large = sorted([one, two])
    held = [arms(ids, salt=salt, hold_out=share, random_arm=other) == HELD_OUT for share in (small, large)]
    assert (held[0] <= held[1]).all()
    # The random arm never takes anybody from the hold-out.
    drawn = [arms(ids, salt=salt, hold_out=other, random_arm=share) for share in (small, large)]
    assert ((drawn[0] == RANDOM) <= (drawn[1] == RANDOM)).all()
    assert ((drawn[0] == HELD_OUT) == (drawn[1] == HELD_OUT)).all()


@FEWER
@given(IDS, st.text(max_size=10), SHARE, SHARE)
def test_an_arm_depends_on_id_and_salt_alone(ids, salt, hold_out, random_arm):
    together = arms(ids, salt=salt, hold_out=hold_out, random_arm=random_arm)
    assert together.dtype == np.int8
    alone = [int(arms([member], salt=salt, hold_out=hold_out, random_arm=random_arm)[0]) for member in ids]
    assert alone == together.tolist()


def test_shares_of_nothing_and_of_everybody():
    ids = [f"m{i}" for i in range(100)]
    assert (arms(ids, salt="s", hold_out=0.0, random_arm=0.0) == MODEL).all()
    assert (arms(ids, salt="s", hold_out=1.0, random_arm=1.0) == HELD_OUT).all()
    assert (arms(ids, salt="s", hold_out=0.0, random_arm=1.0) == RANDOM).all()


def test_the_arms_are_the_same_in_another_process_with_another_hash_seed():
    program = (
        "from training.policy import arms;"
        "print(arms([str(i) for i in range(200)], salt='s', hold_out=0.3, random_arm=0.2).tolist())"
    )
    there = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "77"}
    )
    assert there.stdout.strip() == str(
        arms([str(i) for i in range(200)], salt="s", hold_out=0.3, random_arm=0.2).tolist()
    )


def test_the_hash_is_the_documented_one():
    # Written out here by itself: another machine, or another language, has to find the same members.
    digest = hashlib.blake2b(b"holdfast\0m1", digest_size=8).digest()
    number = (int.from_bytes(digest, "big") >> 11) / 2**53
    assert member_numbers(["m1"], salt="holdfast").tolist() == [number]
    assert arms(["m1"], salt="holdfast", hold_out=number + 1e-9, random_arm=0.0).tolist() == [HELD_OUT]
    assert arms(["m1"], salt="holdfast", hold_out=number, random_arm=0.0).tolist() == [MODEL]


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ContractError, match=r"eligible \(2, 3\)"):
        treatment_probabilities(np.zeros((2, 2)), np.ones((2, 3), bool), all_of(MODEL, 2), exploration=0.1)


@pytest.mark.parametrize("exploration", [-0.1, 1.1, float("nan")])
def test_exploration_that_is_no_probability_is_refused(exploration):
    with pytest.raises(ContractError, match="a probability was wanted"):
        treatment_probabilities(np.zeros((1, 1)), np.ones((1, 1), bool), all_of(MODEL, 1), exploration=exploration)


@pytest.mark.parametrize("regret", [-1.0, float("nan")])
def test_a_regret_that_is_no_amount_is_refused(regret):
    with pytest.raises(ContractError, match="at least 0 were wanted"):
        treatment_probabilities(
            np.zeros((1, 1)), np.ones((1, 1), bool), all_of(MODEL, 1), exploration=0.1, regret=regret
        )


def scores(**columns):
    return SimpleNamespace(**{name: np.array(values, dtype=np.float64) for name, values in columns.items()})


def spec(offer_id, contact_cost, redemption_cost):
    return OfferSpec(offer_id, offer_id, "mail", contact_cost, redemption_cost, "", "")


def catalogue(**policy):
    """Stand in for features.offers.Catalogue: what terms are read from."""
    offers = [SimpleNamespace(offer_id="A", contact_cost=50, redemption_cost=300, points=1000)]
    known = {"objective": "profit", "member_worth": None, "point_cost": 0.5, "points_used": 0.8}
    return SimpleNamespace(offers=offers, policy=SimpleNamespace(**known | policy))


LEARNED = (spec("A", 40, 200), spec("B", 5, 20))  # B is no longer in the catalogue


def test_net_value_by_hand():
    terms = terms_of(catalogue(), LEARNED)
    member = scores(uplift=[[100.0, 0.0]], redemption=[[0.5, 1.0]])
    # A: 100 after redemptions at 200, so 200 before; 50 a contact, and half a redemption of 300 + 1000 * 0.5 * 0.8.
    assert benefits(member, terms).tolist() == [[200.0, 20.0]]
    assert costs(member, terms).tolist() == [[50.0 + 350.0, 5.0 + 20.0]]
    assert net_values(benefits(member, terms), costs(member, terms)).tolist() == [[-200.0, -5.0]]


@FEWER
@given(npst.arrays(np.float64, (4, 2), elements=st.floats(0, 1)), npst.arrays(np.float64, (4, 2), elements=MONEY))
def test_at_the_costs_uplift_was_learned_under_its_net_value_is_uplift_less_contact_cost(redemption, uplift):
    terms = Terms(*(np.array([[c.contact_cost, c.redemption_cost, c.redemption_cost] for c in LEARNED]).T * 1.0))
    member = scores(uplift=uplift, redemption=redemption)
    net_value = net_values(benefits(member, terms), costs(member, terms))
    np.testing.assert_allclose(net_value, uplift - terms.contact_cost, rtol=1e-12, atol=1e-6)


def test_what_a_decision_is_for():
    member = scores(uplift_error=[[9.0]], retention_uplift=[[0.1]], retention_error=[[0.02]], value=[3000.0])
    members = terms_of(catalogue(objective="retained_members", member_worth=5000), LEARNED[:1])
    value = terms_of(catalogue(), LEARNED[:1], SimpleNamespace(objective="retained_value"))
    assert benefits(member, members).tolist() == [[500.0]]
    assert benefit_errors(member, members).tolist() == [[100.0]]
    assert benefits(member, value).tolist() == [[300.0]]
    assert benefit_errors(member, value).tolist() == [[60.0]]
    assert benefit_errors(member, terms_of(catalogue(), LEARNED[:1])).tolist() == [[9.0]]
    assert terms_of(catalogue(), LEARNED, SimpleNamespace(objective=None)).objective == "profit"


def test_members_who_stay_are_not_counted_before_somebody_says_what_one_is_worth():
    with pytest.raises(ContractError, match="set member_worth below"):
        terms_of(catalogue(objective="retained_members"), LEARNED)
