import numpy as np
import pandas as pd
import pytest

from features.errors import ContractError
from training.logged.observational import ObservationalEffect, observational_effect

EFFECT = 300.0


def campaign(*, targeting: float, n: int = 4000, hidden: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Make households of which the heavy buyers are contacted, the more so the higher `targeting`.

    `hidden` is what a trait that is not recorded adds to spend, before and after, of those it gets contacted.
    """
    rng = np.random.default_rng(seed)
    heavy, other, trait = rng.normal(size=(3, n))
    chance = 1 / (1 + np.exp(-targeting * heavy - (1.5 * trait if hidden else 0.0)))
    treated = (rng.random(n) < chance).astype(int)
    level = 4000 + 1500 * heavy + hidden * trait
    return pd.DataFrame(
        {
            "member_id": [f"m{i}" for i in range(n)],
            "spend_84d": np.exp(9 + 0.8 * heavy),
            "visits_28d": np.where(rng.random(n) < 0.02, np.nan, 5 + other),
            "treated": treated,
            "outcome": level + EFFECT * treated + rng.normal(0, 800, n),
            "placebo_outcome": level + rng.normal(0, 800, n),
        }
    )


def judged(frame: pd.DataFrame) -> ObservationalEffect:
    return observational_effect(frame, features=["spend_84d", "visits_28d"], rng=np.random.default_rng(1))


def covers(found: ObservationalEffect) -> bool:
    half = (found.effect.upper - found.effect.lower) / 2
    return abs(found.effect.value - EFFECT) < 2 * half  # four standard errors


def test_a_random_contact_is_called_randomised_and_its_effect_found():
    found = judged(campaign(targeting=0.0))
    assert found.verdict == "randomised", found.reasons
    assert found.propensity_auc < 0.55
    assert found.overlap_share > 0.99
    assert covers(found)


def test_a_mildly_targeted_contact_is_adjusted_for():
    found = judged(campaign(targeting=0.8))
    assert found.verdict == "adjusted", found.reasons
    assert covers(found)
    assert found.naive.lower > EFFECT + 500  # heavy buyers were contacted, so the two means differ by far more
    assert found.imbalance_after < 0.25 < found.imbalance_before
    assert "AUC" in found.reasons[0]


def test_a_contact_of_the_heavy_buyers_alone_is_not_identified():
    found = judged(campaign(targeting=12.0))
    assert found.verdict == "not identified"
    assert found.propensity_auc > 0.95
    assert found.overlap_share < 0.5
    assert any("propensity of 0.1 to 0.9" in reason for reason in found.reasons)


def test_an_unrecorded_reason_for_the_contact_is_caught_by_the_placebo():
    found = judged(campaign(targeting=0.3, hidden=1500.0))
    assert found.verdict == "not identified"
    assert found.placebo.lower > 0
    assert any("placebo fails" in reason for reason in found.reasons)


def test_rows_of_one_member_are_one_piece_of_evidence():
    once = campaign(targeting=0.0, n=2000)
    found, repeated = judged(once), judged(pd.concat([once] * 4, ignore_index=True))
    # Four copies of every member know no more than one: at equal evidence the interval may not halve.
    widths = [result.naive.upper - result.naive.lower for result in (found, repeated)]
    assert widths[1] == pytest.approx(widths[0], rel=0.01)


def test_the_same_stream_gives_the_same_figures():
    frame = campaign(targeting=0.5, n=1500)
    assert judged(frame) == judged(frame)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda frame: frame.drop(columns="placebo_outcome"), "placebo_outcome"),
        (lambda frame: frame.assign(outcome=np.nan), "missing values"),
        (lambda frame: frame.assign(treated=1), "members by treated"),
        (
            lambda frame: frame.assign(placebo_outcome=frame["spend_84d"] * 0.25),
            "the placebo is the feature 'spend_84d'",
        ),
    ],
)
def test_a_frame_that_breaks_the_contract_is_refused(spoil, message):
    frame = spoil(campaign(targeting=0.0, n=200))
    with pytest.raises(ContractError, match=message):
        judged(frame)
