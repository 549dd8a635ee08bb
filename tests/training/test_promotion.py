import json
from dataclasses import replace

import pytest

from training.metrics import Estimate
from training.promotion import Evidence, Gate, evidence_from_json, judge


def about(value, spread=0.01):
    return Estimate(value, value - spread, value + spread, 5000)


GOOD = Evidence(
    experiment="randomised",
    auc=about(0.86),
    auc_over_best_feature=about(0.03),
    calibration_error=about(0.02),
    against_no_contact=about(40.0, 15.0),
    against_best_fixed=about(9.0, 12.0),
    effective_sample_size=900.0,
    sample_ratio_p=0.4,
)
CHAMPION = replace(GOOD, auc=about(0.85))
CHALLENGER = replace(GOOD, against_champion=about(6.0, 5.0))


def test_a_good_first_release_is_promoted_with_its_reasons_in_numbers():
    verdict = judge(GOOD, None)
    assert verdict.promote
    assert all(reason.startswith("for: ") for reason in verdict.reasons)
    assert "for: its policy earns more than no contact: +40.0 [+25.0, +55.0] a decision" in verdict.reasons
    assert any("can't be told from the best fixed offer" in reason for reason in verdict.reasons)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"against_no_contact": about(-20.0, 5.0)}, "earns less than no contact"),
        ({"against_best_fixed": about(-20.0, 5.0)}, "earns less than the best fixed offer"),
        ({"against_no_contact": None}, "not compared with no contact"),
        ({"calibration_error": about(0.07)}, "calibration error 0.070"),
        ({"auc": about(0.985)}, "a feature that knows the future"),
        ({"auc_over_best_feature": about(-0.02)}, "best single feature -0.020"),
        ({"effective_sample_size": 40.0}, "worth 40 decisions"),
        ({"sample_ratio_p": 1e-6}, "disagree with the plan"),
        ({"auc": about(float("nan"))}, "not a finite number: auc"),
        ({"sample_ratio_p": float("inf")}, "not a finite number: sample_ratio_p"),
    ],
)
@pytest.mark.parametrize("champion", [None, CHAMPION])
def test_one_bad_finding_is_enough_to_refuse_and_is_named(change, reason, champion):
    verdict = judge(replace(CHALLENGER, **change), champion)
    assert not verdict.promote
    against = [line for line in verdict.reasons if line.startswith("against: ")]
    assert len(against) == 1
    assert reason in against[0]


@pytest.mark.parametrize("experiment", ["not identified", "observational", ""])
def test_nothing_acts_on_an_effect_that_is_not_identified_however_large(experiment):
    why = ("propensity AUC 0.92, at most 0.80 wanted", "the placebo fails: 36 $ a week before the campaign")
    evidence = replace(GOOD, experiment=experiment, not_identified=why, against_no_contact=about(1e6))
    verdict = judge(evidence, None)
    assert not verdict.promote
    assert all(reason in verdict.reasons[0] for reason in why)
    assert not any("minor units" in reason for reason in verdict.reasons)  # no money is claimed for it


def test_a_challenger_has_to_show_that_it_is_not_worse_than_the_champion():
    assert judge(CHALLENGER, CHAMPION).promote
    unsure = replace(GOOD, against_champion=about(2.0, 5.0))
    verdict = judge(unsure, CHAMPION)
    assert not verdict.promote
    assert "against: its policy is not shown to be as good as the champion's: +2.0 [-3.0, +7.0]" in "".join(
        verdict.reasons
    )
    assert judge(unsure, CHAMPION, gate=Gate(champion_margin=3.5)).promote


def test_a_better_ranking_does_not_buy_a_worse_policy():
    dazzling = replace(GOOD, auc=about(0.95), auc_over_best_feature=about(0.1), against_champion=about(-8.0, 5.0))
    assert not judge(dazzling, CHAMPION).promote


def test_a_policy_that_decides_as_the_champion_may_follow_it():
    assert judge(replace(GOOD, against_champion=Estimate(0.0, 0.0, 0.0, 5000)), CHAMPION).promote


def test_a_champion_without_a_paired_comparison_stays():
    verdict = judge(GOOD, CHAMPION)
    assert not verdict.promote
    assert "against: its policy was not compared with the champion's on the same decisions" in verdict.reasons


def test_evidence_survives_json():
    for evidence in (GOOD, CHALLENGER, replace(GOOD, against_best_fixed=None, not_identified=("no overlap",))):
        assert evidence_from_json(json.loads(json.dumps(evidence.to_json(), allow_nan=False))) == evidence
