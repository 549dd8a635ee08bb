"""What is old goes, what an experiment counts stays, and a job that is killed is run again to the same end."""

import json
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features import files
from features.decisions import (
    Answer,
    Batch,
    DecisionLog,
    Outcome,
    Part,
    SharedLog,
    is_erased,
    read_decisions,
    read_outcomes,
)
from features.errors import ContractError
from features.files import sha256
from features.home import Home
from features.journal import Journal, entries_of
from features.log.commits import Commits
from features.log.erasing import PIECE
from features.log.leaving import Leaving
from features.log.parts import KEY
from features.privacy import retention
from features.privacy.retention import Ends, find_overdue, let_go, retention_sheet
from features.programme import Programme, Retention
from features.shadow import ShadowFile, ShadowRow

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
OLD, NEW = NOW - timedelta(days=800), NOW - timedelta(days=1)
ENDS = Ends(NOW, NOW, Retention())
STEPS = (
    (files, "_flush"),
    (Path, "unlink"),
    (Commits, "submit"),
    (Journal, "let_go"),
    (ShadowFile, "let_go"),
)


@pytest.fixture
def home(tmp_path, decision):
    """A home with something old and something new in every place."""
    home = Home(tmp_path / "home")
    with DecisionLog(home.decisions) as log:
        for name, at in (("new", NEW), ("old", OLD)):  # an answer that comes lets older ones go
            fill_log(home, log, decision, name, at)
    row = {"transaction_id": "t", "member_id": "old-m", "occurred_at": OLD, "amount": 100}
    with Journal(home.journal) as journal:
        journal.add([entries_of("transactions", [row])[0]], OLD)
        journal.add([entries_of("transactions", [row | {"transaction_id": "u"}])[0]], NEW)
    with ShadowFile(home.shadow) as shadow, shadow.writing():
        shadow.add([ShadowRow("d", "m", at, None, *["r1", "r2", "A", "A"], *[0.5] * 10) for at in (OLD, NEW)])
    home.reports.mkdir()
    for name, at in (("old.html", OLD), ("new.html", NEW)):
        (home.reports / name).write_text("a page")
        os.utime(home.reports / name, (at.timestamp(),) * 2)
    return home


def fill_log(home, log, decision, name, at):
    answer = Answer(f"key-{name}", "f" * 64, 200, b'{"decisions": []}')
    told = {"decided_at": at, "treatment": "A", "propensity": 0.7, "context": {"till": name}}
    log.append([decision(f"d-{name}", member_id=f"{name}-m", **told)], now=at, answer=answer).result()
    batch = Batch(f"b{name}", "spring", at, "r1", "c1", {})
    log.begin_batch(batch).result()
    log.append_part(write_part(home, batch, at), 0).result()
    for number, decision_id in enumerate((f"d-{name}", f"b{name}-0000000001", "never-came")):
        log.record(
            Outcome(f"o{name}{number}", decision_id, None, "purchase", at + timedelta(days=3), 70), now=at
        ).result()
    log.record(Outcome(f"o{name}3", None, f"c-{name}", "purchase", at, 5), now=at).result()


def write_part(home, batch, at):
    shared = {
        "campaign_id": "spring", "decided_at": at.isoformat(), "release_id": "r1", "catalogue_id": "c1",
        "treatments": ["control", "A"], "price": 0.0, "stock_prices": [0.0], "reasons": [], "context": {},
        "event_timestamp": at.isoformat(), "standing": {}, "source": "model",
    }  # fmt: skip
    one, pair = pa.list_(pa.int64(), 1), pa.list_(pa.float64(), 2)
    table = pa.table(
        {
            "decision_id": [f"{batch.batch_id}-0000000001"],
            "member_id": [f"{batch.batch_id}-m"],
            "outcome": pa.array(["model"]).dictionary_encode(),
            "treatment": pa.array(["A"]).dictionary_encode(),
            "propensity": [0.7],
            "draw": [0.25],
            "probabilities": pa.array([[0.3, 0.7]], pair),
            "refusals": pa.array([[""]], pa.list_(pa.string(), 1)),
            "churn_probability": [0.5],
            "value": [10],
            "uplift": pa.array([[1]], one),
            "cost": pa.array([[50]], one),
            "net_value": pa.array([[3]], one),
            "segment": ["loyal"],
            "lifecycle_stage": ["active"],
            "facts": pa.array([{"tier": "gold"}]),
            "features": pa.array([b"\0" * 12], pa.binary(12)),
        }
    ).replace_schema_metadata({KEY: json.dumps(shared)})
    path = home.batches / batch.batch_id / "part-00000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(table, path)
    return Part(batch.batch_id, 0, str(path.relative_to(home.root)), sha256(path), 1)


def counted(home):
    """Give what an experiment counts, and what followed after how many days."""
    decided = {row["decision_id"]: row for row in read_decisions(home.decisions)}
    fields = ("campaign_id", "outcome", "treatment", "propensity", "probabilities", "cost")
    followed = [
        (decided[row["decision_id"]]["treatment"], row["amount"], (row["occurred_at"] - at).days)
        for row in read_outcomes(home.decisions)
        if row["decision_id"] in decided
        for at in [decided[row["decision_id"]]["decided_at"]]
    ]
    return sorted(str([row[name] for name in fields]) for row in decided.values()), sorted(followed)


def kept(home):
    """Name what is still of somebody, or there at all."""
    with DecisionLog(home.decisions) as log, ShadowFile(home.shadow) as shadow, Journal(home.journal) as journal:
        answers = [name for name in ("old", "new") if log.answer(f"key-{name}")]
        contacts = {contact.member_id for contact in log.contacts(["old-m", "new-m"], since=OLD - timedelta(days=9))}
        rows = [row.decided_at for row in shadow.of_shadow("r2")]
        live = [entry_id for entry_id, _ in journal.keys("transactions")]
    return {
        "decisions": {row["decision_id"] for row in read_decisions(home.decisions) if not is_erased(row)},
        "outcomes": {row["outcome_id"] for row in read_outcomes(home.decisions) if row["outcome_id"].startswith("o")},
        "answers": answers,
        "contacts": contacts,
        "shadow": rows,
        "live": live,
        "reports": [path.name for path in home.reports.iterdir()],
    }


NEW_ALONE = {
    "decisions": {"d-new", "bnew-0000000001"},
    "outcomes": {"onew0", "onew1", "onew2", "onew3"},
    "answers": ["new"],
    "contacts": {"new-m"},
    "shadow": [NEW],
    "live": ["u"],
    "reports": ["new.html"],
}


def run(home, ends=ENDS):
    with SharedLog(home.decisions) as log:
        return let_go(home, ends, log=log)


def test_what_is_old_goes_and_what_an_experiment_counts_stays(home):
    before, told = counted(home), find_overdue(home, ENDS)
    gone = run(home)
    assert kept(home) == NEW_ALONE
    assert counted(home) == before
    assert gone == told == dict.fromkeys(gone, 1) | {"outcomes": 2}  # those of decisions are counted with them
    assert gone.keys() == {*retention.PLACES} - {"alerts"}
    assert b"old-m" not in home.decisions.read_bytes() + b"".join(map(Path.read_bytes, home.batches.rglob("*.parquet")))


def test_a_rehearsal_changes_nothing_and_a_second_run_finds_nothing(home):
    before = kept(home)
    find_overdue(home, ENDS)
    assert kept(home) == before
    run(home)
    assert set(run(home).values()) == set(find_overdue(home, ENDS).values()) == {0}


def test_beside_a_service_that_keeps_the_log_it_is_the_same(home):
    with SharedLog(home.decisions) as keeper, SharedLog(home.decisions) as visitor:
        assert (keeper.keeps, visitor.keeps) == (True, False)
        let_go(home, ENDS, log=visitor)
    assert kept(home) == NEW_ALONE


def test_an_outcome_of_a_decision_that_is_nobodys_comes_too_late(home):
    run(home)
    with DecisionLog(home.decisions) as log:
        late = Outcome("late", "d-old", None, "purchase", NOW, 5)
        assert not log.record(late, now=NOW).result()


def test_killed_before_any_step_it_is_run_again_to_the_same_end(home, tmp_path, killed_before):
    before, killed = counted(home), 0
    for step in range(1000):
        copy = Home(tmp_path / str(step))
        shutil.copytree(home.root, copy.root)
        with DecisionLog(copy.decisions) as log:
            if not killed_before(step, STEPS, lambda copy=copy, log=log: let_go(copy, ENDS, log=log)):
                break
        killed += 1
        assert counted(copy) == before
        run(copy)
        assert (kept(copy), counted(copy)) == (NEW_ALONE, before)
        shutil.rmtree(copy.root)
    assert killed >= 10


def test_much_goes_in_small_pieces():
    leaving = Leaving(decisions=tuple(map(str, range(450))), answers=("a",))
    assert [piece.counts["decisions"] for piece in leaving.pieces()] == [PIECE] * (450 // PIECE) + [0]


def test_contacts_that_a_limit_has_to_see_are_not_let_go_of(home, monkeypatch):
    class Warehouse:
        tables = ()

    offers = type("Catalogue", (), {"offers": (type("Offer", (), {"min_days_between_contacts": 900})(),)})
    monkeypatch.setattr(retention, "open_warehouse", lambda _: Warehouse())
    monkeypatch.setattr(retention, "read_catalogue", lambda *_: offers)
    with pytest.raises(ContractError, match="decisions = 730 came, but contacts are limited over 900 days"):
        run(home)
    assert kept(home)["contacts"] == {"old-m", "new-m"}
    longer = replace(ENDS, days=Retention(decisions=900))
    assert "contacts" not in run(home, longer)


def test_the_settings_are_checked_and_the_sheet_names_every_place():
    with pytest.raises(ValueError, match="less than or equal to 30"):
        Programme.model_validate({"retention": {"idempotency": 60}})
    sheet = retention_sheet({"decisions": 5}, Retention(), rehearsed=True)
    assert sheet.title == "Would go"
    assert sheet.rows[0] == ("decisions", "730", "5")
    assert len(sheet.rows) == len(retention.PLACES)
