import json
from dataclasses import replace

import pytest

from training.judging.findings import DataChecks, Evidence, Gate, GroupRow
from training.metrics import Estimate
from training.promotion import evidence_from_json, judge


def about(value, spread=0.01):
    return Estimate(value, value - spread, value + spread, 5000)


SOUND = DataChecks(repeated=0, shared=0.0, fewest_of_a_class=400, best_feature="visits_56d", best_feature_auc=0.76)
YOUNG = GroupRow("age", "below 30", 640, about(0.01, 0.01), about(-0.05, 0.02))
GOOD = Evidence(
    experiment="randomised",
    auc=about(0.86),
    auc_over_best_feature=about(0.03),
    calibration_error=about(0.02),
    against_no_contact=about(40.0, 15.0),
    against_best_fixed=about(9.0, 12.0),
    effective_sample_size=900.0,
    sample_ratio_p=0.4,
    balance_p=0.6,
    personalised=True,
    fewest_of_an_arm=500,
    data=SOUND,
    groups=(YOUNG,),
    auc_spread=about(0.03),
    score_shift=0.02,
    top_overlap=0.8,
    milliseconds=(0.3, 0.9),
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
        ({"auc": about(0.505)}, "not shown to rank better than chance"),
        ({"effective_sample_size": 40.0}, "worth 40 decisions"),
        ({"sample_ratio_p": 1e-6}, "disagree with the plan"),
        ({"balance_p": 1e-6}, "the arms' members disagree with the plan"),
        ({"fewest_of_an_arm": 1}, "the arm with the fewest members has 1, at least 30 wanted"),
        ({"data": replace(SOUND, foreknown=("visits_28d",))}, "visits_28d change where all that came later is made up"),
        ({"data": replace(SOUND, repeated=3)}, "3 rows are of a member and a date that came before"),
        ({"data": replace(SOUND, shared=0.2)}, "20.0% of the test's rows are also in the training"),
        ({"data": replace(SOUND, fewest_of_a_class=4)}, "the test has 4 members of the rarer class"),
        ({"data": replace(SOUND, best_feature_auc=0.99)}, "visits_56d alone ranks who left with an AUC of 0.990"),
        ({"groups": (replace(YOUNG, calibration_gap=about(0.08)),)}, "age below 30: predicted churn differs"),
        ({"groups": (replace(YOUNG, calibration_gap=about(-0.08)),)}, "age below 30: predicted churn differs"),
        (
            {"groups": (replace(YOUNG, contact_gap=about(0.4)),)},
            "age below 30: the contact rate differs",
        ),
        ({"auc_spread": about(0.2, 0.05)}, "the AUC of the test's dates differs by 0.200 [0.150, 0.250]"),
        ({"score_shift": 0.4}, "scores moved by a stability index of 0.400"),
        ({"top_overlap": 0.1}, "10% of those at most risk are so by the champion"),
        ({"milliseconds": (9.0, 1.0)}, "scoring 1 member took 9.0 ms, at most 5 wanted"),
        ({"milliseconds": (1.0, 90.0)}, "scoring 100 members took 90.0 ms, at most 25 wanted"),
        ({"auc": about(float("nan"))}, "not a finite number: auc"),
        ({"groups": (replace(YOUNG, contact_gap=about(float("nan"))),)}, "not a finite number: groups"),
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


def test_of_few_members_a_model_that_is_not_shown_to_be_worse_than_one_feature_may_serve():
    """Of the 404 members of a small shop the lead over one feature is known to 0.018 at best."""
    found = judge(replace(GOOD, auc=about(0.707, 0.05), auc_over_best_feature=about(0.0, 0.018)), None)
    assert found.promote
    assert "for: AUC over the best single feature 0.000 [-0.018, 0.018]" in found.reasons


def test_dates_of_few_members_may_differ_by_chance():
    assert judge(replace(GOOD, auc_spread=about(0.16, 0.12)), None).promote


@pytest.mark.parametrize("experiment", ["not identified", "observational", ""])
def test_nothing_acts_on_an_effect_that_is_not_identified_however_large(experiment):
    why = ("propensity AUC 0.92, at most 0.80 wanted", "the placebo fails: 36 $ a week before the campaign")
    evidence = replace(GOOD, experiment=experiment, not_identified=why, against_no_contact=about(1e6))
    verdict = judge(evidence, None)
    assert not verdict.promote
    (against,) = (reason for reason in verdict.reasons if reason.startswith("against"))
    assert all(reason in against for reason in why)
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


@pytest.mark.parametrize(
    ("difference", "promoted"), [(about(2.0, 5.0), True), (about(-2.0, 5.0), True), (about(-6.0, 5.0), False)]
)
def test_the_champions_recipe_on_newer_data_may_not_be_shown_to_be_worse(difference, promoted):
    anew = replace(GOOD, refreshes=True, against_champion=difference)
    verdict = judge(anew, CHAMPION)
    assert verdict.promote is promoted
    (said,) = (reason for reason in verdict.reasons if "learned anew on newer data" in reason)
    assert ("is not shown to be worse than" in said) is promoted
    assert not judge(anew, replace(CHAMPION, personalised=False)).promote  # one offer for all is kept until beaten


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


# One offer for all, and one for each


ONE_FOR_ALL = replace(CHAMPION, personalised=False)


@pytest.mark.parametrize(
    ("difference", "promoted"), [(about(2.0, 5.0), False), (about(5.0, 5.0), False), (about(6.0, 5.0), True)]
)
def test_telling_members_apart_has_to_beat_a_champion_that_sends_all_the_same(difference, promoted):
    verdict = judge(replace(CHALLENGER, against_champion=difference), ONE_FOR_ALL)
    assert verdict.promote is promoted
    assert any("one offer for all" in reason for reason in verdict.reasons)


def test_where_members_do_not_differ_the_best_fixed_offer_is_kept_and_may_follow_itself():
    as_before = Estimate(0.0, 0.0, 0.0, 5000)
    assert judge(replace(CHALLENGER, personalised=False, against_champion=as_before), ONE_FOR_ALL).promote
    assert not judge(replace(CHALLENGER, against_champion=as_before), ONE_FOR_ALL).promote


# A release without offers


SILENT = replace(
    GOOD,
    experiment="none",
    against_no_contact=None,
    against_best_fixed=None,
    effective_sample_size=None,
    not_identified=("there are no contacts",),
)


def test_a_release_that_makes_no_offer_needs_no_experiment():
    verdict = judge(SILENT, None)
    assert verdict.promote
    assert "for: it makes no offer: there are no contacts" in verdict.reasons
    assert judge(SILENT, SILENT).promote


def test_it_does_not_follow_a_champion_that_makes_offers():
    verdict = judge(SILENT, CHAMPION)
    assert not verdict.promote
    assert "against: the champion makes offers: following it with none would end them unseen" in verdict.reasons


def test_offers_may_follow_a_champion_without_any_if_they_pay():
    assert judge(replace(CHALLENGER, against_champion=about(40.0, 15.0)), SILENT).promote
    assert not judge(replace(CHALLENGER, against_champion=about(-40.0, 15.0)), SILENT).promote


# Groups


def test_a_gap_that_may_be_chance_is_none():
    unsure = replace(YOUNG, calibration_gap=about(0.08, 0.05))
    assert judge(replace(GOOD, groups=(unsure,)), None).promote


def test_a_group_of_few_is_named_and_not_judged():
    few = replace(YOUNG, members=99, calibration_gap=about(0.5))
    verdict = judge(replace(GOOD, groups=(few,)), None)
    assert verdict.promote
    assert "for: too few members to judge, below 100: age below 30" in verdict.reasons


def test_data_come_first_and_money_before_the_rest():
    reasons = judge(CHALLENGER, CHAMPION).reasons
    places = [
        next(place for place, reason in enumerate(reasons) if words in reason)
        for words in ("rarer class", "randomised", "no contact", "calibration error", "groups", "dates differs", "took")
    ]
    assert places == sorted(places)
