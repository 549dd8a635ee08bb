"""What would have changed a decision is so: the decision taken again with that changed says it."""

from dataclasses import replace

import numpy as np
import pytest

from features.log.entries import DECISION
from features.log.rows import decode, encode
from features.log.standing import Standing, nobody_contacted
from serving.decide import Occasion, Purse
from serving.explanation import Grounds, changes_of, cheaper, explain, language_of
from serving.record import Request, open_file, record
from serving.replay import grounds_again
from training.policy import MODEL

MEMBERS = tuple(f"m{number}" for number in range(120))


def rows_of(decider, members, standing, *, purse=None, campaign_id=None):
    """Decide, and give the decisions as rows of the log."""
    now = decider.programme.replay_from
    features = members.online(MEMBERS, decider.release.feature_names, facts=decider.facts)
    file = open_file(decider, features, standing)
    offers = len(decider.release.offer_ids)
    purse = purse or Purse(np.inf, np.full(offers, np.inf), 0.0, np.zeros(offers))
    occasion = Occasion(now, campaign_id, None, purse)
    uniform = np.random.default_rng(3).random(len(MEMBERS))
    worth = decider.weigh(file.members, campaign_id)
    choice = decider.choose(file.members, worth, occasion=occasion, uniform=uniform)
    n = len(MEMBERS)
    request = Request(occasion, uniform, ({},) * n, (None,) * n, iter(map(str, range(n))).__next__)
    decided = record(decider, file, worth=worth, choice=choice, request=request)
    return [decode(DECISION, encode(DECISION, vars(one))) for one in decided]


@pytest.fixture(scope="module")
def free(decider, members):
    return rows_of(decider, members, nobody_contacted(len(MEMBERS), len(decider.release.offer_ids)))


@pytest.fixture(scope="module")
def capped(constrained, members):
    """Half of the members were contacted half a day ago."""
    n, offers = len(MEMBERS), len(constrained.release.offer_ids)
    since = np.where(np.arange(n) % 2, 0.5, np.inf)
    return rows_of(constrained, members, Standing(np.full((n, offers), np.inf), since, np.zeros(n, dtype=np.int64)))


def test_the_decision_put_together_again_is_the_decision(decider, free, constrained, capped):
    for maker, rows in ((decider, free), (constrained, capped)):
        for row in rows:
            assert Grounds(maker, *grounds_again(maker, row)).choose() == row["treatment"]


def test_the_least_that_an_offer_has_to_cost_less_is_the_least(decider, free):
    found = 0
    for row in free:
        grounds = Grounds(decider, *grounds_again(decider, row))
        less = cheaper(grounds, "A", 0) if row["outcome"] == "model" and row["treatment"] != "A" else None
        if less is None:
            continue
        found += 1
        chosen = {}
        for off in (less - 1, less):
            cost = grounds.worth.cost - np.array([[off, 0, 0]])
            chosen[off] = replace(grounds, worth=replace(grounds.worth, cost=cost)).choose()
        assert (chosen[less], chosen[less - 1]) == ("A", row["treatment"])
        assert any(decider.programme.money(less) in said for said in explain(decider, row, "en"))
    assert found > 0


def test_without_the_rest_between_contacts_the_offer_that_is_named_would_have_been_sent(constrained, members, capped):
    n, offers = len(MEMBERS), len(constrained.release.offer_ids)
    rested = rows_of(constrained, members, nobody_contacted(n, offers))
    changed = 0
    for row, other in zip(capped, rested, strict=True):
        said = " ".join(explain(constrained, row, "en"))
        if row["outcome"] == "model" and "contacts" in row["refusals"] and other["treatment"] != row["treatment"]:
            changed += 1
            assert (
                f"Without the rest of 1 days between two contacts, {other['treatment']} would have been chosen" in said
            )
    assert changed > 0


def test_who_is_held_out_would_have_got_what_the_model_chooses(decider, free):
    held_out = [row for row in free if row["outcome"] == "hold_out"]
    assert held_out
    for row in held_out:
        grounds = Grounds(decider, *grounds_again(decider, row))
        grounds.members.arm[:] = MODEL
        chosen = grounds.choose()
        told = [*changes_of(decider, row, "en")]
        assert (chosen != "control") == any(chosen in said for said in told)


def test_every_decision_is_explained_in_both_languages(decider, free, constrained, capped):
    for maker, rows in ((decider, free), (constrained, capped)):
        for row in rows:
            english, chinese = (explain(maker, row, language) for language in ("en", "zh"))
            assert len(english) == len(chinese) > 0
            assert all("{" not in said for said in (*english, *chinese))
            assert any("\u4e00" <= letter <= "\u9fff" for letter in chinese[0])


def test_the_service_answers_in_the_language_that_is_asked_for(service):
    (decided,) = service.post("/v1/decisions", json={"members": ["m5"]}).json()["decisions"]
    address = f"/v1/decisions/{decided['decision_id']}"
    assert service.get(address).json()["language"] == "en"
    assert service.get(address, headers={"Accept-Language": "zh-TW,en;q=0.5"}).json()["language"] == "zh"
    asked = service.get(address, params={"language": "en"}, headers={"Accept-Language": "zh"}).json()
    assert asked["language"] == "en"
    assert asked["explanation"]


def test_an_unknown_language_is_english():
    assert language_of(None, "fr-CH, de;q=0.9") == "en"
