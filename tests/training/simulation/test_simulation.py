"""The closed loop is a proof only if it is fair: the same chance for all, one ruler, and nobody above the oracle."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from features.errors import ContractError, NotFoundError
from features.world.company import joined
from features.world.history import history
from features.world.law import OFFERS, World
from holdfast import app, quiet_dependencies
from training.judging.findings import Gate
from training.policy import MODEL
from training.simulation import rivals
from training.simulation.ceiling import find_ceiling
from training.simulation.experience import Experience, askable
from training.simulation.learning import HELD_BACK, held_back, judge, learn
from training.simulation.loop import BEST_FIXED, CEILING, LOOP, NO_CONTACT, ORACLE, STATIC, _start, simulate
from training.simulation.plan import WAVES, alike, make_flight, parse_budget, parse_drift, read_offers
from training.simulation.rivals import Wave, within_budget

pytestmark = pytest.mark.long
ROUNDS = 2
CLOSE = 1e-9


def still(step, done, of):
    """Show no progress."""


@pytest.fixture(scope="module")
def flown(tmp_path_factory):
    """Type the verb once; its JSON, and the picture it drew."""
    quiet_dependencies()
    png = tmp_path_factory.mktemp("flight") / "flight.png"
    words = ["simulate", "--members", "1000", "--rounds", str(ROUNDS), "--seed", "3", "--json", "--picture", str(png)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout[: done.stdout.rindex("}") + 1]), png


@pytest.fixture(scope="module")
def rows(flown):
    return flown[0]["rounds"]


def of(rows, policy):
    return [row for row in rows if row["policy"] == policy]


def test_every_policy_lives_every_round(flown, rows):
    names = {row["policy"] for row in rows}
    assert len(rows) == ROUNDS * len(names)
    assert {NO_CONTACT, BEST_FIXED, STATIC, LOOP, CEILING, ORACLE} <= names
    assert flown[1].read_bytes().startswith(b"\x89PNG")


def test_nobody_earns_more_than_the_oracle_and_the_ends_of_the_scale_are_the_scale(rows):
    assert all(row["regret"] >= -CLOSE for row in rows)
    assert [row["share"] for row in of(rows, ORACLE)] == pytest.approx([1.0] * ROUNDS)
    assert [row["share"] for row in of(rows, BEST_FIXED)] == pytest.approx([0.0] * ROUNDS)
    assert [row["gain"] for row in of(rows, NO_CONTACT)] == [0.0] * ROUNDS


def test_what_features_show_lies_between_the_best_fixed_offer_and_the_oracle(rows):
    # Boosters of other members' noiseless truth: at 1,000 members they see little less than all there is to see.
    assert all(0.1 < row["share"] < 1 for row in of(rows, CEILING))


def test_where_traits_can_be_observed_features_show_nearly_all_of_the_oracles_lead():
    start = _start(make_flight(5_000, observable=True), np.random.default_rng(0))
    world = start.company.world
    X = start.company.features(world.waves).to_numpy(dtype=np.float32)
    asked = askable(start.members, world.waves)
    rows = np.isin(joined(start.members, world.waves), asked)
    wave = Wave(world, world.waves, start.members, asked, X[rows], None)
    ceiling = find_ceiling(world, start.members, start.experience)

    def gain(policy):
        return float((policy(wave)[:, 1:] * wave.true_net()).sum())

    # who has left is never certain, so it is not all
    assert gain(ceiling) - gain(rivals.best_fixed) > 0.85 * (gain(rivals.oracle) - gain(rivals.best_fixed))


def test_before_anything_was_decided_all_policies_meet_the_same_members(rows):
    first = [row for row in rows if row["number"] == 1]
    assert len({(row["decisions"], row["oracle_gain"], row["best_fixed_gain"]) for row in first}) == 1


def test_the_loop_learns_from_a_longer_log_each_round_and_the_gate_gives_reasons(rows):
    logged = [row["rows"] for row in of(rows, LOOP)]
    assert logged == sorted(set(logged))
    assert all(row["reasons"] and row["promoted"] is not None for row in of(rows, LOOP))
    assert all(row["promoted"] is None for row in of(rows, STATIC))


def test_the_same_seed_flies_the_same_and_a_shorter_flight_is_the_beginning_of_a_longer_one(rows):
    again = simulate(make_flight(1000, rounds=1), np.random.default_rng(3), still)
    first = [row for row in rows if row["number"] == 1]
    assert [row.profit for row in again] == [row["profit"] for row in first]
    assert [row.promoted for row in again] == [row["promoted"] for row in first]


# Policies


@pytest.fixture(scope="module")
def wave():
    world = replace(World(1000, waves=3, first_campaign=1), offers=tuple(sorted(OFFERS, key=lambda o: o.offer_id)))
    members = history(world, np.random.default_rng(0)).members
    asked = askable(members, world.waves)
    return Wave(world, world.waves, members, asked, np.empty((len(asked), 0), dtype=np.float32), None)


@given(budget=st.floats(1.0, 1e6), offer=st.integers(0, 3))
def test_no_more_is_spent_than_there_is_and_probabilities_stay_probabilities(wave, budget, offer):
    short = replace(wave, budget=budget)
    for wanted in (rivals.always(wave, offer), rivals.at_random(wave)):
        done = within_budget(short, wanted)
        assert (done[:, 1:] * wave.cost).sum() <= budget * (1 + CLOSE)
        assert done.sum(axis=1) == pytest.approx(np.ones(len(done)))
        assert (done >= 0).all()
        assert (done[:, 1:] <= wanted[:, 1:]).all()


@settings(max_examples=30)
@given(share=st.floats(0.05, 1.0))
def test_half_a_budget_earns_at_least_half_for_whoever_can_choose(wave, share):
    # What a budget earns is concave in it (the hull of a linear program), so half of it loses less than half.
    free = rivals.oracle(wave)
    budget = share * float((free[:, 1:] * wave.cost).sum())
    whole, half = (gain(replace(wave, budget=part * budget)) for part in (1.0, 0.5))
    dearest = wave.true_net().max()  # a price leaves over at most what one member would have brought
    assert gain(wave) >= whole >= half >= whole / 2 - dearest


def gain(short):
    done = within_budget(short, rivals.oracle(short))
    assert short.budget is None or (done[:, 1:] * short.cost).sum() <= short.budget * (1 + CLOSE)
    return float((done[:, 1:] * short.true_net()).sum())


def test_the_oracle_sends_nothing_to_who_has_left(wave):
    gone = ~wave.members.there(wave.number)[wave.asked]
    assert gone.any()
    assert (rivals.oracle(wave)[gone, 0] == 1).all()


class Unseen(Wave):
    """Fail whoever looks at what nobody can know before."""

    cost = property(lambda _: pytest.fail("a policy looked at the true costs"))

    def true_net(self):
        pytest.fail("a policy looked at the true effects")


def test_who_learned_what_offers_earn_has_to_learn_what_they_cost():
    # Told the true costs, a policy would look for whom the truth knows not to redeem.
    start = _start(make_flight(1_000), np.random.default_rng(0))
    world, log = start.company.world, start.experience
    learned = learn(log, world, floor=0.0, rng=np.random.default_rng(1))
    asked = askable(start.members, world.waves)
    X = start.company.features(world.waves).to_numpy(dtype=np.float32)
    wave = Unseen(world, world.waves, start.members, asked, X[np.isin(joined(start.members, world.waves), asked)], 5e3)
    everybody = np.full(len(start.members), MODEL)
    for champion in (learned, None):
        rivals.by_model(wave, champion, everybody, exploration=0.1)
    sent = rivals.by_response(wave, learned, margin=1e4)
    find_ceiling(world, start.members, log)(wave)
    spend = (sent[:, 1:] * wave.costs(learned.redemption(wave.X))).sum()
    assert 0 < spend <= 5e3


def test_where_offers_work_alike_one_is_best_for_all_who_are_there(wave):
    world = replace(wave.world, offers=alike(wave.world.offers))
    there = wave.members.there(wave.number)[wave.asked]
    sent = rivals.oracle(replace(wave, world=world))[there].argmax(axis=1)
    assert (sent == sent[0]).all()


def test_who_is_held_back_is_so_in_every_wave():
    n = 50
    some = np.arange(n)
    flags, numbers = np.zeros(n, dtype=bool), np.zeros(n)
    log = Experience(some, some, np.zeros((n, 1), dtype=np.float32), some, np.full(n, 0.5), numbers, flags, flags)
    assert held_back(log).sum() == n // HELD_BACK
    assert (held_back(log.plus(log)) == np.tile(held_back(log), 2)).all()
    certain = replace(log, propensity=np.where(some < 10, 1.0, 0.5))
    assert len(certain.drawn()) == n - 10


# The gate


def saying(uplift):
    """Say the same uplift of everybody, and that nothing else is known."""
    return SimpleNamespace(
        uplift=SimpleNamespace(
            predict=lambda X: np.tile(uplift, (len(X), 1)),
            record=SimpleNamespace(average_effect={"a": SimpleNamespace(value=0.0), "b": SimpleNamespace(value=9.0)}),
        ),
        bar=lambda _: 0.0,
        outcomes=lambda X: np.zeros((len(X), 3)),
    )


def test_a_worse_challenger_is_refused_unless_the_margin_is_wider_than_what_it_may_cost():
    rng, n = np.random.default_rng(0), 30_000
    treatment = rng.integers(0, 3, n)
    outcome = np.array([0.0, 20.0, 50.0])[treatment] + rng.standard_normal(n)
    flags, some = np.zeros(n, dtype=bool), np.arange(n)
    X = np.zeros((n, 1), dtype=np.float32)
    log = Experience(some, some, X, treatment, np.full(n, 1 / 3), outcome, flags, flags)
    offers = (replace(OFFERS[0], offer_id="a", contact_cost=0), replace(OFFERS[0], offer_id="b", contact_cost=0))
    world, worse, better = World(1000, offers=offers), saying([9.0, 1.0]), saying([1.0, 9.0])

    def promoted(challenger, champion, margin=0.0):
        return judge(log, world, challenger, champion, gate=Gate(champion_margin=margin)).promote

    assert promoted(better, worse)
    assert promoted(better, better)  # a difference of nothing has no interval
    assert not promoted(worse, better)
    assert not promoted(worse, None)  # sending everybody "b" earns more for certain
    # the margin is of what a challenger may cost against the champion, not of what it may lose to one offer for all
    assert not promoted(worse, better, margin=100.0)
    assert promoted(better, worse, margin=100.0)


# What one types


@pytest.mark.parametrize("text", ["hazard", "hazard:x:1", "hazard:1.5:x", "mood:1.5:2", "hazard:-1:2", "hazard:1:2:3"])
def test_a_drift_that_is_none_is_refused(text):
    with pytest.raises(ContractError, match=r"hazard:1\.5:4"):
        parse_drift(text)


@pytest.mark.parametrize("text", ["0", "-5", "x", "nan", "inf", "0%", "%"])
def test_a_budget_of_nothing_is_refused(text):
    with pytest.raises(ContractError, match="such as 50%"):
        parse_budget(text)


def test_a_drift_begins_with_its_round():
    assert make_flight(1000, drift="hazard:1.5:4").world.drift[0].from_wave == WAVES + 3


def test_own_offers_come_from_toml_or_csv_alike(tmp_path):
    fields = {"offer_id": "vip", "name": "VIP", "channel": "email", "contact_cost": 3, "redemption_cost": 90}
    toml, csv = tmp_path / "offers.toml", tmp_path / "offers.csv"
    lines = [f"{name} = {value!r}" for name, value in (fields | {"appeal": "points"}).items()]
    toml.write_text("[[offers]]\n" + "\n".join(lines))
    csv.write_text(",".join([*fields, "appeal"]) + "\n" + ",".join(map(str, [*fields.values(), "points"])) + "\n")
    assert read_offers(toml) == read_offers(csv)
    assert make_flight(1000, offers=read_offers(csv)).world.treatments == ("control", "vip")


def test_offers_that_are_wrong_are_refused_with_every_error(tmp_path):
    path = tmp_path / "offers.toml"
    path.write_text('[[offers]]\noffer_id = "a"\nappeal = "charm"\ncontact_cost = "x"\n')
    with pytest.raises(ContractError, match=r"(?s)contact_cost.*appeal"):
        read_offers(path)
    with pytest.raises(NotFoundError, match="--offers"):
        read_offers(tmp_path / "none.toml")
    path.write_text("offers = []")
    with pytest.raises(ContractError, match="wanted at least one"):
        read_offers(path)
