"""A generator is tested for its truth: what it states has to be what its tables show, and nothing besides."""

from dataclasses import replace
from datetime import timedelta
from functools import cache

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import ContractError
from features.files import sha256
from features.intake.checks import check_values, table_diff, unknown_tables
from features.intake.mapping import SourceMapping
from features.intake.sources import Source, table_paths
from features.schema import TABLES
from features.world import history as histories
from features.world.history import BLOCK, chunks, history, write_history
from features.world.law import MARGIN_RATE, WAVE_DAYS, Drift, Offer, World
from features.world.members import draw_members
from features.world.respond import respond
from features.world.tables import member_ids
from features.world.truth import (
    churn_probability,
    effects,
    expected_outcome,
    leaving_probability,
    redemption_probability,
    truth_frame,
)

SHAPES = ("retail", "subscription", "both")
MOVED = ("amount", "visits", "hazard", "response")
N = 40_000
WAVE = 5  # the campaign that is looked at


def generator(seed=0):
    return np.random.default_rng(seed)


@cache
def lived(shape="both", members=N, **laws):
    world = World(members=members, shape=shape, **{"waves": 7, "first_campaign": 2, **laws})
    return world, history(world, generator(11))


def window(world, frame, wave, time="occurred_at"):
    days = (frame[time] - pd.Timestamp(world.start)) / pd.Timedelta(days=1)
    return frame[(days >= wave * WAVE_DAYS) & (days < (wave + 1) * WAVE_DAYS)]


def total(rows, column, ids):
    return rows.groupby("member_id")[column].sum().reindex(ids, fill_value=0).to_numpy(dtype=np.float64)


def z_scores(happened, probability, groups=10):
    """Standardise, per tenth of the stated probability, the difference between what happened and what was stated."""
    tenth = np.argsort(np.argsort(probability)) * groups // len(probability)
    gaps = [(happened - probability)[tenth == g].sum() for g in range(groups)]
    spread = [np.sqrt((probability * (1 - probability))[tenth == g].sum()) for g in range(groups)]
    return np.array(gaps) / np.array(spread)


def decisions(world, members, seed=3):
    ids = member_ids(members).to_pandas()[members.there(world.waves)]
    treatment = generator(seed).choice(world.treatments, len(ids))
    return pd.DataFrame({"member_id": ids.to_numpy(), "treatment": treatment})


# What a company would bring


def meets_the_contract(name, frame, members):
    """Every value, every id once, every row a member's."""
    once = list(TABLES[name].unique)
    mine = "member_id" not in frame or frame["member_id"].isin(members).all()
    return check_values(TABLES[name], frame)[1].isna().all() and mine and not (once and frame.duplicated(once).any())


@pytest.mark.parametrize("shape", SHAPES)
def test_not_a_row_is_refused(shape):
    world = World(members=2_000, shape=shape)
    frames = {name: table.to_pandas() for name, table in history(world, generator()).tables.items()}
    assert unknown_tables(frames) == []
    assert set(TABLES) - set(frames) == ({"subscriptions"} if shape == "retail" else set())
    for name, frame in frames.items():
        assert table_diff(name, list(frame)) == []
        assert set(frame) <= set(TABLES[name].known)  # nothing of the truth
        assert meets_the_contract(name, frame, frames["members"]["member_id"])


@settings(max_examples=8)
@given(
    seed=st.integers(0, 2**32),
    laws=st.fixed_dictionaries(
        {
            "shape": st.sampled_from(SHAPES),
            "waves": st.integers(2, 3),
            "first_campaign": st.integers(0, 1),
            "audience": st.floats(0.3, 1),
            "season": st.floats(0, 0.99),
            "drift": st.lists(
                st.builds(Drift, st.sampled_from(MOVED), st.floats(0.01, 10), st.integers(0, 3)), max_size=3
            ).map(tuple),
        }
    ),
)
def test_whatever_the_laws_not_a_row_is_refused(seed, laws):
    frames = {n: t.to_pandas() for n, t in history(World(members=1_000, **laws), generator(seed)).tables.items()}
    for name, frame in frames.items():
        assert meets_the_contract(name, frame, frames["members"]["member_id"]), name


def test_a_world_is_ingested_and_has_features(company):
    world = World(members=1_000, shape="both", waves=4, first_campaign=1)
    tables = {name: table.to_pandas() for name, table in history(world, generator()).tables.items()}
    assert {table.quarantined for table in company.ingest(tables).tables.values()} == {0}
    end = world.start + timedelta(days=world.days)
    seen = company.snapshot(tables, as_of=end)
    assert len(seen) == (tables["members"]["joined_at"] < end).sum()


@pytest.mark.parametrize("shape", SHAPES)
def test_everything_happens_while_a_member_is_one(shape):
    world, chunk = lived(shape, 2_000)
    ids, start = member_ids(chunk.members).to_pandas(), pd.Timestamp(world.start)
    leaves = np.minimum(np.ceil(chunk.members.left), 10_000)  # the end of the day of leaving
    last = pd.Series(start + pd.to_timedelta(leaves, unit="D"), index=ids)
    first = chunk.tables["members"].to_pandas().set_index("member_id")["joined_at"]
    for name in ("transactions", "events", "redemptions"):
        rows = chunk.tables[name].to_pandas()
        assert (rows["occurred_at"] >= rows["member_id"].map(first)).all(), name
        assert (rows["occurred_at"] <= rows["member_id"].map(last)).all(), name


def test_terms_follow_one_another_until_one_is_cancelled_or_runs():
    world, chunk = lived("subscription", 2_000)
    terms = chunk.tables["subscriptions"].to_pandas().sort_values(["member_id", "started_at"])
    renewed = terms["renewed_at"].notna()
    assert (terms["renewed_at"] == terms["ends_at"])[renewed].all()
    assert not (renewed & terms["cancelled_at"].notna()).any()
    following = terms.groupby("member_id")["started_at"].shift(-1)
    assert (following == terms["ends_at"])[following.notna()].all()
    assert (renewed == following.notna()).all()
    left = pd.Series(chunk.members.left < world.days, index=member_ids(chunk.members).to_pandas())
    cancelled = terms.groupby("member_id")["cancelled_at"].count() == 1
    assert (cancelled == left.reindex(cancelled.index)).all()


def test_a_subscriber_pays_once_for_every_term_that_began():
    world, chunk = lived("subscription", 2_000)
    terms, paid = chunk.tables["subscriptions"].to_pandas(), chunk.tables["transactions"].to_pandas()
    began = terms[terms["started_at"] >= pd.Timestamp(world.start)].groupby("member_id")["price"].sum()
    paid = paid[paid["category"] == "subscription"].groupby("member_id")["amount"].sum()
    pd.testing.assert_series_equal(began.sort_index(), paid.sort_index(), check_names=False, check_dtype=False)


def test_points_are_never_burnt_before_they_are_earned():
    _, chunk = lived("both", 2_000)
    events = chunk.tables["events"].to_pandas().sort_values(["member_id", "occurred_at"])
    signed = events["value"].where(events["kind"] == "points_earned", -events["value"])
    signed = signed.where(events["kind"].str.startswith("points"), 0)
    assert (signed.groupby(events["member_id"]).cumsum() >= 0).all()


# The truth is what the tables show


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("truth", ["leaving", "silence"])
def test_what_is_stated_of_churn_happens_in_every_tenth(shape, truth):
    # The mean of Bernoulli draws differs from their mean probability by its standard error, sqrt(sum p (1 - p)).
    # Wave 1 is before the first campaign: nobody was contacted.
    world, chunk = lived(shape)
    members = chunk.members
    if truth == "leaving":
        stated, happened = leaving_probability(world, members, 1)[:, 0], chunk.members.left < 2 * WAVE_DAYS
    else:
        ids = member_ids(members).to_pandas()
        bought = window(world, chunk.tables["transactions"].to_pandas(), 1)["member_id"]
        stated, happened = churn_probability(world, members, 1), ~ids.isin(bought).to_numpy()
    there = members.there(1) & (stated > 0) & (stated < 1)  # a payment may be certain to come, or not to be due
    scores = z_scores(happened[there].astype(float), stated[there])
    assert np.abs(scores).max() < 3.5
    assert (scores**2).sum() < 29.6  # chi-squared with 10 degrees of freedom, p = 0.001


def test_a_stated_expectation_is_the_one_done_in_the_head():
    # Nobody leaves. A visit a day at a margin of 1,000 makes 28,000; "anyone" redeems 3 times in 10, half of it a visit
    # more: 0.3 (0.5 x 1,000 - 200) = 90. A term of 28 days falls due once: 0.25 x 1,200 = 300.
    offers = (Offer("A", "anyone", "email", 10, 200, "anyone"),)
    world = World(1_000, season=0.0, offers=offers)
    drawn = draw_members(world, 0, 1, generator())
    one = replace(
        drawn, joined=np.array([-1]), visit_rate=np.ones(1), basket=np.full(1, 4000.0), hazard=np.full(1, 1e-9)
    )
    assert expected_outcome(world, one, 0)[0] == pytest.approx([28_000, 28_090], rel=1e-6)
    seldom = replace(one, visit_rate=np.full(1, 0.1))
    assert churn_probability(world, seldom, 0)[0] == pytest.approx(np.exp(-2.8), rel=1e-6)
    payer = replace(one, term=np.array([28]), price=np.array([1200]), visit_rate=np.zeros(1))
    assert expected_outcome(world, payer, 0)[0] == pytest.approx([300, 390], rel=1e-6)
    # Half leave within a wave: over it, (1 - 1/2) / log 2 of them are there on average to redeem
    restless = replace(payer, hazard=np.array([np.log(2) / 28]), term=np.array([0]))
    assert leaving_probability(world, restless, 0)[0] == pytest.approx([0.5, 0.5])
    assert expected_outcome(world, restless, 0)[0] == pytest.approx([0, 90 * 0.5 / np.log(2)])


def test_where_everybody_responds_alike_the_best_offer_is_best_for_everybody():
    offers = tuple(Offer(name, name, "email", 10, cost, "anyone") for name, cost in (("A", 200), ("B", 250)))
    world = World(5_000, waves=2, first_campaign=1, offers=offers)
    members = history(world, generator()).members
    effect = effects(world, members, 2)[members.there(2)]
    assert (effect[:, 0] > effect[:, 1]).all()


def test_who_has_left_buys_nothing_more():
    world, chunk = lived()
    gone = chunk.members.left < WAVE * WAVE_DAYS
    assert (churn_probability(world, chunk.members, WAVE)[gone] == 1).all()
    assert (leaving_probability(world, chunk.members, WAVE)[gone] == 1).all()
    assert (expected_outcome(world, chunk.members, WAVE)[gone] == 0).all()
    bought = window(world, chunk.tables["transactions"].to_pandas(), WAVE)["member_id"]
    assert not member_ids(chunk.members).to_pandas()[gone].isin(bought).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_effect_measured_from_randomised_contacts_is_the_stated_one(shape):
    # Contacts are random, so a difference of means is unbiased for the mean of the stated effects over those contacted.
    world, chunk = lived(shape)
    ids, frames = member_ids(chunk.members).to_pandas(), {n: t.to_pandas() for n, t in chunk.tables.items()}
    contacts = window(world, frames["contacts"], WAVE, "contacted_at").set_index("member_id")["treatment"].reindex(ids)
    margin = total(window(world, frames["transactions"], WAVE), "margin", ids)
    outcome = margin - total(window(world, frames["redemptions"], WAVE), "amount", ids)
    stated = effects(world, chunk.members, WAVE)
    control = outcome[contacts == "control"]
    for place, offer in enumerate(world.offers):
        rows = (contacts == offer.offer_id).to_numpy()
        error = np.hypot(outcome[rows].std() / np.sqrt(rows.sum()), control.std() / np.sqrt(len(control)))
        measured = outcome[rows].mean() - control.mean()
        assert abs(measured - stated[contacts.notna(), place].mean()) < 3 * error, offer


@pytest.mark.parametrize("shape", SHAPES)
def test_offers_are_redeemed_as_often_as_is_stated_by_those_likely_to_and_those_not(shape):
    world, chunk = lived(shape)
    ids, frames = member_ids(chunk.members).to_pandas(), {n: t.to_pandas() for n, t in chunk.tables.items()}
    contacts = window(world, frames["contacts"], WAVE, "contacted_at").set_index("member_id")["treatment"].reindex(ids)
    redeemed = ids.isin(window(world, frames["redemptions"], WAVE)["member_id"]).to_numpy()
    stated = redemption_probability(world, chunk.members, WAVE)
    for place, offer in enumerate(world.offers):
        sent = (contacts == offer.offer_id).to_numpy()
        likely = stated[:, place] > np.median(stated[sent, place])
        for rows in (sent & likely, sent & ~likely):
            p = stated[rows, place]
            assert abs(redeemed[rows].sum() - p.sum()) < 3.5 * np.sqrt((p * (1 - p)).sum()), offer


def test_propensities_are_the_shares_in_which_treatments_were_drawn():
    world, chunk = lived()
    contacts = chunk.tables["contacts"].to_pandas()
    shares = contacts["treatment"].value_counts(normalize=True)
    assert set(shares.index) == set(world.treatments)
    assert (contacts["propensity"] == 1 / len(shares)).all()
    assert (shares - 1 / len(shares)).abs().max() < 4 * np.sqrt(0.25 * 0.75 / len(contacts))
    assert not set(contacts["member_id"]) & set(
        chunk.tables["members"].to_pandas().query("~personalisation")["member_id"]
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_answers_have_the_expectation_that_is_stated_and_noise_independent_of_everything_else(shape):
    world, chunk = lived(shape)
    decided = decisions(world, chunk.members)
    answer = respond(world, chunk.members, decided, wave=world.waves, rng=generator(5))
    there = chunk.members.there(world.waves)
    arm = pd.Index(world.treatments).get_indexer(pd.Index(decided["treatment"]))
    stated = expected_outcome(world, chunk.members, world.waves)[there][np.arange(len(arm)), arm]
    noise = answer.outcome - stated
    for treatment in range(len(world.treatments)):
        rows = arm == treatment
        assert abs(noise[rows].mean()) < 3 * noise[rows].std() / np.sqrt(rows.sum())
    # Products with the noise have mean 0 if its expectation is 0 whatever the trait; studentised, for it is uneven
    seen = ("region", "gender", "birth_year", "joined", "favourite", "activity", "unrest", "thrift", "basket", "term")
    for name in seen:
        trait = getattr(chunk.members, name)[there].astype(float)
        product = noise * (trait - trait.mean())
        assert abs(product.sum()) <= 3.5 * np.sqrt((product**2).sum()), name
    product = noise * (stated - stated.mean())
    assert abs(product.sum()) < 3.5 * np.sqrt((product**2).sum())


def test_noise_is_independent_of_every_feature_known_before_it(company):
    # Features may tell of the expectation, for they tell of the members; of what chance adds to it they can't.
    world, chunk = lived("both", 10_000, waves=4, first_campaign=1)
    frames = {name: table.to_pandas() for name, table in chunk.tables.items()}
    features = company.snapshot(frames, as_of=world.start + timedelta(days=world.days))
    decided = decisions(world, chunk.members)
    outcome = respond(world, chunk.members, decided, wave=world.waves, rng=generator(8)).outcome
    arm = pd.Index(world.treatments).get_indexer(pd.Index(decided["treatment"]))
    there = chunk.members.there(world.waves)
    noise = outcome - expected_outcome(world, chunk.members, world.waves)[there][np.arange(len(arm)), arm]
    known = features.loc[decided["member_id"]].select_dtypes("number").fillna(0.0)
    assert known.shape[1] > 30
    for name in known:
        product = noise * (known[name] - known[name].mean()).to_numpy()
        assert abs(product.sum()) <= 4 * np.sqrt((product**2).sum()), name


def test_an_offer_changes_the_hazard_as_stated():
    world, chunk = lived()
    decided = decisions(world, chunk.members)
    after = respond(world, chunk.members, decided, wave=world.waves, rng=generator(6)).members
    there = chunk.members.there(world.waves)
    arm = pd.Index(world.treatments).get_indexer(pd.Index(decided["treatment"]))
    stated, left = leaving_probability(world, chunk.members, world.waves)[there], (after.left < np.inf)[there]
    for treatment in range(len(world.treatments)):
        rows = arm == treatment
        assert np.abs(z_scores(left[rows], stated[rows, treatment])).max() < 3.5
    rows = arm == 1  # to be won back: were the hazard left as it is, more would have gone
    assert z_scores(left[rows], stated[rows, 0], groups=1)[0] < -3


def test_attributes_without_a_part_in_the_world_say_nothing_of_it():
    # Of n independent pairs a correlation has the standard error 1 / sqrt(n)
    world, members = World(members=N), draw_members(World(members=N), 0, N, generator(2))
    truth = np.column_stack([members.hazard, members.visit_rate, members.basket, effects(world, members, 13)])
    for name in ("birth_year", "gender", "favourite", "personalisation"):
        for column in truth.T:
            assert abs(np.corrcoef(getattr(members, name), np.log(column - column.min() + 1))[0, 1]) < 4 / np.sqrt(N)
    assert np.corrcoef(members.region, members.basket)[0, 1] > 0.2  # the one that has a part


def test_events_tell_of_the_hazard_that_no_table_shows():
    _, chunk = lived()
    ids, events = member_ids(chunk.members).to_pandas(), chunk.tables["events"].to_pandas()
    score = events[events["kind"] == "survey"].groupby("member_id")["value"].mean().reindex(ids).to_numpy()
    asked = ~np.isnan(score)
    assert -0.95 < np.corrcoef(score[asked], np.log(chunk.members.hazard[asked]))[0, 1] < -0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_offers_differ_help_some_and_harm_others(shape):
    world, chunk = lived(shape)
    effect = effects(world, chunk.members, world.waves)[chunk.members.there(world.waves)]
    assert ((effect > 0).mean(axis=0) > 0.3).all()
    assert ((effect < 0).mean(axis=0) > 0.02).all()
    best = np.bincount(effect.argmax(axis=1), minlength=len(world.offers)) / len(effect)
    assert (best > 0.05).all()
    cost = np.array([offer.contact_cost for offer in world.offers])
    oracle = np.maximum(effect - cost, 0).max(axis=1).mean()
    assert oracle > 1.2 * max((effect - cost).mean(axis=0).max(), 0)  # to choose by member pays


def test_leaving_is_hard_but_not_hopeless_to_foresee():
    # The truth itself ranks leavers at an AUC of about 0.7: hazards spread by exp(0.76), and the rest is chance
    world, chunk = lived()
    members = chunk.members
    there, left = members.there(1), chunk.members.left < 2 * WAVE_DAYS
    rank = pd.Series(leaving_probability(world, members, 1)[there, 0]).rank().to_numpy()
    gone = left[there]
    auc = (rank[gone].sum() - gone.sum() * (gone.sum() + 1) / 2) / (gone.sum() * (~gone).sum())
    assert 0.65 < auc < 0.75


# Season and drift


def _visits_and_exposure(season):
    world, chunk = lived("retail", 10_000, waves=13, first_campaign=12, season=season)
    days = 12 * WAVE_DAYS  # before the campaign, every transaction is a visit
    moment = chunk.tables["transactions"].to_pandas()["occurred_at"] - pd.Timestamp(world.start)
    counts = np.bincount(moment // pd.Timedelta(days=1), minlength=days)[:days]
    day, m = np.arange(days), chunk.members
    presence = [np.clip(np.minimum(m.left, d + 1) - np.maximum(m.joined, d), 0, 1) @ m.visit_rate for d in day]
    return counts, np.array(presence), world.day_weights(0, days)


def test_season_is_visible_and_dividing_by_it_removes_it():
    counts, exposure, weights = _visits_and_exposure(0.5)
    raw = np.corrcoef(counts / exposure, weights)[0, 1]
    assert raw > 0.9
    # Counts of a Poisson process: (count - mean)^2 / mean has mean 1 and a variance of about 2
    mean = exposure * weights
    assert abs(((counts - mean) ** 2 / mean).mean() - 1) < 4 * np.sqrt(2 / len(counts))
    assert abs(np.corrcoef(counts / mean, weights)[0, 1]) < 4 / np.sqrt(len(counts))


def test_without_a_season_only_the_weekday_moves_the_visits():
    counts, exposure, weights = _visits_and_exposure(0.0)
    assert np.allclose(weights.reshape(-1, 7), weights[:7])
    weekly = (counts / exposure).reshape(-1, 7).mean(axis=1)
    error = np.sqrt(7 * weights[:7].mean() / exposure.reshape(-1, 7).mean(axis=1)) / 7
    assert np.abs((weekly - 1) / error).max() < 4


DRIFT_WAVE = 4
PLAIN = {"waves": 6, "first_campaign": 2}


def _drifted(what, factor):
    world, plain = lived("both", 3_000, **PLAIN)
    _, moved = lived("both", 3_000, drift=(Drift(what, factor, DRIFT_WAVE),), **PLAIN)
    return world, plain, moved


def _rows(chunk, name):
    """Give a table's rows without their running numbers, which count what others did."""
    frame = chunk.tables[name].to_pandas().drop(columns=["transaction_id", "event_id"], errors="ignore")
    return frame.sort_values(list(frame.columns)).reset_index(drop=True)


def _same(plain, moved, *names):
    for name in names:
        pd.testing.assert_frame_equal(_rows(plain, name), _rows(moved, name))


def _among(few, many):
    """Say whether every row is there, as often."""
    both = few.merge(many.drop_duplicates(), how="left", indicator=True)
    return bool((both["_merge"] == "both").all())


@pytest.mark.parametrize("what", MOVED)
@pytest.mark.parametrize("factor", [0.5, 1.8])
def test_before_it_starts_drift_moves_nothing(what, factor):
    world, plain, moved = _drifted(what, factor)
    begin = pd.Timestamp(world.start) + pd.Timedelta(days=DRIFT_WAVE * WAVE_DAYS)
    _same(plain, moved, "members", "offers", "contacts")
    for name in ("transactions", "events", "redemptions"):
        before = [
            rows[rows["occurred_at"] < begin].reset_index(drop=True)
            for rows in (_rows(plain, name), _rows(moved, name))
        ]
        pd.testing.assert_frame_equal(*before)
    early = plain.members.left < DRIFT_WAVE * WAVE_DAYS
    np.testing.assert_array_equal(plain.members.left[early], moved.members.left[early])


def test_drift_of_amounts_moves_the_money_of_visits_alone():
    world, plain, moved = _drifted("amount", 0.5)
    _same(plain, moved, "events", "redemptions", "subscriptions")
    money = ["amount", "margin", "discount"]
    before, after = (c.tables["transactions"].to_pandas() for c in (plain, moved))
    pd.testing.assert_frame_equal(before.drop(columns=money), after.drop(columns=money))
    visits = (before["category"] != "subscription") & before.index.isin(
        window(world, before, 4).index.union(window(world, before, 5).index)
    )
    assert (before["amount"] == after["amount"])[~visits].all()
    assert ((before["amount"] * 0.5 - after["amount"]).abs() <= 1)[visits].all()


@pytest.mark.parametrize("factor", [0.5, 1.8])
def test_drift_of_visits_adds_visits_or_takes_them_away(factor):
    world, plain, moved = _drifted("visits", factor)
    _same(plain, moved, "events", "redemptions", "subscriptions")
    few, many = sorted((_rows(plain, "transactions"), _rows(moved, "transactions")), key=len)
    assert _among(few, many)
    shopping = [
        (window(world, _rows(c, "transactions"), 5)["category"] != "subscription").sum() for c in (plain, moved)
    ]
    extra = window(world, _rows(plain, "redemptions"), 5).shape[0]  # of which some are visits, and don't drift
    assert abs(shopping[1] - factor * shopping[0]) < 4 * np.sqrt(factor * shopping[0]) + extra


@pytest.mark.parametrize("factor", [0.5, 1.8])
def test_drift_of_the_hazard_moves_the_leaving_and_what_follows_from_it(factor):
    _, plain, moved = _drifted("hazard", factor)
    sooner, later = (moved, plain) if factor > 1 else (plain, moved)
    assert (sooner.members.left <= later.members.left).all()
    assert (sooner.members.left < later.members.left).any()
    same = np.flatnonzero(plain.members.left == moved.members.left)
    ids = member_ids(plain.members).to_pandas()[same]
    for name in ("transactions", "events", "redemptions"):
        rows = [
            frame[frame["member_id"].isin(ids)].reset_index(drop=True)
            for frame in (_rows(plain, name), _rows(moved, name))
        ]
        pd.testing.assert_frame_equal(*rows)


def test_drift_of_the_response_moves_redemptions_and_the_visits_they_bring():
    _, plain, moved = _drifted("response", 0.5)
    _same(plain, moved, "events", "subscriptions")
    np.testing.assert_array_equal(plain.members.left, moved.members.left)
    for name in ("redemptions", "transactions"):
        few, many = _rows(moved, name), _rows(plain, name)
        assert len(few) < len(many)
        assert _among(few, many)


def test_a_law_that_drifts_is_stated_as_drifted():
    world = World(members=N, shape="both", waves=3, first_campaign=1)
    world = replace(world, drift=tuple(Drift(w, 0.6, 3) for w in ("amount", "visits", "hazard", "response")))
    members = history(world, generator()).members
    decided = decisions(world, members)
    arm = pd.Index(world.treatments).get_indexer(pd.Index(decided["treatment"]))
    stated = expected_outcome(world, members, 3)[members.there(3)][np.arange(len(arm)), arm]
    noise = respond(world, members, decided, wave=3, rng=generator()).outcome - stated
    assert abs(noise.mean()) < 3 * noise.std() / np.sqrt(len(noise))
    plain = expected_outcome(replace(world, drift=()), members, 3)
    assert (expected_outcome(world, members, 3) <= plain + WAVE_DAYS)[:, 0].all()


# One seed, one world, whatever the size


def test_a_world_does_not_depend_on_the_size_of_its_chunks():
    world = World(members=BLOCK * 2 + 5_000, shape="both", waves=2, first_campaign=1)
    whole = history(world, generator(4))
    for size in (1, BLOCK + 1):
        parts = list(chunks(world, generator(4), members=size))
        assert len(parts) == (3 if size == 1 else 2)
        for name, table in whole.tables.items():
            assert pa.concat_tables(p.tables[name] for p in parts if name in p.tables).equals(table), name
        np.testing.assert_array_equal(np.concatenate([p.members.left for p in parts]), whole.members.left)
    assert not history(world, generator(5)).tables["transactions"].equals(whole.tables["transactions"])


def test_a_world_is_written_to_the_same_bytes_and_found_by_ingest(tmp_path):
    world = World(members=2_000, shape="both", waves=2, first_campaign=1)
    truth = write_history(world, tmp_path / "a", generator(4))
    write_history(world, tmp_path / "b", generator(4))
    paths = table_paths(Source(folder=tmp_path / "a"), SourceMapping())
    assert set(paths) == set(TABLES)
    assert {path.name for path in (tmp_path / "a").iterdir()} == {path.name for path in [*paths.values(), truth]}
    for path in [*paths.values(), truth]:
        assert sha256(path) == sha256(tmp_path / "b" / path.name)
    whole = history(world, generator(4))
    pd.testing.assert_frame_equal(pd.read_parquet(truth), truth_frame(world, whole.members, world.waves))


def test_memory_is_that_of_a_chunk_and_not_of_the_world():
    def peak(blocks):
        world = World(members=blocks * BLOCK, waves=2, first_campaign=1)
        return max(pa.total_allocated_bytes() for _ in chunks(world, generator(), members=BLOCK))

    before = pa.total_allocated_bytes()
    assert peak(10) - before < 2.5 * (peak(1) - before)  # the chunk before is let go only when the next is there


def test_a_broken_off_write_leaves_no_table(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(histories, "truth_frame", broken)
    with pytest.raises(OSError, match="disk is full"):
        write_history(World(members=1_000, waves=2, first_campaign=1), tmp_path, generator())
    assert list(tmp_path.glob("[!.]*")) == []


# The closed loop


def test_two_policies_meet_the_same_chance():
    world, chunk = lived("both", 3_000)
    ids = member_ids(chunk.members).to_pandas()[chunk.members.there(world.waves)].to_numpy()
    half = np.arange(len(ids)) % 2 == 0
    frames = [
        pd.DataFrame({"member_id": ids, "treatment": np.where(half, "control", offer)})
        for offer in ("discount", "win_back")
    ]
    one, other = (respond(world, chunk.members, f, wave=world.waves, rng=generator(1)) for f in frames)
    np.testing.assert_array_equal(one.outcome[half], other.outcome[half])
    assert (one.outcome[~half] != other.outcome[~half]).any()


def test_a_loop_of_the_oracle_earns_what_was_stated_and_more_than_chance():
    world, chunk = lived()
    costs = np.array([0, *[offer.contact_cost for offer in world.offers]])
    earned, stated = {}, {}
    for name in ("oracle", "chance"):
        members, outcomes, promised = chunk.members, 0.0, 0.0
        for wave in range(world.waves, world.waves + 3):
            there = members.there(wave)
            worth = expected_outcome(world, members, wave)[there] - costs
            arm = worth.argmax(axis=1) if name == "oracle" else generator(wave).integers(0, len(costs), len(worth))
            ids = member_ids(members).to_pandas()[there].to_numpy()
            frame = pd.DataFrame({"member_id": ids, "treatment": np.array(world.treatments)[arm]})
            answer = respond(world, members, frame, wave=wave, rng=generator(100 + wave))
            outcomes += (answer.outcome - costs[arm]).sum()
            promised += worth[np.arange(len(arm)), arm].sum()
            members = answer.members
        earned[name], stated[name] = outcomes, promised
        assert abs(outcomes / promised - 1) < 0.02
    assert earned["oracle"] > earned["chance"]


def test_answers_are_tables_of_the_contract_that_go_on_from_the_history():
    world, chunk = lived("both", 3_000)
    decided = decisions(world, chunk.members).assign(propensity=0.5)
    answer = respond(world, chunk.members, decided, wave=world.waves, rng=generator())
    for name, table in answer.tables.items():
        together = pa.concat_tables([chunk.tables[name], table]).to_pandas()
        known = chunk.tables["members"].to_pandas()["member_id"]
        assert meets_the_contract(name, together, known)
    assert answer.tables["contacts"]["propensity"].unique().to_pylist() == [0.5]
    bought = answer.tables["transactions"].to_pandas()
    assert bought["margin"].sum() == pytest.approx(MARGIN_RATE * bought["amount"].sum(), rel=1e-4)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda frame: frame.drop(columns="treatment"), r"decisions lack \['treatment'\]"),
        (lambda frame: frame.assign(member_id="nobody"), "nobody here has that member_id"),
        (lambda frame: frame.assign(treatment="flowers"), "none of control, win_back, discount, points"),
        (lambda frame: pd.concat([frame, frame]), "the member came before"),
    ],
)
def test_decisions_that_break_the_contract_are_refused(spoil, message):
    world, chunk = lived("both", 3_000)
    decided = spoil(decisions(world, chunk.members))
    with pytest.raises(ContractError, match=message):
        respond(world, chunk.members, decided, wave=world.waves, rng=generator())


@pytest.mark.parametrize(
    ("laws", "message"),
    [
        ({"members": 999}, "members from 1,000 to 10,000,000"),
        ({"members": 10_000_001}, "members from 1,000 to 10,000,000"),
        ({"shape": "hotel"}, "shape retail, subscription or both"),
        ({"first_campaign": 13}, "campaigns from one of them on"),
        ({"audience": 0.0}, "an audience between 0 and 1"),
        ({"season": 1.0}, "a season from 0"),
        ({"offers": ()}, "offers with distinct ids"),
    ],
)
def test_a_world_that_cannot_be_is_refused(laws, message):
    with pytest.raises(ContractError, match=message):
        World(**{"members": 1_000, **laws})


def test_a_drift_has_a_positive_factor():
    with pytest.raises(ContractError, match="a factor above 0"):
        Drift("visits", 0.0, 3)
