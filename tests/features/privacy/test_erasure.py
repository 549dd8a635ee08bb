"""An erasure that is killed at any step, and gone on with, leaves what one that was not killed leaves: nothing."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features import files
from features.decisions import (
    Answer,
    Batch,
    DecisionLog,
    Erasure,
    Outcome,
    Part,
    Preference,
    read_decisions,
    read_outcomes,
)
from features.errors import NotFoundError
from features.files import sha256, write_folder_whole
from features.home import Home
from features.ingest import bring
from features.intake.mapping import SourceMapping
from features.intake.sources import Source
from features.journal import Journal, entries_of
from features.log.commits import Commits
from features.log.parts import KEY
from features.privacy.consent import opted_out
from features.privacy.erasure import erase, find_receipt, finish_pending, ids_of
from features.privacy.export import export_lines
from features.programme import read_programme
from features.shadow import ShadowFile, ShadowRow
from features.snapshots import build, built
from features.store import open_store
from features.stores.packed_sqlite import SqliteTable
from features.world.history import write_history
from features.world.law import World
from features.world.source import world_settings
from tests.features.privacy.conftest import unpacked

NOW = datetime(2024, 1, 1, 12, tzinfo=UTC)
GONE = ("zQ7gone1", "zQ7gone2")
STEPS = (  # what a kill may come before, beside every flush of a file to the disk
    (files, "_flush"),
    (Path, "unlink"),
    (shutil, "rmtree"),
    (Commits, "submit"),
    (Journal, "erase"),
    (ShadowFile, "erase"),
    (SqliteTable, "erase"),
)


@pytest.fixture(scope="module")
def lived(tmp_path_factory, decision):
    """A home with two members in every place; nothing was trained."""
    home, source = Home(tmp_path_factory.mktemp("home")), tmp_path_factory.mktemp("source")
    world = World(1000, shape="retail")
    write_history(world, source, np.random.default_rng(0))
    (source / "truth.parquet").unlink(missing_ok=True)
    ids = pq.read_table(source / "members.parquet")["member_id"].to_pylist()[:2]
    for path in source.glob("*.parquet"):
        frame = pd.read_parquet(path)
        if "member_id" in frame:
            frame["member_id"] = frame["member_id"].replace(dict(zip(ids, GONE, strict=True)))
            if path.stem == "transactions":
                frame.loc[frame["member_id"].isin(GONE).idxmax(), "amount"] = None
            pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)
    home.settings.write_text(f"{world_settings(world)}snapshot_days = 84\n")
    bring(home, Source(folder=source), SourceMapping())
    build(home, progress=lambda *_: None)
    store = open_store(home)
    store.apply()
    as_of = built(home)[-1]
    store.materialize(as_of)
    store.training_frame(pd.DataFrame({"member_id": list(GONE), "as_of": [as_of, as_of]}))
    row = {"transaction_id": "t", "member_id": GONE[0], "occurred_at": NOW, "amount": 100}
    with Journal(home.journal) as journal:
        journal.add([entries_of("transactions", [row])[0]], NOW)
    fill_log(home, decision)
    with ShadowFile(home.shadow) as shadow, shadow.writing():
        shadow.add([ShadowRow(one, one, NOW, None, *["r1", "r2", "A", "A"], *[0.5] * 10) for one in (*GONE, "other")])
    return home


def fill_log(home, decision):
    answer = Answer("till-zQ7gone1", "f" * 64, 200, json.dumps({"decisions": [{"member_id": GONE[0]}]}).encode())
    batch = Batch("b1", "spring", NOW, "r1", "c1", {})
    with DecisionLog(home.decisions) as log:
        asked = {"features": np.ones(3, "<f4").tobytes(), "facts": {"region": "north"}, "decided_at": NOW}
        mine = decision("d1", member_id=GONE[0], idempotency_key=answer.idempotency_key, **asked)
        log.append([mine, decision("d2", member_id="other", **asked)], now=NOW, answer=answer).result()
        for number, decision_id in enumerate(("d1", "d2", "b1-0000000001")):
            occurred = NOW + timedelta(days=2, hours=13, minutes=7)
            log.record(Outcome(f"o{number}", decision_id, None, "purchase", occurred, 700), now=NOW).result()
        log.prefer(Preference(GONE[1], personalisation=False), now=NOW).result()
        log.begin_batch(batch).result()
        log.append_part(write_part(home, batch), 0).result()


def write_part(home, batch):
    shared = {
        "campaign_id": "spring", "decided_at": NOW.isoformat(), "release_id": "r1", "catalogue_id": "c1",
        "treatments": ["control", "A"], "price": 0.0, "stock_prices": [0.0], "reasons": [], "context": {},
        "event_timestamp": NOW.isoformat(), "standing": {}, "source": "model",
    }  # fmt: skip
    pair = pa.list_(pa.float64(), 2)
    one = pa.list_(pa.int64(), 1)
    table = pa.table(
        {
            "decision_id": ["b1-0000000001", "b1-0000000002"],
            "member_id": [GONE[1], "other"],
            "outcome": pa.array(["model", "random"]).dictionary_encode(),
            "treatment": pa.array(["A", "control"]).dictionary_encode(),
            "propensity": [0.7, 0.5],
            "draw": [0.25, 0.5],
            "probabilities": pa.array([[0.3, 0.7], [0.5, 0.5]], pair),
            "refusals": pa.array([[""], [""]], pa.list_(pa.string(), 1)),
            "churn_probability": [0.5, 0.25],
            "value": [10, 20],
            "uplift": pa.array([[1], [2]], one),
            "cost": pa.array([[50], [50]], one),
            "net_value": pa.array([[3], [4]], one),
            "segment": ["loyal", "new"],
            "lifecycle_stage": ["active", "new"],
            "facts": pa.array([{"tier": "gold"}, {"tier": None}]),
            "features": pa.array([b"\0" * 12, b"\1" * 12], pa.binary(12)),
        }
    ).replace_schema_metadata({KEY: json.dumps(shared)})
    path = home.batches / batch.batch_id / "part-00000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(table, path)
    return Part("b1", 0, str(path.relative_to(home.root)), sha256(path), 2)


@pytest.fixture
def home(lived, tmp_path):
    copied = Home(tmp_path / "home")
    shutil.copytree(lived.root, copied.root)
    return copied


def erased(home, ids=GONE):
    with DecisionLog(home.decisions) as log:
        return erase(home, ids, log=log, store=open_store(home), clock=lambda: NOW + timedelta(days=30))


def named_in(home):
    """Name the files that hold one of the ids."""
    files = (path for path in home.root.rglob("*") if path.is_file())
    return [str(path.relative_to(home.root)) for path in files if b"zQ7gone" in unpacked(path)]


def counted(home):
    """Give what an experiment counts, and what followed after how many days."""
    decided = {row["decision_id"]: row for row in read_decisions(home.decisions)}
    fields = ("campaign_id", "outcome", "treatment", "propensity", "probabilities", "cost")
    followed = [
        (decided[row["decision_id"]]["treatment"], row["amount"], (row["occurred_at"] - at).days)
        for row in read_outcomes(home.decisions)
        for at in [decided[row["decision_id"]]["decided_at"]]
    ]
    return sorted(str([row[name] for name in fields]) for row in decided.values()), sorted(followed)


def test_nothing_of_them_is_left_and_what_an_experiment_counts_is(home):
    before = counted(home)
    assert {name.split("/")[0] for name in named_in(home)} >= {
        "warehouse",
        "features",
        "history",
        "batches",
        "quarantine",
    }
    receipt = erased(home)
    assert named_in(home) == []
    assert counted(home) == before
    assert {
        "live",
        "online",
        "quarantine",
        "log.answers",
        "log.preferences",
        "batches",
        "shadow",
    } <= receipt.removed.keys()


def test_killed_before_any_step_it_is_gone_on_with_to_the_same_end(lived, tmp_path, killed_before):
    before, killed = counted(lived), 0
    for step in range(0, 1000, 3):
        home = Home(tmp_path / str(step))
        shutil.copytree(lived.root, home.root)
        with DecisionLog(home.decisions) as log:
            later = {"log": log, "store": open_store(home), "clock": lambda: NOW + timedelta(days=30)}
            if not killed_before(step, STEPS, lambda home=home, later=later: erase(home, GONE, **later)):
                break
        killed += 1
        with DecisionLog(home.decisions) as log:
            begun = finish_pending(home, log=log, store=open_store(home), clock=lambda: NOW)
            again = finish_pending(home, log=log, store=open_store(home), clock=lambda: NOW)
        assert (begun, again) == (int(step > 0), 0)  # before the first step nothing had begun
        assert (named_in(home) == []) == (step > 0)
        assert counted(home) == before
        shutil.rmtree(home.root)
    assert killed > 10


def test_two_who_go_on_with_one_erasure_share_its_receipt(home):
    with DecisionLog(home.decisions) as log:
        begun = Erasure("r1", GONE[:1])
        log.begin_erasure(begun, now=NOW).result()
        log.begin_erasure(replace(begun, contact_ids=("c1",)), now=NOW).result()
        log.begin_erasure(begun, now=NOW).result()
        assert log.pending_erasures() == [Erasure("r1", GONE[:1], ("c1",))]  # what is known of contacts stays known
        later = {"log": log, "store": open_store(home), "clock": lambda: NOW}
        other = erase(home, GONE[1:], **later)
        mine = erase(home, GONE[:1], **later, receipt_id="r1")
    kept = find_receipt(home, "r1")
    assert kept == mine
    assert mine.removed["online"] == other.removed["online"] == 1
    assert find_receipt(home, "r2") is None
    assert named_in(home) == []


def test_what_a_writer_that_is_no_more_left_goes_too(home):
    left, folder = home.features / ".x.parquet.999999999.part", home.features / "..x.parquet.999999999.part.ab.part"
    (folder / "parts").mkdir(parents=True)
    for path in (left, folder / "parts" / "0.parquet"):
        path.write_bytes(b"zQ7gone1")
    erased(home)
    assert not left.exists()
    assert not folder.exists()


def test_what_a_living_writer_fills_is_left_to_it(home):
    def write(beside):
        (beside / "0").touch()
        erased(home)

    write_folder_whole(home.features / "whole", write)
    assert (home.features / "whole" / "0").exists()


def test_an_erasure_again_or_of_a_stranger_removes_nothing(home):
    erased(home)
    assert erased(home).removed == {}
    assert erased(home, ("nobody",)).removed == {}


def test_what_follows_an_erased_decision_later_is_of_nobody(home):
    erased(home)
    before = len(read_outcomes(home.decisions))
    with DecisionLog(home.decisions) as log:
        late = Outcome("late-zQ7gone1", "d1", None, "purchase", NOW, 5)
        assert not log.record(late, now=NOW).result()
    assert len(read_outcomes(home.decisions)) == before


def test_what_callers_said_of_them_beside_others_goes_and_what_names_nobody_stays(home, decision):
    said = {f"e{n}": {"with": who} for n, who in enumerate([*GONE, "zQ7gon", 'a"b', "other"])}
    with DecisionLog(home.decisions) as log:
        decisions = [decision(name, member_id="other", context=context) for name, context in said.items()]
        log.append(decisions, now=NOW).result()
    receipt = erased(home, (*GONE, 'a"b'))
    kept = {row["decision_id"]: row["context"] for row in read_decisions(home.decisions)}
    assert [kept[name] for name in said] == [{}, {}, {"with": "zQ7gon"}, {}, {"with": "other"}]
    assert receipt.removed["log.contexts"] == 3


def test_who_opted_out_is_named_until_erased(home):
    assert opted_out(home) == {GONE[1]}
    erased(home)
    assert opted_out(home) == frozenset()


def test_the_export_holds_what_the_warehouse_has_of_the_member_and_of_nobody_else(home, lived):
    lines = [json.loads(line) for line in export_lines(home, GONE[0], open_store(home))]
    places = [line["held_in"] for line in lines]
    own = pd.read_parquet(next(lived.warehouse.glob("transactions-*.parquet")))
    assert places.count("warehouse.transactions") == (own["member_id"] == GONE[0]).sum()
    assert places.count("snapshot") == len(built(home))
    assert {"online", "live.transactions", "log.decisions", "log.outcomes", "log.answers", "shadow"} <= set(places)
    assert GONE[1] not in json.dumps(lines)
    assert [*export_lines(home, "nobody", open_store(home))] == []


def test_ids_come_from_a_file_and_a_file_without_them_is_refused(tmp_path):
    listed = tmp_path / "ids.csv"
    listed.write_text("member_id\nm1\nm2\nm1\n")
    assert ids_of(listed) == ("m1", "m2")
    with pytest.raises(NotFoundError, match="is no file"):
        ids_of(tmp_path / "none.csv")


def test_the_settings_of_the_home_stay(home):
    erased(home)
    assert read_programme(home.settings).snapshot_days == 84
