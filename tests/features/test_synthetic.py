import numpy as np
import pandas as pd
import pytest

from features.errors import ContractError
from features.synthetic import OfferTerms, oracle, overlay_experiment

OFFERS = (
    OfferTerms("A", contact_cost=40, redemption_cost=300, response="come_back"),
    OfferTerms("B", contact_cost=40, redemption_cost=250, response="category_coupons"),
    OfferTerms("C", contact_cost=40, redemption_cost=500, response="big_basket"),
)


def households(n: int = 40_000) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "member_id": [f"m{i}" for i in range(n)],
            "as_of": pd.Timestamp("2017-06-01", tz="UTC"),
            "overdue_ratio": np.where(rng.random(n) < 0.05, np.nan, rng.exponential(1.1, n)),
            "visits_28d": rng.poisson(5, n),
            "spend_84d": rng.integers(0, 100_000, n),
            "discount_share_84d": rng.beta(2, 10, n),
            "basket_mean_84d": rng.exponential(3200, n),
            "margin": rng.integers(0, 9000, n),
            "churned": rng.integers(0, 2, n),
        }
    )


def overlaid(seed: int = 1, frame: pd.DataFrame | None = None) -> pd.DataFrame:
    return overlay_experiment(households() if frame is None else frame, offers=OFFERS, rng=np.random.default_rng(seed))


def test_the_increment_of_an_arm_is_its_truth_on_average():
    frame, log = households(), overlaid()
    for offer, truth in zip("ABC", oracle(log, "ABC").T, strict=True):
        rows = (log["treatment"] == offer).to_numpy()
        noise = (log["outcome"] - frame["margin"]).to_numpy()[rows] - truth[rows]
        assert abs(noise.mean()) < 4 * noise.std() / np.sqrt(rows.sum())
    control = log["treatment"] == "control"
    assert (log["outcome"] == frame["margin"])[control].all()


def test_noise_is_independent_of_every_feature():
    frame, log = households(), overlaid()
    sent = np.zeros(len(log))
    for offer, truth in zip("ABC", oracle(log, "ABC").T, strict=True):
        sent = np.where(log["treatment"] == offer, truth, sent)
    noise = (log["outcome"] - frame["margin"]).to_numpy() - sent
    columns = frame.drop(columns=["member_id", "as_of"]).fillna(0.0)
    correlations = [np.corrcoef(noise, columns[name])[0, 1] for name in columns]
    assert np.abs(correlations).max() < 4.5 / np.sqrt(len(frame))


def test_treatment_follows_its_propensity_and_nothing_else():
    log = overlaid()
    for treatment, rows in log.groupby("treatment"):
        share = rows["propensity"].iloc[0]
        assert share == 0.25, treatment
        assert abs(len(rows) / len(log) - share) < 4 * np.sqrt(share * (1 - share) / len(log))
        for name in ("visits_28d", "spend_84d", "basket_mean_84d"):
            assert abs(rows[name].mean() - log[name].mean()) < 4.5 * log[name].std() / np.sqrt(len(rows))


def test_effects_change_sign_between_members():
    truth = oracle(overlaid(), "ABC")
    assert ((truth > 0).mean(axis=0) > 0.05).all()
    assert ((truth < 0).mean(axis=0) > 0.05).all()


def test_the_same_stream_gives_the_same_log_and_another_gives_another():
    pd.testing.assert_frame_equal(overlaid(7), overlaid(7))
    assert (overlaid(7)["treatment"] != overlaid(8)["treatment"]).any()


def test_the_margin_without_contact_is_not_in_the_log_and_the_frame_is_left_alone():
    frame = households(100)
    before = frame.copy()
    assert "margin" not in overlaid(frame=frame)
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda frame: frame.drop(columns="visits_28d"), "visits_28d"),
        (lambda frame: pd.concat([frame, frame]), "twice"),
        (lambda frame: frame.assign(margin=np.nan), "margin is missing"),
    ],
)
def test_a_frame_that_breaks_the_contract_is_refused(spoil, message):
    frame = spoil(households(50))
    with pytest.raises(ContractError, match=message):
        overlaid(frame=frame)


def test_offers_have_distinct_ids():
    with pytest.raises(ContractError, match="distinct"):
        overlay_experiment(households(50), offers=(OFFERS[0], OFFERS[0]), rng=np.random.default_rng(0))


def test_a_log_without_truth_has_no_oracle():
    with pytest.raises(ContractError, match="only a simulated log"):
        oracle(households(5), ["A"])
