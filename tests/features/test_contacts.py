"""What the log knows of contacts, stock and budget: at once, after a restart, and of other systems."""

import json
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.decisions import (
    Answer,
    Batch,
    Contact,
    Decision,
    DecisionLog,
    Outcome,
    Part,
    find_decision,
    read_decisions,
    read_unmatched,
)
from features.errors import CorruptError
from features.files import sha256
from features.home import Home
from features.ingest import ingest
from features.log.contacts import contacts_between, write_contacts
from features.log.rows import microseconds
from features.log.standing import OtherContacts, audience_contacts, placed, standing_of
from features.programme import Programme
from features.warehouse import open_warehouse

NOW = datetime(2017, 12, 1, tzinfo=UTC)
OFFERS = ("A", "B")


def decided(decision_id, member_id="m1", treatment="A", *, at=NOW, campaign_id="spring"):
    return Decision(
        decision_id, member_id, campaign_id, at, "r1", "c1", "model", None, treatment, 0.5, 0.25, ("control", *OFFERS),
        (0.2, 0.5, 0.3), None, ("", ""), 0.5, 900, (300, 200), (50, 7), (250, 193), 0.0, (0.0, 0.0), None, None, (),
        np.zeros(2, "<f4").tobytes(), {}, {}, None, "model", b"", {}, None,
    )  # fmt: skip


@pytest.fixture
def path(tmp_path):
    return tmp_path / "decisions.db"


def ids(contacts):
    return {contact.decision_id for contact in contacts}


def test_a_decision_counts_from_the_moment_it_is_handed_in_and_after_a_restart(path):
    with DecisionLog(path) as log:
        futures = [log.append([decided(f"d{n}", f"m{n % 3}")], now=NOW) for n in range(60)]
        assert ids(log.contacts(["m1"], since=NOW)) == {f"d{n}" for n in range(1, 60, 3)}
        assert (log.contacted(OFFERS), log.spent("spring"), log.spent("autumn")) == ([60, 0], 60 * 50, 0)
        for future in futures:
            future.result()
        assert ids(log.contacts(["m1"], since=NOW)) == {f"d{n}" for n in range(1, 60, 3)}
        assert not log.contacts(["m1"], since=NOW + timedelta(microseconds=1))
    with DecisionLog(path) as log:
        assert (log.contacted(OFFERS), log.spent("spring")) == ([60, 0], 60 * 50)
        assert len(log.contacts(["m0", "m2", "nobody"], since=NOW)) == 40


def test_control_is_no_contact(path):
    with DecisionLog(path) as log:
        log.append([decided("d1", treatment="control")], now=NOW).result()
        assert (log.contacted(OFFERS), log.spent("spring"), log.contacts(["m1"], since=NOW)) == ([0, 0], 0, [])


def test_what_the_disk_refused_or_another_answer_made_void_counts_no_longer(path):
    with DecisionLog(path) as log:
        answer = Answer("k", "sha", 200, b"")
        log.append([decided("d1")], now=NOW, answer=answer).result()
        again, twice = (
            log.append([decided("d2")], now=NOW, answer=replace(answer)),
            log.append([decided("d1")], now=NOW),
        )
        assert again.result() == answer
        assert isinstance(twice.exception(), sqlite3.IntegrityError)
        log.append([decided("d3", "m9")], now=NOW).result()  # a later entry: the ones before are settled
        assert (log.contacted(OFFERS), log.spent("spring")) == ([2, 0], 2 * 50)
        assert ids(log.contacts(["m1", "m9"], since=NOW)) == {"d1", "d3"}


moments = st.integers(min_value=-40 * 24, max_value=2).map(lambda hours: NOW + timedelta(hours=hours))
senders = st.tuples(st.sampled_from(["m0", "m1", "m2", "m3"]), st.sampled_from(["A", "B", "C"]), moments)
sent = st.lists(senders, max_size=30)


@given(of_log=sent, of_others=sent, shared=st.integers(0, 5))
@settings(max_examples=25)
def test_a_few_members_and_an_audience_stand_where_plain_arithmetic_says(of_log, of_others, shared, tmp_path_factory):
    home, members = Home(tmp_path_factory.mktemp("standing")), ["m2", "m0", "m1"]
    warehouse, since = Reported(home, of_log[:shared], of_others), NOW - timedelta(days=28)
    with DecisionLog(home.decisions) as log:
        log.append([logged(f"d{n}", *row) for n, row in enumerate(of_log)], now=NOW).result()
        others = OtherContacts(warehouse, now=NOW, longest_days=28)
        contacts = log.contacts(members, since=since) + others.of(members, since=microseconds(since))
    few = standing_of(contacts, members, OFFERS, now=NOW, period_days=7)
    audience = audience_contacts(home.decisions, warehouse, pa.array(members), OFFERS, now=NOW, longest_days=28)
    write_contacts(home.root / "sorted.parquet", home.decisions, warehouse, now=NOW, longest_days=28)
    one = contacts_between(home.root / "sorted.parquet", "m0", "m0")
    every = of_log + [row for row in of_others if row[2] <= NOW]
    for place, member in enumerate(members):
        part = audience.standing(place, place + 1, now=NOW, period_days=7)
        wanted = plainly(every, member, since)
        assert [*few.since_offer[place], few.since_any[place], few.in_period[place]] == wanted
        assert [*part.since_offer[0], part.since_any[0], part.in_period[0]] == wanted
    alone = placed(one, pa.array(["m0"]), OFFERS).standing(0, 1, now=NOW, period_days=7)
    assert [*alone.since_offer[0], alone.since_any[0], alone.in_period[0]] == plainly(every, "m0", since)


def plainly(contacts, member, since):
    """Give days since A, since B, since any, and the number within a week."""
    ago = [(offer, max((NOW - at) / timedelta(days=1), 0)) for m, offer, at in contacts if m == member and at >= since]
    last = [min([days for offer, days in ago if offer in among], default=np.inf) for among in ("A", "B", "ABC")]
    return [*map(pytest.approx, last), sum(days < 7 for _, days in ago)]


def logged(decision_id, member_id, offer_id, at):
    """Decide for an offer, if need be for one that the release at hand does not have."""
    one = decided(decision_id, member_id, at=at)
    if offer_id in OFFERS:
        return replace(one, treatment=offer_id)
    return replace(one, treatment=offer_id, treatments=("control", offer_id), cost=(3,))


class Reported:
    """A warehouse with contacts that other systems made, and with some that the log has itself, by their decision."""

    tables = ("contacts",)

    def __init__(self, home, of_log, of_others):
        rows = [(*row, f"d{n}") for n, row in enumerate(of_log)] + [(*row, None) for row in of_others]
        names = ("member_id", "treatment", "contacted_at", "decision_id")
        kinds = (pa.string(), pa.string(), pa.timestamp("us", tz="UTC"), pa.string())
        columns = list(zip(*rows, strict=True)) or [()] * len(names)
        self._path = home.root / "contacts.parquet"
        arrays = [pa.array(values, kind) for values, kind in zip(columns, kinds, strict=True)]
        pq.write_table(pa.table(arrays, list(names)), self._path)

    def path(self, _):
        return self._path


def test_contacts_that_were_ingested_are_known(tmp_path):
    home = Home(tmp_path)
    tables = {
        "members": pd.DataFrame({"member_id": ["m1"], "joined_at": [NOW - timedelta(days=99)]}),
        "transactions": pd.DataFrame(
            {"transaction_id": ["t"], "member_id": ["m1"], "occurred_at": [NOW - timedelta(days=9)], "amount": [100]}
        ),
        "contacts": pd.DataFrame(
            {
                "contact_id": ["x1", "x2", "x3"],
                "member_id": "m1",
                "treatment": ["A", "control", "A"],
                "contacted_at": [NOW - timedelta(days=days) for days in (3, 2, 40)],
            }
        ),
    }
    ingest(tables, home=home, programme=Programme(), source="test", key="batch")
    others = OtherContacts(open_warehouse(home), now=NOW, longest_days=28)
    assert others.of(["m1"], since=0) == [Contact("m1", microseconds(NOW - timedelta(days=3)), "", "A")]


@pytest.fixture
def batch(path):
    """Log a decision, then a batch of one part with two decisions, of which one contacts."""
    rows = [decided(f"b1-{n}", f"m{n}", treatment) for n, treatment in enumerate(("A", "control"))]
    shared = (
        "campaign_id",
        "release_id",
        "catalogue_id",
        "treatments",
        "price",
        "asked",
        "context",
        "facts",
        "standing",
    )
    told = {name: getattr(rows[0], name) for name in shared} | {"decided_at": NOW.isoformat()}
    columns = [{name: value for name, value in vars(row).items() if name not in told} for row in rows]
    table = pa.Table.from_pylist(columns).replace_schema_metadata({"holdfast": json.dumps(told)})
    file = path.parent / "batches" / "part-0.parquet"
    file.parent.mkdir()
    pq.write_table(table, file)
    with DecisionLog(path) as log:
        log.append([decided("d1", at=NOW - timedelta(days=1))], now=NOW).result()
        assert log.begin_batch(Batch("b1", "spring", NOW, "r1", "c1", {"seed": 1})).result()
        part = Part("b1", 0, "batches/part-0.parquet", sha256(file), 2)
        contacts = [Contact("m0", microseconds(NOW), "b1-0", "A")]
        for new in (True, False):
            log.reserve(part.batch_id, part.part, 0, contacts, {("spring", "A"): (1, 50)}).result()
            assert log.append_part(part, 1).result() is new
        assert (log.contacted(OFFERS), log.spent("spring")) == ([2, 0], 100)
    return file, rows


def test_decisions_of_batches_are_read_beside_the_others(path, batch):
    _, rows = batch
    read = read_decisions(path)
    assert [row["decision_id"] for row in read] == ["d1", "b1-0", "b1-1"]
    assert read[1].keys() == read[0].keys()
    assert (read[1]["decided_at"], read[1]["eligible"]) == (NOW, [True, True])
    for row, one in zip(read[1:], rows, strict=True):
        assert {name: row[name] for name in ("member_id", "treatment", "propensity", "draw")} == {
            name: getattr(one, name) for name in ("member_id", "treatment", "propensity", "draw")
        }
    assert find_decision(path, "b1-1")["member_id"] == "m1"
    assert [row["decision_id"] for row in read_decisions(path, since=NOW)] == ["b1-0", "b1-1"]


def test_a_part_that_is_not_what_was_decided_is_refused(path, batch):
    batch[0].write_bytes(b"PAR1 something else PAR1")
    with pytest.raises(CorruptError, match="part of batch b1"):
        read_decisions(path)


def test_outcomes_wait_for_their_decision_and_are_matched_when_it_comes(path, batch):
    assert batch
    ids = ("d1", "b1-1", "b1-9", "late")
    outcomes = [Outcome(f"o-{one}", one, None, "purchase", NOW, 100) for one in ids]
    with DecisionLog(path) as log:
        for outcome in [*outcomes, Outcome("o-x", None, "x1", "purchase", NOW, 100)]:
            assert log.record(outcome, now=NOW).result()
        assert [row["outcome_id"] for row in read_unmatched(path)] == ["o-b1-9", "o-late"]
        log.append([decided("late")], now=NOW).result()
        assert [row["outcome_id"] for row in read_unmatched(path)] == ["o-b1-9"]
