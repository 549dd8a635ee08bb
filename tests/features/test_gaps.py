"""SQLite leaves copies of rows where it moved them from; nobody who was erased is found in a file afterwards."""

import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime

import numpy as np
import pytest

from features.decisions import DecisionLog, Erasure, Preference
from features.errors import UnwrittenError
from features.gaps import Gaps
from features.journal import Journal, entries_of
from features.log.erasing import Traces
from features.shadow import ShadowFile, ShadowRow
from features.stores.packed import Batch, Schema
from features.stores.packed_sqlite import SqliteTable
from tests.features.privacy.conftest import unpacked

NOW = datetime(2024, 1, 1, 12, tzinfo=UTC)
MARK = "zQ7gone"
GONE = tuple(f"{number:05d}-{MARK}" for number in range(0, 16_000, 10))
STAYING = tuple(f"{number:05d}-member" for number in range(16_000) if number % 10)


def come():
    """Name everybody in an order that lets SQLite split full pages in their middle."""
    rng = np.random.default_rng(0)
    return [*rng.permutation(STAYING).tolist(), *rng.permutation(GONE).tolist()]


def named_in(folder):
    return [path.name for path in folder.rglob("*") if path.is_file() and MARK.encode() in unpacked(path)]


@pytest.mark.parametrize(("mode", "page"), [("WAL", 4_096), ("TRUNCATE", 1_024), ("WAL", 65_536)])
def test_what_is_gone_is_gone_from_the_file_and_all_else_is_as_it_was(tmp_path, mode, page):
    path = tmp_path / "some.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for pragma in (f"page_size = {page}", f"journal_mode = {mode}", "secure_delete = ON", "synchronous = OFF"):
            db.execute(f"PRAGMA {pragma}")
        db.execute("CREATE TABLE bodies (key TEXT PRIMARY KEY, body TEXT)")
        db.execute("CREATE TABLE names (name TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID")
        db.execute("BEGIN")
        for number, name in enumerate(come()):
            db.execute("INSERT INTO bodies VALUES (?, ?)", (f"key-{name}", name * (1, 30, 1_000)[number % 3]))
            db.execute("INSERT INTO names VALUES (?, ?)", (name, number))
        db.execute("COMMIT")
        theirs = [(name,) for name in GONE]
        db.executemany("UPDATE bodies SET key = hex(randomblob(40)), body = '' WHERE key = 'key-' || ?", theirs)
        db.executemany("DELETE FROM names WHERE name = ?", theirs)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        before = [*db.iterdump()]
    assert named_in(tmp_path) == ["some.db"]
    with Gaps(path) as gaps:
        assert gaps.found > 0
        gaps.overwrite()
    assert named_in(tmp_path) == []
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert [*db.iterdump()] == before
    with Gaps(path) as gaps:
        assert gaps.found == 0


def test_a_file_that_can_not_be_read_is_named(tmp_path):
    with pytest.raises(UnwrittenError, match=r"none\.db still holds.*No such file"):
        Gaps(tmp_path / "none.db")
    (tmp_path / "empty.db").touch()
    with pytest.raises(UnwrittenError, match=r"empty\.db still holds"):
        Gaps(tmp_path / "empty.db")


def test_a_process_that_is_killed_meanwhile_is_told(tmp_path):
    with closing(sqlite3.connect(tmp_path / "some.db")) as db:
        db.execute("CREATE TABLE names (name TEXT)")
    with Gaps(tmp_path / "some.db") as gaps:
        gaps._process.kill()
        gaps._process.wait()
        with pytest.raises(UnwrittenError, match=r"some\.db still holds what was deleted"):
            gaps.overwrite()


@pytest.fixture
def log(tmp_path):
    with DecisionLog(tmp_path / "decisions.db") as log:
        for member_id in come():
            stored = log.prefer(Preference(member_id, personalisation=False), now=NOW)
        stored.result()
        yield log


def erase(log):
    log.erase(Erasure("r1", GONE), Traces(), now=NOW).result()


def test_the_log_holds_nothing_of_them_also_after_it_has_written_on(log, tmp_path):
    erase(log)
    assert named_in(tmp_path) == ["decisions.db"]
    assert log.overwrite_gaps().result() > 0
    assert named_in(tmp_path) == []
    for member_id in STAYING:  # the pages are changed, each as it is remembered
        stored = log.prefer(Preference(member_id, personalisation=True), now=NOW)
    stored.result()
    log.close()
    assert named_in(tmp_path) == []


def test_entries_are_taken_meanwhile(log, tmp_path):
    erase(log)
    stop, stored = threading.Event(), []

    def write():
        while not stop.is_set():
            preference = Preference(f"late{len(stored)}", personalisation=False)
            stored.append(log.prefer(preference, now=NOW).result())

    writing = threading.Thread(target=write)
    writing.start()
    try:
        log.overwrite_gaps().result()
    finally:
        stop.set()
        writing.join()
    log.close()
    assert all(stored)
    assert named_in(tmp_path) == []


def test_who_reads_all_the_time_keeps_it_up_and_it_says_so(log, tmp_path, monkeypatch):
    monkeypatch.setattr("features.log.commits.TRIES", 2)
    with closing(sqlite3.connect(tmp_path / "decisions.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM preferences LIMIT 1").fetchall()
        erase(log)
        with pytest.raises(UnwrittenError, match="is being read all the time"):
            log.overwrite_gaps().result()
        assert log.prefer(Preference("late", personalisation=False), now=NOW).result()
    log.overwrite_gaps().result()
    assert named_in(tmp_path) == []


def test_the_journal_of_live_rows_holds_nothing_of_them(tmp_path):
    rows = [
        {"transaction_id": f"t{member_id}", "member_id": member_id, "occurred_at": NOW, "amount": number}
        for number, member_id in enumerate(come())
    ]
    with Journal(tmp_path / "live.db") as journal:
        journal.add([entries_of("transactions", [row])[0] for row in rows], NOW)
        assert journal.erase(GONE) == len(GONE)
        assert named_in(tmp_path) == []
        assert len(journal.members()) == len(STAYING)


def test_the_shadows_file_holds_nothing_of_them(tmp_path):
    with ShadowFile(tmp_path / "shadow.db") as shadow:
        with shadow.writing():
            rows = [ShadowRow(one, one, NOW, None, *["r1", "r2", "A", "A"], *[0.5] * 10) for one in come()]
            shadow.add(rows)
        assert shadow.erase(GONE) == len(GONE)
        assert named_in(tmp_path) == []
        assert sum(map(len, shadow.members())) == len(STAYING)


def test_the_online_store_holds_nothing_of_them(tmp_path):
    table, schema = SqliteTable(tmp_path / "online.db"), Schema(("visits",), ("tier",))
    everybody = come()
    ones, numbers, words = [1] * len(everybody), np.ones((len(everybody), 1)), [(one,) for one in everybody]
    table.write("members", schema, [Batch(everybody, numbers, words, event_timestamp=ones, created=ones)])
    assert table.erase("members", GONE) == len(GONE)
    table.close()
    assert named_in(tmp_path) == []
