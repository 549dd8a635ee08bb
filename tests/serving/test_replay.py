"""Decisions come out byte for byte as they were logged, however many were taken at once."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from features.decisions import DecisionLog, read_decisions
from features.home import Home
from features.log.standing import standing_of
from serving.decide import Decider, Occasion, Purse
from serving.record import Request, blank_file, open_file, record
from serving.replay import replay

NOW = datetime(2017, 12, 1, 12, tzinfo=UTC)
DECISIONS, MEMBERS = 10_000, 3_000


@pytest.fixture(scope="module")
def home(release_root, constrained, decider, members, tmp_path_factory):
    """Log decisions of requests of all sizes: of strangers, of who opted out, with stock and budget running out."""
    home = Home(tmp_path_factory.mktemp("replay"))
    home.releases.symlink_to(release_root.parent)
    rng = np.random.default_rng(3)
    with DecisionLog(home.decisions) as log:
        for one in (decider, constrained):
            log.keep_catalogue(one.catalogue.catalogue_id, one.catalogue.to_json(), now=NOW)
        taken = 0
        while taken < DECISIONS:
            taken += len(ask(log, decider if rng.random() < 0.2 else constrained, members, rng, taken))
    return home


def ask(log, decider: Decider, members, rng, number):
    ids = [f"m{n}{'no' if n % 50 == 0 else ''}" for n in rng.choice(MEMBERS, rng.choice([1, 2, 7, 100]), replace=False)]
    ids += ["nobody"] if number % 3 == 0 else ["infinite"] if number % 3 == 1 else []
    now = NOW + timedelta(minutes=number)
    contacts = log.contacts(ids, since=now - timedelta(days=7))
    standing = standing_of(contacts, ids, decider.release.offer_ids, now=now, period_days=7)
    names = decider.release.feature_names
    file = (
        blank_file(decider, ids, standing)
        if number % 17 == 0
        else open_file(decider, members.online(ids, names, facts=decider.facts), standing)
    )
    campaign_id = rng.choice(["spring", "summer", None])
    purse = Purse(
        budget=4_000.0 - log.spent("spring") if campaign_id == "spring" else np.inf,
        stock=decider.stock - log.contacted(decider.release.offer_ids),
        price=0.1 + 0.2 if campaign_id else 0.0,
        stock_prices=np.array([1 / 3, 0.0, 0.0]),
    )
    asked = ("A", "B") if rng.random() < 0.2 else None
    occasion, uniform = Occasion(now, campaign_id, asked, purse), rng.random(len(ids))
    worth = decider.weigh(file.members, campaign_id)
    choice = decider.choose(file.members, worth, occasion=occasion, uniform=uniform)
    request = Request(
        occasion, uniform, [{"till": number}] * len(ids), [None] * len(ids), lambda: f"d{rng.integers(2**62)}"
    )
    decisions = record(decider, file, worth=worth, choice=choice, request=request)
    log.append(decisions, now=now).result()
    return decisions


def test_every_decision_is_replayed_byte_for_byte(home):
    rows = read_decisions(home.decisions)
    assert len(rows) >= DECISIONS
    assert {row["outcome"] for row in rows} == {"model", "random", "hold_out", "opt_out", "fallback"}
    refused = {word for row in rows for word in row["refusals"]}
    assert {"", "stock", "budget", "rule", "contacts", "offer_contacts", "precedence", "opt_out"} <= refused
    differing = [found for found in replay(home, rows) if found.differing]
    assert not differing


def test_a_row_that_was_tampered_with_is_told_apart(home):
    row = next(row for row in read_decisions(home.decisions) if row["outcome"] == "model")
    (found,) = replay(home, [{**row, "propensity": row["propensity"] / 2, "draw": row["draw"]}])
    assert found.differing == ("propensity",)


def test_neither_stock_nor_budget_is_overdrawn(home, constrained):
    rows = read_decisions(home.decisions)
    bound = [row for row in rows if row["catalogue_id"] == constrained.catalogue.catalogue_id]
    assert sum(row["treatment"] == "A" for row in bound) <= 40
    spring = [row for row in bound if row["campaign_id"] == "spring" and row["treatment"] != "control"]
    assert 0 < sum(row["cost"][row["treatments"].index(row["treatment"]) - 1] for row in spring) <= 4_000


def test_the_verbs_show_a_decision_and_replay_a_sample(home, typist):
    replayed = typist("decisions", "replay", "--sample", "50", "--home", home.root)
    assert replayed.returncode == 0, replayed.stderr
    assert "50 of 50 decisions came out byte for byte" in replayed.stdout
    row = next(row for row in read_decisions(home.decisions) if row["treatment"] == "A" and row["campaign_id"])
    shown = typist("decisions", "show", row["decision_id"], "--home", home.root)
    for word in (row["decision_id"], row["member_id"], "A (drawn)", row["release_id"], row["campaign_id"]):
        assert word in shown.stdout


def test_what_is_to_be_replayed_has_to_be_said_once(home, typist):
    for words in ((), ("d1", "--all"), ("--sample", "3", "--all")):
        refused = typist("decisions", "replay", *words, "--home", home.root)
        assert refused.returncode == 2
        assert "one of a decision's id, --sample N and --all was wanted" in refused.stderr
