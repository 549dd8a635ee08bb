"""History against a loop that a person can read, while its files come, change and go."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import ContractError
from features.stores import chapters
from features.stores.chapters import Columns, open_chapter, write_chapter
from features.stores.history import open_history
from features.stores.packed import Schema, microseconds

START = datetime(2017, 11, 5, 5, tzinfo=UTC)  # New York's clocks change within the first day
SCHEMA = Schema(("spend",), ("stage",))
COLUMNS = Columns("member_id", "event_timestamp", "created_timestamp")
HOUR = 3_600_000_000


def write(path, keys, **options):
    """Write rows of (member, event hour, hour of creation), with features that tell one from all others."""
    member, event, created = zip(*keys, strict=True) if keys else ((), (), ())
    stamp = pa.timestamp("us", tz="UTC")
    columns = {"member_id": pa.array(member, pa.string())}
    columns |= {"event_timestamp": pa.array([START + timedelta(hours=hour) for hour in event], stamp)}
    columns |= {"created_timestamp": pa.array([START + timedelta(hours=hour) for hour in created], stamp)}
    columns |= {"spend": pa.array(map(spend, keys), pa.float64()), "stage": pa.array(map(stage, keys), pa.string())}
    beside = path.with_suffix(".new")  # renamed, as the program writes its files
    pq.write_table(pa.table(columns), beside, **options)
    beside.rename(path)


def spend(key):
    member, event, created = key
    return None if event % 5 == 4 else float(10_000 * ord(member[-1]) + 100 * event + created)


def stage(key):
    return None if sum(key[1:]) % 4 == 3 else f"{key[0]} {sum(key[1:]) % 4}"


def history_of(folder):
    files = sorted(folder.glob("*.parquet"))
    return open_history(files, SCHEMA, COLUMNS, folder=folder / "history")


def answers(history, asked, *, known=True, ttl=None):
    hours = np.array([microseconds(START) + hour * HOUR for _, hour in asked], dtype=np.int64)
    ids = pa.array([member for member, _ in asked], pa.string())
    found = history.as_known(["stage", "spend"], ids, hours, known=known, max_age=ttl and ttl * HOUR)
    return list(zip(*(column.to_pylist() for column in found), strict=True))


def expected(keys, member, hour, *, known=True, ttl=None):
    seen = [
        (event, created)
        for who, event, created in keys
        if who == member and event <= hour and (created <= hour or not known) and (not ttl or hour <= event + ttl)
    ]
    return (stage((member, *max(seen))), spend((member, *max(seen)))) if seen else (None, None)


names = st.sampled_from(["a", "b", "it's", "é"])
events = st.tuples(names, st.integers(0, 6), st.integers(0, 9))
questions = st.lists(st.tuples(st.one_of(names, st.none(), st.just("nobody")), st.integers(-1, 12)), max_size=20)
changes = st.lists(
    st.tuples(st.integers(0, 3), st.one_of(st.none(), st.lists(events, max_size=12))), min_size=1, max_size=8
)  # a file, and its rows from now on, if it is not to go


@settings(max_examples=40)
@given(changes=changes, asked=questions, known=st.booleans(), ttl=st.sampled_from([None, 1, 4]))
def test_every_answer_is_the_latest_that_was_known_whatever_files_the_rows_are_in(
    changes, asked, known, ttl, tmp_path_factory
):
    """Dormant members, late rows, ties, the same question twice, nobody; files that overlap, come, change and go."""
    folder, files = tmp_path_factory.mktemp("h[1]*"), {}
    for number, keys in changes:
        path, before = folder / f"{number}.parquet", bytes_of(folder / "history")
        files.pop(path, None)
        if keys is None:
            path.unlink(missing_ok=True)
        else:
            # where two rows agree in member and both times, which of them counts is nobody's business
            files[path] = list(set(keys).difference(*files.values()))
            write(path, files[path])
        history = history_of(folder)
        every = [key for keys in files.values() for key in keys]
        assert answers(history, asked, known=known, ttl=ttl) == [
            expected(every, *question, known=known, ttl=ttl) for question in asked
        ]
        after = bytes_of(folder / "history")
        assert len(after) == len(files)
        kept = before.keys() & after.keys()
        assert len(kept) >= len(files) - 1
        assert all(before[name] == after[name] for name in kept)


def bytes_of(folder):
    """Give what every chapter holds, and where it lies on the disk."""
    return {
        chapter.name: {path.name: (path.stat().st_ino, path.read_bytes()) for path in chapter.iterdir()}
        for chapter in folder.glob("*/")
    }


@pytest.mark.parametrize("rows", [0, 1, 999])
def test_a_file_in_any_order_is_written_in_order(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(chapters, "_STRETCH", 64)
    monkeypatch.setattr(chapters, "_PART", 100)
    rng = np.random.default_rng(rows)
    drawn = rng.integers(0, 40, (rows, 3)).tolist()
    keys = [(f"m{member}", event, event + wait) for member, event, wait in drawn]
    write(tmp_path / "a.parquet", keys, row_group_size=50)
    with duckdb.connect() as db:
        write_chapter(tmp_path / "chapter", tmp_path / "a.parquet", schema=SCHEMA, columns=COLUMNS, db=db)
    chapter = open_chapter(tmp_path / "chapter")
    member = np.repeat(chapter.members.to_pylist(), np.diff(chapter.first)).tolist()
    hours = [((times - microseconds(START)) // HOUR).tolist() for times in (chapter.event, chapter.created)]
    assert list(zip(member, *hours, strict=True)) == sorted(keys)
    np.testing.assert_array_equal(chapter.numbers[:, 0], np.array(list(map(spend, sorted(keys))), dtype=float))
    vocabulary = [*chapter.vocabulary.to_pylist(), None]
    assert [vocabulary[code] for code in chapter.words[:, 0]] == list(map(stage, sorted(keys)))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3))))
def test_rows_that_are_sorted_stay_where_they_are(pairs):
    first, second = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    order = chapters._order(first, second)
    np.testing.assert_array_equal(order, np.lexsort((second, first)))
    np.testing.assert_array_equal(chapters._order(first[order], second[order]), np.arange(len(pairs)))


def test_a_row_is_known_from_the_microsecond_of_its_creation(tmp_path):
    write(tmp_path / "a.parquet", [("a", 0, 5), ("a", 0, 2), ("a", 1, 9)])
    history = history_of(tmp_path)
    instants = np.array([5 * HOUR - 1, 5 * HOUR, 9 * HOUR - 1, 9 * HOUR]) + microseconds(START)
    seen = history.as_known(["spend"], pa.array(["a"] * 4), instants, known=True, max_age=None)[0].to_pylist()
    assert seen == [spend(key) for key in [("a", 0, 2), ("a", 0, 5), ("a", 0, 5), ("a", 1, 9)]]


def test_a_killed_writer_leaves_what_the_next_call_mends(tmp_path):
    keys = [("a", 0, 0), ("b", 1, 2)]
    write(tmp_path / "a.parquet", keys[:1])
    history_of(tmp_path)
    before = bytes_of(tmp_path / "history")
    write(tmp_path / "b.parquet", keys[1:])
    kill = (
        "import os, signal, sys; from pathlib import Path; from features.stores import chapters, history, packed;"
        "chapters._write_features = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL);"
        "columns = chapters.Columns('member_id', 'event_timestamp', 'created_timestamp');"
        "root = Path(sys.argv[1]); files = sorted(root.glob('*.parquet'));"
        "history.open_history(files, packed.Schema(('spend',), ('stage',)), columns, folder=root / 'history')"
    )
    killed = subprocess.run([sys.executable, "-c", kill, tmp_path], check=False, env=os.environ)
    assert killed.returncode == -9
    assert len(list((tmp_path / "history").glob(".*.part"))) == 1
    asked = [("a", 3), ("b", 3)]
    assert answers(history_of(tmp_path), asked) == [expected(keys, *question) for question in asked]
    after = bytes_of(tmp_path / "history")
    assert len(after) == 2
    assert before.items() <= after.items()


def test_a_file_that_is_replaced_while_it_is_read_is_refused(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet", [("a", 0, 0), ("b", 0, 0)])
    write_features = chapters._write_features

    def replace_then_write(*args, **options):
        write(tmp_path / "a.parquet", [("b", 1, 1), ("a", 1, 1)])
        write_features(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(chapters, "_write_features", replace_then_write)
        with pytest.raises(ContractError, match="was replaced while it was read"):
            history_of(tmp_path)
    assert answers(history_of(tmp_path), [("a", 1)]) == [expected([("a", 1, 1)], "a", 1)]


def test_many_open_at_once_what_is_written_once(tmp_path):
    for number in range(4):
        write(tmp_path / f"{number}.parquet", [("a", number, number)])
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: history_of(tmp_path), range(8)))
    assert [answers(history, [("a", 2)]) for history in opened] == [[expected([("a", 2, 2)], "a", 2)]] * 8


def test_no_files_know_nobody(tmp_path):
    assert answers(history_of(tmp_path), [("a", 1)]) == [(None, None)]


def test_a_row_without_a_member_is_refused_and_leaves_nothing(tmp_path):
    write(tmp_path / "a.parquet", [("a", 1, 1)])
    table = pq.read_table(tmp_path / "a.parquet")
    pq.write_table(table.set_column(0, "member_id", pa.array([None], pa.string())), tmp_path / "a.parquet")
    with pytest.raises(ContractError, match="a row lacks one of member_id"):
        history_of(tmp_path)
    assert list((tmp_path / "history").glob("*/")) == []


def test_a_file_without_a_feature_is_refused(tmp_path):
    write(tmp_path / "a.parquet", [("a", 1, 1)])
    pq.write_table(pq.read_table(tmp_path / "a.parquet").drop_columns("spend"), tmp_path / "a.parquet")
    with pytest.raises(ContractError, match=r"a\.parquet lacks spend"):
        history_of(tmp_path)
