import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.stats import binom, chisquare

from features.errors import ContractError
from training.policy import draw, in_hold_out, net_values, treatment_probabilities

PATIENT = settings(deadline=None, max_examples=60)  # a loaded machine is no failure


@st.composite
def situations(draw_):
    shape = (draw_(st.integers(0, 8)), draw_(st.integers(0, 5)))
    values = st.floats(-1e9, 1e9) | st.sampled_from([0.0, np.nan, np.inf, -np.inf])
    return (
        draw_(npst.arrays(np.float64, shape, elements=values)),
        draw_(npst.arrays(np.bool_, shape)),
        draw_(npst.arrays(np.bool_, shape[0])),
        draw_(st.floats(0, 1)),
    )


@PATIENT
@given(situations())
def test_whatever_comes_rows_are_probabilities_the_ineligible_have_none_and_the_held_out_get_control(situation):
    net_value, eligible, held_out, exploration = situation
    probabilities = treatment_probabilities(net_value, eligible, held_out, exploration=exploration)
    n, k = net_value.shape
    assert probabilities.shape == (n, 1 + k)
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=0, atol=4 * np.finfo(float).eps)
    assert (probabilities[:, 1:][~eligible] == 0).all()
    assert (probabilities[held_out, 0] == 1).all()


@PATIENT
@given(situations())
def test_exploration_gives_every_eligible_treatment_its_even_share_at_least(situation):
    net_value, eligible, held_out, exploration = situation
    probabilities = treatment_probabilities(net_value, eligible, held_out, exploration=exploration)
    possible = np.column_stack([np.ones(len(eligible), bool), eligible])[~held_out]
    floor = exploration / possible.sum(axis=1)
    # Without it, inverse propensities have no bound and no later policy can be judged from the log.
    assert (probabilities[~held_out] >= np.where(possible, floor[:, None] * (1 - 1e-12), 0)).all()


@PATIENT
@given(situations())
def test_without_exploration_nobody_gets_an_offer_that_does_not_pay_or_is_not_the_best(situation):
    net_value, eligible, held_out, _ = situation
    probabilities = treatment_probabilities(net_value, eligible, held_out, exploration=0.0)
    row, column = np.nonzero(probabilities)
    np.testing.assert_array_equal(row, np.arange(len(net_value)))
    for member, treatment in zip(row, column, strict=True):
        payable = eligible[member] & (net_value[member] > 0) & ~held_out[member]
        if treatment == 0:
            assert not payable.any()
        else:
            assert payable[treatment - 1]
            assert net_value[member, treatment - 1] == net_value[member, payable].max()


def test_a_case_done_in_the_head():
    net_value = np.array([[30.0, 20.0, 50.0], [-1.0, -2.0, -3.0], [30.0, 20.0, 50.0]])
    eligible = np.array([[True, True, False], [True, True, True], [True, True, True]])
    probabilities = treatment_probabilities(net_value, eligible, np.array([False, False, True]), exploration=0.12)
    # 0.12 over control and two offers is 0.04 each, over control and three 0.03; the best one adds 0.88.
    expected = [[0.04, 0.92, 0.04, 0.0], [0.91, 0.03, 0.03, 0.03], [1.0, 0.0, 0.0, 0.0]]
    np.testing.assert_allclose(probabilities, expected, atol=1e-15)


def test_of_equal_offers_the_first_wins_and_an_offer_worth_nothing_loses_to_control():
    net_value = np.array([[7.0, 7.0], [0.0, 0.0]])
    probabilities = treatment_probabilities(net_value, np.ones((2, 2), bool), np.zeros(2, bool), exploration=0.0)
    assert probabilities.argmax(axis=1).tolist() == [1, 0]


def test_a_dearer_budget_never_sends_more():
    rng = np.random.default_rng(3)
    uplift, cost = rng.normal(0, 100, (500, 3)), np.array([10.0, 30.0, 90.0])
    sent = []
    for price in (0.0, 0.5, 2.0, 50.0):
        net_value = net_values(uplift, cost, budget_price=price)
        probabilities = treatment_probabilities(
            net_value, np.ones_like(uplift, bool), np.zeros(500, bool), exploration=0.0
        )
        sent.append(probabilities[:, 1:].sum())
    assert sent == sorted(sent, reverse=True)
    assert sent[0] > sent[-1] == 0


@PATIENT
@given(situations(), st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_higher_bar_never_sends_more_and_nothing_that_is_not_above_it(situation, one, two):
    net_value, eligible, held_out, _ = situation
    low, high = sorted([one, two])
    sent = [
        treatment_probabilities(net_value, eligible, held_out, exploration=0.0, bar=np.full(net_value.shape, bar))[
            :, 1:
        ]
        for bar in (low, high)
    ]
    assert (sent[1].sum(axis=1) <= sent[0].sum(axis=1)).all()
    assert (net_value[sent[1] > 0] > high).all()
    # Who still gets something gets the same: a bar takes offers away, and the best is the last to go.
    still = sent[1].any(axis=1)
    np.testing.assert_array_equal(sent[1][still], sent[0][still])


def test_an_offer_that_is_not_sure_gives_way_to_the_next_that_is():
    net_value, bar = np.array([[50.0, 20.0]]), np.array([[60.0, 10.0]])
    probabilities = treatment_probabilities(
        net_value, np.ones((1, 2), bool), np.zeros(1, bool), exploration=0.0, bar=bar
    )
    assert probabilities.tolist() == [[0.0, 0.0, 1.0]]


@pytest.mark.parametrize("bar", [-1.0, float("nan")])
def test_a_bar_that_lets_losses_through_is_refused(bar):
    with pytest.raises(ContractError, match="at least 0 was wanted"):
        treatment_probabilities(np.zeros((1, 1)), np.ones((1, 1), bool), np.zeros(1, bool), exploration=0.1, bar=bar)


def test_draws_come_as_often_as_their_probability_says():
    rng = np.random.default_rng(20)
    probabilities = np.array([0.03, 0.0, 0.9, 0.07, 0.0])
    n = 200_000
    drawn = draw(np.broadcast_to(probabilities, (n, 5)), rng.random(n))
    counts = np.bincount(drawn, minlength=5)
    assert counts[1] == counts[4] == 0
    possible = probabilities > 0
    assert chisquare(counts[possible], n * probabilities[possible]).pvalue > 1e-3


def test_inverse_propensity_weights_average_one():
    rng = np.random.default_rng(4)
    n, k = 60_000, 3
    probabilities = treatment_probabilities(
        rng.normal(0, 1, (n, k)), rng.random((n, k)) < 0.8, rng.random(n) < 0.05, exploration=0.2
    )
    drawn = draw(probabilities, rng.random(n))
    # Each treatment's indicator over its propensity estimates the share of members who could have had it.
    for treatment in range(1 + k):
        could = probabilities[:, treatment] > 0
        p = probabilities[could, treatment]
        weights = (drawn[could] == treatment) / p
        error = np.sqrt(np.mean(1 / p - 1) / could.sum())
        assert abs(weights.mean() - 1) < 4 * error


@PATIENT
@given(npst.arrays(np.float64, (3, 4), elements=st.floats(0, 1)), st.floats(0, 1, exclude_max=True))
def test_what_has_probability_zero_is_never_drawn(raw, uniform):
    raw[:, 0] += (raw.sum(axis=1) < 1e-6).astype(float)
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    drawn = draw(probabilities, np.full(3, uniform))
    assert (probabilities[np.arange(3), drawn] > 0).all()


def test_the_edges_of_the_uniform_draw_what_is_possible():
    probabilities = np.array([[0.0, 0.7, 0.2, 0.1, 0.0]] * 2)
    assert draw(probabilities, np.array([0.0, np.nextafter(1.0, 0.0)])).tolist() == [1, 3]


def test_the_hold_out_has_its_share_and_another_salt_draws_another():
    ids = [f"m{i}" for i in range(40_000)]
    held = in_hold_out(ids, salt="holdfast", share=0.05)
    assert binom.cdf(held.sum(), len(ids), 0.05) == pytest.approx(0.5, abs=0.4995)
    other = in_hold_out(ids, salt="spring", share=0.05)
    both = (held & other).sum()
    assert binom.cdf(both, len(ids), 0.05**2) == pytest.approx(0.5, abs=0.4995)  # independent of each other


@PATIENT
@given(st.lists(st.text(min_size=1, max_size=20), max_size=20), st.text(max_size=10))
def test_who_is_held_out_depends_on_id_and_salt_alone_and_stays_in_when_the_share_grows(ids, salt):
    small, large = (in_hold_out(ids, salt=salt, share=share) for share in (0.2, 0.6))
    assert (small <= large).all()
    alone = [bool(in_hold_out([member], salt=salt, share=0.2)[0]) for member in ids]
    assert alone == small.tolist()
    assert not in_hold_out(ids, salt=salt, share=0.0).any()
    assert in_hold_out(ids, salt=salt, share=1.0).all()


def test_the_hold_out_is_the_same_in_another_process_with_another_hash_seed():
    program = (
        "from training.policy import in_hold_out;"
        "print(''.join(str(int(x)) for x in in_hold_out([str(i) for i in range(200)], salt='s', share=0.3)))"
    )
    here = "".join(str(int(x)) for x in in_hold_out([str(i) for i in range(200)], salt="s", share=0.3))
    there = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "77"}
    )
    assert there.stdout.strip() == here


def test_the_hash_is_the_documented_one():
    # Written out here by itself: another machine, or another language, has to find the same members.
    digest = hashlib.blake2b(b"holdfast\0m1", digest_size=8).digest()
    uniform = (int.from_bytes(digest, "big") >> 11) / 2**53
    assert in_hold_out(["m1"], salt="holdfast", share=uniform + 1e-9).tolist() == [True]
    assert in_hold_out(["m1"], salt="holdfast", share=uniform).tolist() == [False]


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ContractError, match=r"eligible \(2, 3\)"):
        treatment_probabilities(np.zeros((2, 2)), np.ones((2, 3), bool), np.zeros(2, bool), exploration=0.1)


@pytest.mark.parametrize("exploration", [-0.1, 1.1, float("nan")])
def test_exploration_that_is_no_probability_is_refused(exploration):
    with pytest.raises(ContractError, match="a probability was wanted"):
        treatment_probabilities(np.zeros((1, 1)), np.ones((1, 1), bool), np.zeros(1, bool), exploration=exploration)
