"""Past scores against what followed, in a world whose chances are known."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from features.programme import Programme
from monitoring.performance import campaign_findings, cohorts, judge, score_findings, scored_rows
from training.metrics import Estimate
from training.releases.manifest import plain

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
PROMISED = {"r1": Estimate(0.75, 0.73, 0.77, 5000)}


@pytest.fixture
def rng():
    return np.random.default_rng(8)


def world(rng, n, *, weeks=1, effect=0.0, logit=0.0, noise=0.0):
    """Score members of each week; half get an offer, mostly those at high risk, which lowers their risk by `effect`.

    `logit` moves the true risk away from the predicted one; `noise` shuffles a share of the scores.
    """
    rows = []
    for week in range(weeks):
        risk = rng.normal(-1, 1.2, n)
        predicted = 1 / (1 + np.exp(-risk))
        control = np.where(predicted > 0.3, 0.3, 0.7)
        treated = rng.random(n) > control
        true = 1 / (1 + np.exp(-risk - logit)) * np.where(treated, 1 - effect, 1)
        shuffled = rng.random(n) < noise
        predicted[shuffled] = rng.permutation(predicted[shuffled])
        rows.append(
            pd.DataFrame(
                {
                    "member_id": [f"m{week}-{number}" for number in range(n)],
                    "week": MONDAY + timedelta(days=7 * week),
                    "release_id": "r1",
                    "predicted": predicted,
                    "weight": np.where(treated, 0.0, 1 / control),
                    "churned": (rng.random(n) < true).astype(float),
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def kinds(found):
    return {finding.kind for finding in score_findings(found)}


def test_sound_scores_raise_an_alarm_in_at_most_one_run_of_a_hundred():
    # the weights are what makes this true: offers halve the risk of those who get one, who are mostly at high risk
    alarms = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        alarms += bool(kinds(cohorts(world(rng, 600, weeks=2, effect=0.5), {}, rng)))
    assert alarms <= 3  # 60 runs at 1 %: four or more have probability 0.3 %


def test_rates_are_those_of_everybody_without_an_offer(rng):
    (one,) = cohorts(world(rng, 20_000, effect=0.5), PROMISED, rng)
    assert one.observed.lower < one.predicted < one.observed.upper
    assert one.off_by.value == pytest.approx(one.observed.value - one.predicted)
    assert one.auc.lower < 0.78 < one.auc.upper  # of this logit-normal world, by a million draws
    assert one.decisions < 12_000


def test_a_drifted_label_with_unchanged_features_is_found(rng):
    found = cohorts(world(rng, 3_000, logit=0.7), PROMISED, rng)
    assert kinds(found) == {"calibration"}
    (finding,) = score_findings(found)
    assert "of the week of 2026-03-02 left without an offer" in finding.sentence


def test_scores_that_rank_by_luck_are_found(rng):
    found = cohorts(world(rng, 4_000, noise=0.9), PROMISED, rng)
    assert "ranking" in kinds(found)


def test_a_week_of_few_decisions_says_nothing(rng):
    assert cohorts(world(rng, 60), PROMISED, rng) == []
    nothing = judge([], [], Programme(), waiting=60)
    assert (nothing.status, nothing.findings) == ("insufficient_data", ())
    assert "60 wait" in nothing.sentence


def test_members_who_were_gone_already_are_not_judged(rng):
    rows = world(rng, 2_000)
    rows.loc[::2, "churned"] = np.nan
    (one,) = cohorts(rows, PROMISED, rng)
    assert one.decisions < 700


def test_one_score_counts_once_and_what_has_no_score_not_at_all():
    base = {
        "member_id": "m1", "event_timestamp": MONDAY, "decided_at": MONDAY + timedelta(hours=3), "release_id": "r1",
        "churn_probability": 0.2, "propensity": 0.25, "treatment": "control", "outcome": "model",
    }  # fmt: skip
    decisions = [
        base,
        base | {"decided_at": MONDAY + timedelta(hours=4)},
        base | {"member_id": "m2", "treatment": "A"},
        base | {"member_id": "m3", "outcome": "opt_out", "churn_probability": None},
        base | {"member_id": "m4", "event_timestamp": MONDAY + timedelta(days=6)},
    ]
    rows = scored_rows(decisions, Programme())
    assert rows[["member_id", "weight"]].to_numpy().tolist() == [["m1", 4.0], ["m2", 0.0], ["m4", 4.0]]
    assert set(rows["week"]) == {pd.Timestamp(MONDAY)}
    assert (rows["matures"] - rows["as_of"]).unique().tolist() == [pd.Timedelta(days=28)]


def report(**more):
    whole = {"net_value": Estimate(100.0, 50.0, 150.0, 900), "promised": 120.0} | more.pop("whole", {})
    return SimpleNamespace(
        **{"campaign_id": "spring", "arms_p": 0.4, "draws_p": 0.4, "whole": SimpleNamespace(**whole)} | more
    )


def test_a_promise_is_broken_only_where_chance_does_not_explain_it():
    assert list(campaign_findings(report(), Programme())) == []
    (broken,) = campaign_findings(report(whole={"promised": 151.0}), Programme())
    assert broken.kind == "promise"
    assert broken.sentence == "spring brought 1.00 USD a decision after its costs; 1.51 USD was promised"
    assert list(campaign_findings(report(whole={"net_value": None}), Programme())) == []


def test_shares_that_were_not_planned_are_found():
    found = list(campaign_findings(report(arms_p=0.009, draws_p=1e-6), Programme()))
    assert [one.kind for one in found] == ["arms", "frequencies"]
    assert "p = 0.009" in found[0].sentence


def test_a_verdict_is_plain_json(rng):
    found = judge(cohorts(world(rng, 3_000, logit=0.7), PROMISED, rng), [], Programme(), waiting=3)
    told = json.loads(json.dumps(plain(found.to_json()), default=str, allow_nan=False))
    assert (told["status"], told["waiting"], told["findings"][0]["runbook"]) == ("drift", 3, "calibration")
