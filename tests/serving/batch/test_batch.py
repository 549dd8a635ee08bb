"""A batch: what is decided, what it may spend, what a kill leaves, and that the service would decide the same."""

import signal
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.decisions import DecisionLog, read_decisions
from features.errors import ContractError, NotFoundError
from features.log.standing import nobody_contacted
from features.population import latest_population
from features.programme import Programme
from serving.batch.closing import closing_sheet, preview_batch, write_decisions
from serving.batch.plan import Request, plan_batch
from serving.batch.run import decide_batch
from serving.decide import Members, Occasion, Purse
from serving.replay import replay

NOW = datetime(2017, 12, 1, 12, tzinfo=UTC)
RUN = Path(__file__).with_name("run_batch.py")


def quiet(*_):
    pass


def decide(home, out="out.parquet", now=NOW, **asked):
    plan = plan_batch(home, Request(**asked))
    batch = decide_batch(plan, now=now, progress=quiet)
    return write_decisions(plan, batch, home.root / out, progress=quiet)


def bytes_of(home):
    return {path.name: path.read_bytes() for path in sorted(home.batches.glob("*/*"))}


def settings(home, text):
    home.settings.write_text(text)


def test_everybody_active_is_decided_once_and_logged_as_a_decision(home):
    closing = decide(home, campaign_id="c")
    rows = read_decisions(home.decisions)
    active = latest_population(home).read(["member_id", "recency_days"]).to_pandas()
    assert [row["member_id"] for row in rows] == active.loc[active["recency_days"] <= 56, "member_id"].tolist()
    assert len({row["decision_id"] for row in rows}) == len(rows) == closing.tally.outcomes.total()
    assert Counter(row["outcome"] for row in rows) == closing.tally.outcomes
    assert set(closing.tally.outcomes) == {"model", "random", "hold_out", "opt_out"}
    assert {row["treatment"] for row in rows if row["outcome"] in {"hold_out", "opt_out"}} == {"control"}
    assert all(row["propensity"] == row["probabilities"][row["treatments"].index(row["treatment"])] for row in rows)


def test_the_file_says_of_each_decision_what_the_log_does(home):
    closing = decide(home)
    rows = {row["decision_id"]: row for row in read_decisions(home.decisions)}
    came = pq.read_table(home.root / "out.parquet").to_pylist()
    assert len(came) == len(rows)
    for row in came:
        logged = rows[row["decision_id"]]
        place = logged["treatments"].index(row["treatment"]) - 1
        assert row["propensity"] == logged["propensity"]
        for name in ("cost", "net_value"):
            assert row[f"expected_{name}"] == (logged[name][place] if place >= 0 else 0)
    assert closing.tally.spent == sum(row["expected_cost"] for row in came)


def test_contacts_and_spending_are_the_logs(home):
    closing = decide(home, campaign_id="c")
    rows = read_decisions(home.decisions)
    sent = [row["member_id"] for row in rows if row["treatment"] != "control"]
    with DecisionLog(home.decisions) as log:
        assert log.spent("c") == closing.tally.spent
        assert log.contacted(["A", "B"]) == [closing.tally.contacts["A"], closing.tally.contacts["B"]]
        found = log.contacts([row["member_id"] for row in rows], since=NOW - timedelta(days=1))
    assert sorted(contact.member_id for contact in found) == sorted(sent)


def test_the_same_again_decides_nothing_anew(home):
    first = decide(home, campaign_id="c")
    before = bytes_of(home)
    again = decide(home, campaign_id="c", now=NOW + timedelta(hours=1))
    assert (again.batch, again.tally, bytes_of(home)) == (first.batch, first.tally, before)


@pytest.mark.parametrize("budget", [200, 5_000, 30_000])
def test_spending_stays_within_the_budget_and_close_to_it(home, budget):
    closing = decide(home, campaign_id="c", budget=budget)
    assert closing.tally.spent <= budget
    assert closing.tally.spent > 0.8 * budget
    assert closing.batch.settings["price"] > 0


def test_a_campaigns_budget_holds_over_its_batches(home):
    settings(home, "[campaigns.c]\nbudget = 20000\n")
    spent = [decide(home, campaign_id="c", audience=stage).tally.spent for stage in ("active", "dormant")]
    assert 0 < sum(spent) <= 20_000
    with DecisionLog(home.decisions) as log:
        assert log.spent("c") == sum(spent)


def test_the_service_goes_on_at_a_batchs_prices(home, bring):
    bring(stock=pa.array([40, None, None], pa.int64()))
    closing = decide(home, campaign_id="c", budget=5_000)
    with DecisionLog(home.decisions) as log:
        base, of_stock = log.price("c")
    assert base == closing.batch.settings["price"] > 0
    assert list(of_stock.values()) == closing.batch.settings["stock_prices"]


def test_stock_never_goes_below_zero(home, bring):
    bring(stock=pa.array([40, 7, None], pa.int64()))
    closing = decide(home, campaign_id="c")
    assert (closing.tally.contacts["A"], closing.tally.contacts["B"]) == (40, 7)
    again = decide(home, campaign_id="d")
    assert not again.tally.contacts


def test_caps_hold_against_what_was_sent_before(home):
    settings(home, "[policy]\nmin_days_between_contacts = 7\n")
    decide(home, campaign_id="first", audience="loyal")
    sent = {row["member_id"] for row in read_decisions(home.decisions) if row["treatment"] != "control"}
    decide(home, campaign_id="second", audience="recency_days >= 0", now=NOW + timedelta(days=1))
    rows = [row for row in read_decisions(home.decisions) if row["campaign_id"] == "second"]
    again = [row for row in rows if row["member_id"] in sent]
    assert len(again) == len(sent)
    assert {word for row in again for word in row["refusals"]} <= {"contacts", "validity", "opt_out"}
    assert {row["treatment"] for row in again} == {"control"}
    assert all(row["standing"]["since_any"] == pytest.approx(1) for row in again)


@pytest.mark.parametrize("asked", [{}, {"budget": 9_000}])
def test_a_replay_takes_every_decision_again_but_for_the_reasons_that_batches_leave_out(home, bring, asked):
    settings(home, "[policy]\nmin_days_between_contacts = 7\n")
    bring(stock=pa.array([100, None, None], pa.int64()), eligible=["recency_days > 3", "tier != 'x'", None])
    decide(home, campaign_id="c", **asked)
    rows = read_decisions(home.decisions)
    found = list(replay(home, rows))
    assert len(found) == len(rows)
    assert {name for one in found for name in one.differing} <= {"reasons"}


def test_the_service_would_decide_the_same_with_the_same_draws(home):
    plan = plan_batch(home, Request(campaign_id="c"))
    decide(home, campaign_id="c")
    rows = read_decisions(home.decisions)
    decider, k = plan.decider, len(plan.decider.release.offer_ids)
    purse = Purse(np.inf, np.full(k, np.inf), 0.0, np.zeros(k))
    for row in rows[::50]:
        members = Members(
            row["features"][None, :].copy(),
            np.zeros(1, dtype=np.int8),
            *decider.drawn([row["member_id"]]),
            {name: np.array([value], dtype=object) for name, value in row["facts"].items()},
            nobody_contacted(1, k),
        )
        worth = decider.weigh(members, "c")
        occasion = Occasion(row["decided_at"], "c", None, purse)
        choice = decider.choose(members, worth, occasion=occasion, uniform=np.array([row["draw"]]))
        assert choice.probabilities[0].tolist() == row["probabilities"]
        assert decider.treatments[choice.chosen[0]] == row["treatment"]


@pytest.mark.parametrize("parts", [0, 1, 3])
def test_a_batch_that_was_killed_goes_on_and_ends_as_if_it_had_not_been(home, bring, parts):
    bring(stock=pa.array([60, None, None], pa.int64()))
    decide(home, campaign_id="c", budget=9_000)
    whole, logged = bytes_of(home), read_decisions(home.decisions)
    for path in (*home.root.glob("decisions.db*"), *home.batches.glob("*/*"), home.root / "out.parquet"):
        path.unlink()
    killed = subprocess.run([sys.executable, RUN, home.root, str(parts)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (
        len(list(home.batches.glob("*/part-*"))) == parts + 1
    )  # the last is on the disk, and the log knows nothing of it
    decide(home, campaign_id="c", budget=9_000)
    assert bytes_of(home) == whole
    assert str(read_decisions(home.decisions)) == str(logged)


def test_a_rehearsal_says_what_budgets_would_earn_and_leaves_no_trace(home):
    plan = plan_batch(home, Request(campaign_id="c", budget=9_000))
    preview = preview_batch(plan, now=NOW, progress=quiet)
    assert 0 < preview.spent <= 9_000 * 1.001
    assert (np.diff(preview.curve.earned) >= 0).all()
    assert (np.diff(preview.curve.marginal) <= 1e-9).all()
    assert not home.decisions.exists()
    assert not home.batches.exists()


def test_a_rehearsal_counts_on_the_stock_and_the_budget_that_are_left(home, bring):
    settings(home, "[campaigns.c]\nbudget = 9000\n")

    def rehearsed():
        return preview_batch(plan_batch(home, Request(campaign_id="c")), now=NOW, progress=quiet)

    plenty = rehearsed()
    bring(stock=pa.array([60, None, None], pa.int64()))
    short = rehearsed()
    assert short.curve.budget[-1] < plenty.curve.budget[-1]
    assert short.curve.earned[-1] < plenty.curve.earned[-1]
    assert (np.diff(short.curve.earned) >= 0).all()
    decide(home, campaign_id="c", budget=6_000)
    after = rehearsed()
    assert after.spent <= 4_000 < short.spent
    assert after.curve.earned[-1] < short.curve.earned[-1]  # some of the sixty are gone


def test_a_budget_that_chance_alone_spends_has_the_price_of_what_it_would_earn_and_says_so(home):
    """No price keeps chance from spending: one that is raised until it does would be beyond all measure."""
    closings = [decide(home, f"{budget}.parquet", budget=budget) for budget in (100, 9_000)]
    said = [" ".join(closing_sheet(closing, "-", Programme()).notes) for closing in closings]
    assert ["chance alone (exploration, the random arm) would spend" in notes for notes in said] == [True, False]
    assert closings[0].tally.spent <= 100
    few, many = (
        preview_batch(plan_batch(home, Request(budget=budget)), now=NOW, progress=quiet) for budget in (100, 9_000)
    )
    assert many.by_chance is None
    assert 100 < few.by_chance <= 9_000
    assert many.price <= few.price <= few.curve.marginal[0]


def test_what_can_not_be_decided_is_refused_before_anything_is_written(home):
    settings(home, "[campaigns.spring]\nbudget = 100\n")
    with pytest.raises(ContractError, match=r"--budget -1 came, an amount above 0"):
        plan_batch(home, Request(budget=-1))
    with pytest.raises(ContractError, match=r"--campaign winter came, holdfast.toml knows spring"):
        plan_batch(home, Request(campaign_id="winter"))
    with pytest.raises(ContractError, match=r"recency_days > 1000, is nobody of 2,000 members"):
        plan_batch(home, Request(audience="recency_days > 1000"))
    (home.releases / "ledger.jsonl").unlink()
    with pytest.raises(NotFoundError, match=r"holdfast train"):
        plan_batch(home, Request())
