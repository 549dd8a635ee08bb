"""What a finding puts at stake: decisions that change, margin a week, and the step of the runbook."""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from features.saying import saying
from monitoring.distributions import numbers_of
from monitoring.reference import summarise
from monitoring.stakes import Stakes, restored
from monitoring.verdict import RUNBOOK, Finding, FindingKind
from serving.decide import Worth

NOW = datetime(2017, 12, 1, tzinfo=UTC)
N = 1_000
PAGES = {page.stem for page in (Path(__file__).parents[2] / "docs" / "runbook").glob("*.md")}


class OneOffer:
    """Sends an offer that costs 100 and brings what `spend` says, to everybody: a release in one line."""

    release = SimpleNamespace(feature_names=("spend", "visits"), offer_ids=("A",))
    facts = ()

    def weigh(self, members, _):
        nothing = np.zeros((len(members.X), 1))
        spend = np.nan_to_num(members.X[:, :1].astype(float))
        return Worth(nothing[:, 0], nothing[:, 0], spend, spend, nothing + 100, nothing, nothing)

    def refusals(self, members, *_):
        return np.zeros((len(members.X), 1), dtype=np.uint8)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def frame(rng):
    return pd.DataFrame({"spend": rng.permutation(np.arange(N) / 5), "visits": rng.poisson(4, N).astype(float)})


def priced(frame, current, rng, kind="wasserstein"):
    reference = summarise(frame, money=["spend"], rng=rng)
    stakes = Stakes(OneOffer(), current, now=NOW, decisions_a_week=700.0, rng=rng)
    return stakes.attach([Finding("spend", kind, saying("moved")), Finding("visits", kind, saying("moved"))], reference)


def test_a_cut_of_spend_costs_what_the_offers_not_sent_would_have_earned(frame, rng):
    # spend is even on 0 .. 199.8 and the offer pays above 100; cut by 70 % nobody gets it
    spend, visits = priced(frame, frame.assign(spend=frame["spend"] * 0.3), rng)
    assert (spend.decisions, spend.decided) == (499, N)
    lost = np.maximum(frame["spend"] - 100, 0).mean()
    assert spend.margin_a_week == round(lost * 700)
    assert (visits.decisions, visits.margin_a_week) == (0, 0)  # the same column: nothing hangs on it


def test_a_column_that_did_not_move_puts_nothing_at_stake(frame, rng):
    assert [(one.decisions, one.margin_a_week) for one in priced(frame, frame, rng)] == [(0, 0)] * 2


def test_a_column_that_is_gone_is_priced_by_draws_of_what_it_was(frame, rng):
    spend, _ = priced(frame, frame.drop(columns="spend"), rng, kind="lost_column")
    assert spend.decisions == pytest.approx(N / 2, abs=4 * np.sqrt(N) / 2)  # half of the draws lie above 100


def test_of_what_no_model_reads_nothing_is_said(frame, rng):
    stakes = Stakes(OneOffer(), frame, now=NOW, decisions_a_week=1.0, rng=rng)
    word = Finding("stage", "psi", saying("moved"))
    assert stakes.attach([word], summarise(frame, money=(), rng=rng)) == (word,)


def test_restoring_keeps_the_order_and_gives_the_references_values_back(rng):
    before, current = rng.gamma(2, size=500), rng.normal(size=500)
    back = restored(current, numbers_of(before), rng)
    assert np.array_equal(np.argsort(back), np.argsort(current))
    assert np.sort(back) == pytest.approx(np.sort(before))


def test_a_flag_whose_share_moved_goes_back_to_the_share_it_had(rng):
    before, current = (np.where(rng.random(4000) < share, 1.0, 0.0) for share in (0.15, 0.85))
    back = restored(current, numbers_of(before), rng)
    assert back.mean() == pytest.approx(before.mean(), abs=4 * np.sqrt(0.15 * 0.85 / 4000))  # ranks are drawn
    assert (back <= current).all()


def test_who_is_missing_beyond_what_was_gets_a_value_and_the_others_stay_missing(rng):
    before = np.where(rng.random(4000) < 0.1, np.nan, 1.0)
    current = np.where(rng.random(4000) < 0.4, np.nan, 2.0)
    back = restored(current, numbers_of(before), rng)
    assert np.isnan(back).mean() == pytest.approx(0.1, abs=0.02)
    assert np.nanmax(back) == 1.0


def test_every_finding_leads_to_a_page_of_the_runbook():
    assert set(RUNBOOK) == set(get_args(FindingKind))
    assert set(RUNBOOK.values()) <= PAGES
    assert Finding("x", "psi", saying("moved")).runbook == "moved-values"
