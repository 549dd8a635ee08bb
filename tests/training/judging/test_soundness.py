import numpy as np
import pandas as pd

from training.judging.soundness import auc_spread, check_data, population_stability, top_overlap

FEATURES = ("noise", "other")


def rows(n, seed, prefix="m"):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "member_id": [f"{prefix}{i}" for i in range(n)],
            "as_of": pd.Timestamp("2017-06-05", tz="UTC"),
            "churned": rng.integers(0, 2, n),
            "margin": rng.integers(0, 10_000, n),
            "noise": rng.normal(size=n),
            "other": np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)),
        }
    )


def test_sound_data_are_called_sound():
    learn, test = rows(500, 0), rows(300, 1, "t")
    found = check_data(learn, test, FEATURES)
    assert (found.repeated, found.shared) == (0, 0.0)
    assert found.fewest_of_a_class == test["churned"].value_counts().min()
    assert found.best_feature_auc < 0.6


def test_a_feature_that_knows_the_answer_is_named_either_way_round():
    learn = rows(500, 0)
    for sign in (1, -1):
        found = check_data(learn.assign(other=sign * learn["churned"]), rows(300, 1, "t"), FEATURES)
        assert (found.best_feature, found.best_feature_auc) == ("other", 1.0)


def test_a_feature_whose_gaps_know_the_answer_is_named_too():
    learn = rows(500, 0)
    for known in (0, 1):
        betrayed = learn.assign(other=np.where(learn["churned"] == known, 0.5, np.nan))
        found = check_data(betrayed, rows(300, 1, "t"), FEATURES)
        assert (found.best_feature, found.best_feature_auc) == ("other", 1.0)


def test_a_member_who_comes_twice_is_counted_in_one_part_and_across():
    learn, test = rows(500, 0), rows(300, 1, "t")
    assert check_data(pd.concat([learn, learn[:7]]), test, FEATURES).repeated == 7
    assert check_data(learn, pd.concat([test, learn[:5]]), FEATURES).repeated == 5


def test_rows_that_stand_on_both_sides_of_the_split_are_found():
    learn, test = rows(500, 0), rows(300, 1, "t")
    copied = learn[:100].assign(member_id=[f"c{i}" for i in range(100)])
    assert check_data(learn, pd.concat([test, copied]), FEATURES).shared == 0.25


def test_dates_with_one_class_say_nothing_of_the_spread():
    spread = auc_spread(np.zeros(4), np.arange(4.0), pd.Series([1, 1, 2, 2]))
    assert (spread.value, spread.upper, spread.n) == (0.0, 0.0, 0)


def dates_apart(rng, *, members, signal):
    """Say how far nine dates are apart, on each of which so many members are ranked by their own signal."""
    dates = pd.Series(np.repeat(np.arange(9), members))
    churned = (rng.random(len(dates)) < 0.2).astype(float)
    return auc_spread(churned, rng.normal(size=len(dates)) + churned * np.repeat(signal, members), dates)


def test_dates_that_differ_by_chance_are_said_to_in_about_one_of_twenty():
    rng = np.random.default_rng(2)
    found = [dates_apart(rng, members=150, signal=np.full(9, 1.2)) for _ in range(300)]
    assert np.mean([one.value > 0.1 for one in found]) > 0.5  # what would have been refused
    assert np.mean([one.lower > 0 for one in found]) < 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5


def test_a_date_on_which_the_model_says_nothing_is_found():
    signal = np.full(9, 1.2)
    signal[4] = 0.0  # an AUC of 0.5 among others of 0.8
    assert dates_apart(np.random.default_rng(3), members=2_000, signal=signal).lower > 0.1


def test_scores_that_move_are_told_from_chance():
    rng = np.random.default_rng(0)
    reference = rng.beta(2, 5, 5000)
    assert population_stability(reference, rng.beta(2, 5, 5000)) < 0.02
    assert population_stability(reference, np.minimum(1.0, 1.6 * rng.beta(2, 5, 5000))) > 0.25
    assert population_stability(np.full(100, 0.2), np.full(100, 0.2)) == 0.0


def test_the_top_of_a_ranking_overlaps_itself():
    scores = np.random.default_rng(0).random(200)
    assert top_overlap(scores, 2 * scores) == 1.0
