from dataclasses import replace

import pytest

from features.programme import Programme
from training.sheets.offer_sheets import offer_sheets


def with_(parts, **evidence):
    return replace(parts.manifest, evidence=parts.manifest.evidence | evidence)


def of(manifest):
    """Give the sheets of policies, uplift, redemption and overlap."""
    return list(offer_sheets(manifest, Programme()))


def test_a_log_says_what_it_would_find_of_a_difference_and_the_interval_of_resampled_members(parts):
    policies, _, _, _ = of(parts.manifest)
    assert policies.notes[2] == (
        "Over best fixed, by resampled members: +0.30 [+0.07, +0.53]. "
        "This log would find a difference of 0.24 USD a decision from it in 4 of 5 cases."
    )


def test_a_policy_that_is_the_best_fixed_offer_is_called_so(parts, evidence, about):
    table = evidence["policies"]["table"]
    nothing = table["no contact"] | {"smallest_detectable_effect": 31.0}
    same = table | {"no contact": nothing, "model": table["model"] | {"against_best_fixed": about(0.0, 0.0)}}
    policies, _, _, _ = of(with_(parts, policies=evidence["policies"] | {"table": same}))
    assert policies.notes[2] == (
        "The model sends everybody the best fixed offer. "
        "This log would find a difference of 0.31 USD a decision from no contact in 4 of 5 cases."
    )


def test_every_offer_stands_with_every_metric_beside_its_rivals(parts):
    _, uplift, _, _ = of(parts.manifest)
    assert uplift.title == ("Uplift: SIMULATED experiment, USD per member within 28 days, before contact costs")
    assert uplift.header == ("", "model", "by churn probability", "random")
    rows = {row[0]: row[1:] for row in uplift.rows}
    assert list(rows)[:5] == [
        "A: Qini coefficient",
        "A: AUUC",
        "A: uplift, top 10 %",
        "A: uplift, top 30 %",
        "A: calibration error",
    ]
    assert rows["A: Qini coefficient"] == ("0.60 [0.53, 0.67]", "0.48 [0.41, 0.55]", "0.00 [-0.07, 0.07]")
    assert rows["B: calibration error"] == ("0.31 [0.20, 0.42]", "", "")  # a ranking promises nothing


def test_an_interval_that_spans_0_is_said_in_words_and_so_is_what_came_of_promises(parts):
    _, uplift, _, _ = of(parts.manifest)
    assert uplift.notes[:2] == (
        (
            "A: it ranks better than chance; it ranks better than churn probability "
            "(lead in Qini +0.12 [+0.07, +0.17]). "
            "Of 3 groups of like promise, 2 have it within the interval of what came."
        ),
        (
            "B: whether it ranks better than chance is not known, the interval spans 0; "
            "whether it ranks better than churn probability is not known, the interval spans 0 "
            "(lead in Qini -0.02 [-0.07, +0.03]). What was promised lies within the interval of what came."
        ),
    )


@pytest.mark.parametrize(
    ("value", "half", "words"),
    [
        (-20.0, 5.0, "A: it ranks worse than chance"),
        (0.0, 0.0, "A: it promises everybody the same, so it ranks nobody."),
    ],
)
def test_a_ranking_that_is_worse_or_none_is_called_so(parts, evidence, about, *, value, half, words):
    found = evidence["uplift_table"]["A"]
    model = found["rows"]["model"] | {"qini_coefficient": about(value, half)}
    other = found | {"rows": found["rows"] | {"model": model}}
    _, uplift, _, _ = of(with_(parts, uplift_table={"A": other}))
    assert uplift.notes[0].startswith(words)


def test_what_the_log_has_seen_is_shown_by_treatment(parts):
    _, _, _, overlap = of(parts.manifest)
    assert overlap.rows == (
        ("control", "1,234", "0%", "0", "0.0", "not taken", "not taken"),
        ("A", "1,234", "75%", "1,759", "3.0", "102%", "25%"),
        ("B", "1,234", "25%", "586", "1.0", "97%", "25%"),
    )


def test_what_an_offer_does_to_who_stays_is_in_points(parts):
    sheet = next(offer_sheets(parts.manifest, Programme()))
    assert "by each offer on average: A +2.1 [+0.9, +3.3], B +0.0 [-1.0, +1.0]." in " ".join(sheet.notes)


def test_redemption_is_shown_beside_its_mean_rate(parts):
    _, _, redemption, _ = of(parts.manifest)
    assert redemption.rows == (
        (
            "A",
            "2,000",
            "18.3% [16.9%, 19.7%]",
            "17.9% [17.5%, 18.3%]",
            "0.412 [0.391, 0.433]",
            "-0.0312 [-0.0366, -0.0258]",
        ),
    )


def test_without_redemptions_it_is_not_known_whether_margins_are_after_their_cost(parts):
    _, _, redemption, _ = of(with_(parts, redemption={}))
    assert redemption.header == ("not known, because",)
    assert "the chance is taken as 0, and whether margins are after its cost is not known" in redemption.rows[0][0]
