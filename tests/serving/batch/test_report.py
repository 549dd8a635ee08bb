"""From a batch to its report, by a file of outcomes."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from features.decisions import read_decisions
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


def _promised(rows):
    """Average, over decisions, the net value of what each was drawn from."""
    worth = [np.dot(of["probabilities"][1:], of["net_value"]) for of in rows.to_dict("records")]
    return np.mean(worth)
