"""From a batch to its report, by a file of outcomes."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from features.decisions import Decision, DecisionLog, read_blocks, read_decisions
from features.outcomes import bring_outcomes
from serving.batch.plan import Request, plan_batch
from serving.batch.run import decide_batch
from training.reporting.campaign import report_campaign

NOW = datetime(2017, 12, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=40)


def quiet(*_):
    """Nobody watches."""


def test_what_a_batch_brought_is_found_by_a_file_of_outcomes(home, tmp_path):
    home.settings.write_text("[experiment]\nhold_out = 0.2\nrandom_arm = 0.1\n")
    decide_batch(plan_batch(home, Request(campaign_id="winter")), now=NOW, progress=quiet)
    rows = pd.DataFrame(read_decisions(home.decisions))
    rng, sent = np.random.default_rng(5), rows["treatment"] != "control"
    amount = 4 * (rows["value"].fillna(0) + rng.integers(0, 1000, len(rows)) + 300 * sent)
    outcomes = {
        "outcome_id": [f"o{number}" for number in range(len(rows))],
        "decision_id": rows["decision_id"],
        "kind": "purchase",
        "occurred_at": (NOW + timedelta(days=2)).isoformat(),
        "amount": amount.astype(int),
    }
    pd.DataFrame(outcomes).to_csv(tmp_path / "outcomes.csv", index=False)
    assert bring_outcomes(home, tmp_path / "outcomes.csv", now=LATER, progress=quiet).new == len(rows)

    report = report_campaign(home, "winter", now=LATER, rng=np.random.default_rng(0))
    assert report.outcomes == dict(Counter(rows["outcome"]))
    assert report.design == "hold_out"
    drawn = rows["outcome"].isin(["model", "random"])
    truth = 300 * (sent & drawn).sum() / drawn.sum()
    assert report.whole.incremental_margin.value == pytest.approx(truth, abs=60)  # se about 290 / sqrt(300) = 17
    assert report.whole.promised == pytest.approx(_promised(rows[drawn]))
    assert report.arms_p > 0.001
    assert report.draws_p > 0.001
    assert set(report.groups) == {"arm", "offer", "lifecycle_stage", "tier"}
    assert report.standing["random eligible offer"].policy_value is not None


def test_blocks_say_of_every_decision_what_the_rows_do(home):
    decide_batch(plan_batch(home, Request(campaign_id="winter")), now=NOW, progress=quiet)
    decide_batch(plan_batch(home, Request(campaign_id="other", audience="loyal")), now=NOW, progress=quiet)
    with DecisionLog(home.decisions) as log:
        log.append([_service_decision("s1", ("control", "B"), ("",), (7,), (0.25, 0.75))], now=NOW).result()
        log.append([_service_decision("s2", ("control", "A"), (), (), ())], now=NOW).result()
    rows = {row["decision_id"]: row for row in read_decisions(home.decisions) if row["campaign_id"] == "winter"}
    blocks = read_blocks(home.decisions, "winter")
    assert sum(len(block.frame) for block in blocks) == len(rows)
    for block in blocks:
        for place, told in enumerate(block.frame.to_dict("records")):
            row, k = rows[told["decision_id"]], len(block.treatments) - 1
            assert block.treatments == tuple(row["treatments"])
            assert told["tier"] == row["facts"].get("tier")
            plain = ("member_id", "outcome", "treatment", "propensity", "release_id", "catalogue_id", "decided_at")
            assert {name: told[name] for name in plain} == {name: row[name] for name in plain}
            np.testing.assert_array_equal(block.net_value[place], row["net_value"] or [np.nan] * k)
            assert list(block.refusals[place]) == (list(row["refusals"]) or ["not_scored"] * k)
            np.testing.assert_array_equal(block.probabilities[place], row["probabilities"] or [0.0] * (1 + k))


def _service_decision(decision_id, treatments, refusals, net_value, probabilities):
    return Decision(
        decision_id=decision_id,
        member_id="m1",
        campaign_id="winter",
        decided_at=NOW,
        release_id="r",
        catalogue_id="c",
        outcome="model",
        fallback_reason=None,
        treatment="control",
        propensity=0.25,
        draw=0.1,
        treatments=treatments,
        probabilities=probabilities,
        asked=None,
        refusals=refusals,
        churn_probability=None,
        value=None,
        uplift=net_value,
        cost=net_value,
        net_value=net_value,
        price=0.0,
        stock_prices=(),
        segment=None,
        lifecycle_stage=None,
        reasons=(),
        features=b"",
        facts={},
        standing={},
        event_timestamp=None,
        source="model",
        scores=b"",
        context={},
        idempotency_key=None,
    )


def _promised(rows):
    """Average, over decisions, the net value of what each was drawn from."""
    worth = [np.dot(of["probabilities"][1:], of["net_value"]) for of in rows.to_dict("records")]
    return np.mean(worth)
