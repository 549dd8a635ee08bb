"""The packed table by itself, in a file and on a server: order of writes, states seen, what is refused."""

import os
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import ContractError, CorruptError, NotFoundError
from features.stores.packed import Batch, Schema, microseconds
from features.stores.packed_redis import RedisTable
from features.stores.packed_sqlite import SqliteTable

SCHEMA = Schema(("a", "b"), ("stage", "segment"))
START = datetime(2017, 3, 12, 6, 30, tzinfo=UTC)  # half an hour before New York's clocks change


def batch(ids, value, time=START, *, created=None, words=("new", None)):
    times = [microseconds(time)] * len(ids)
    numbers = np.full((len(ids), 2), value, dtype=float)
    return Batch(ids, numbers, [words] * len(ids), times, [microseconds(created or time)] * len(ids))


def first_number(table, member_id):
    return table.read("v", [member_id], numbers=["a"], words=[]).numbers[0, 0]


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def opened(request, tmp_path_factory):
    """Open tables in which nothing was written yet, in a file or on a server."""
    tables = []

    def opened():
        folder = tmp_path_factory.mktemp("t")
        if request.param == "sqlite":
            table = SqliteTable(folder / "online.db")
        else:
            address = request.getfixturevalue("redis_server").address
            table = RedisTable(address, prefix=f"{os.getpid()}.{folder.name}", days=1, timeout_ms=5_000)
        tables.append(table)
        return table

    yield opened
    for table in tables:
        table.close()


@pytest.fixture
def table(opened):
    return opened()


@pytest.fixture
def file(tmp_path):
    table = SqliteTable(tmp_path / "online.db")
    yield table
    table.close()


def test_every_bit_comes_back_and_not_a_number_stays_missing(table):
    odd = np.array([[-0.0, np.nan], [5e-324, np.inf], [2.0**53 - 1, 0.1 + 0.2]])
    times = [microseconds(START + timedelta(microseconds=n)) for n in range(3)]
    words = [("é\n\"'", None), (None, None), ("", "x")]
    table.write("v", SCHEMA, [Batch(["x", "y", "=z'\n"], odd, words, times, times)])
    read = table.read("v", ["=z'\n", "x", "y", "x"], numbers=["b", "a"], words=["segment", "stage"])
    assert read.numbers.tobytes() == odd[[2, 0, 1, 0]][:, ::-1].tobytes()
    assert read.words == (("x", ""), (None, "é\n\"'"), (None, None), (None, "é\n\"'"))
    assert [time - START for time in read.event_timestamp] == [timedelta(microseconds=n) for n in (2, 0, 1, 0)]


def test_nobody_is_anybody_else(table):
    """An id that SQLite might cut, fold or trim is another id."""
    table.write("v", SCHEMA, [batch(["m1"], 1)])
    strangers = ["m1\0", "m1 ", "M1", "", "m1\0x", "'m1'", "m", "%"]
    read = table.read("v", ["m1", *strangers], numbers=["a"], words=["stage"])
    assert read.known.tolist() == [True] + [False] * len(strangers)
    assert np.isnan(read.numbers[1:]).all()
    assert read.words[1:] == ((None,),) * len(strangers)
    assert read.event_timestamp[1:] == (None,) * len(strangers)


def test_nobody_asked_is_nobody_answered(table):
    table.create()
    read = table.read("v", [], numbers=["a"], words=["stage"])
    assert (read.numbers.shape, read.words, read.event_timestamp) == ((0, 1), (), ())


def test_more_ids_than_a_statement_takes(table):
    ids = [f"m{number:05d}" for number in range(25_000)]
    numbers = np.arange(50_000, dtype=float).reshape(-1, 2)
    times = [microseconds(START)] * len(ids)
    table.write("v", SCHEMA, [Batch(ids, numbers, [(None, None)] * len(ids), times, times)])
    read = table.read("v", [*ids[::-1], *ids], numbers=["b"], words=[])
    assert read.numbers[:, 0].tolist() == [*numbers[::-1, 1], *numbers[:, 1]]


writes = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from(["p", "q"])), min_size=1, max_size=12)


@given(writes=writes, cut=st.integers(0, 12))
def test_whatever_the_order_the_newest_stands(opened, writes, cut):
    """The newest event wins, of one event the one known last, of equals the last written; in one write or in two."""
    table = opened()
    rows = [
        batch([member], place, START + timedelta(days=event), created=START + timedelta(days=event, hours=known))
        for place, (event, known, member) in enumerate(writes)
    ]
    table.write("v", SCHEMA, rows[:cut])
    table.write("v", SCHEMA, rows[cut:])
    for member in {member for _, _, member in writes}:
        newest = max((event, known, place) for place, (event, known, who) in enumerate(writes) if who == member)
        assert first_number(table, member) == newest[2]


def half():
    yield batch(["m1"], 2)
    raise OSError("disk full")


def test_a_write_to_a_file_that_fails_midway_leaves_the_old_state(file):
    file.write("v", SCHEMA, [batch(["m1", "m2"], 1)])
    with pytest.raises(OSError, match="disk full"):
        file.write("v", SCHEMA, half())
    assert (first_number(file, "m1"), first_number(file, "m2")) == (1, 1)


def test_a_write_that_failed_midway_can_be_repeated(table):
    table.write("v", SCHEMA, [batch(["m1", "m2"], 1)])
    with pytest.raises(OSError, match="disk full"):
        table.write("v", SCHEMA, half())
    table.write("v", SCHEMA, [batch(["m1", "m2"], 2)])
    assert (first_number(table, "m1"), first_number(table, "m2")) == (2, 2)


def test_a_reader_sees_one_state_of_a_file_while_another_is_written(file):
    """Every write changes all members, so any two values in one answer would be a mix."""
    table = file
    ids, writes = [f"m{number}" for number in range(300)], 40
    table.write("v", SCHEMA, [batch(ids, 0)])

    def write():
        for value in range(1, writes + 1):
            halves = [batch(part, value, START + timedelta(days=value)) for part in (ids[:150], ids[150:])]
            table.write("v", SCHEMA, halves)

    writer, seen = threading.Thread(target=write), set()
    writer.start()
    while writer.is_alive() or writes not in seen:
        read = table.read("v", ids, numbers=["a", "b"], words=[])
        (value,) = set(read.numbers.ravel().tolist())
        assert set(read.event_timestamp) == {START + timedelta(days=value)}
        seen.add(value)
    writer.join()


def test_features_are_found_by_name_after_their_order_changed(table):
    """A release that goes on serving reads rows of the next definitions right, as long as they hold its features."""
    table.write("v", SCHEMA, [batch(["old"], 1, words=("new", "loyal"))])
    other = Schema(("b", "c", "a"), ("segment", "stage"))
    times = [microseconds(START)]
    table.write("v", other, [Batch(["next"], np.array([[2.0, 3.0, 4.0]]), [("gone", "lapsed")], times, times)])
    read = table.read("v", ["old", "next"], numbers=["a", "b"], words=["stage"])
    assert read.numbers.tolist() == [[1, 1], [4, 2]]
    assert read.words == (("new",), ("lapsed",))


def test_a_feature_that_was_not_written_is_refused(table):
    table.write("v", SCHEMA, [batch(["m1"], 1)])
    with pytest.raises(ContractError, match=r"without c, tier; `holdfast features materialize`"):
        table.read("v", ["m1"], numbers=["a", "c"], words=["tier"])


def test_a_vector_of_another_length_is_refused(file):
    file.write("v", Schema(("a", "b"), ()), [Batch(["m1"], np.zeros((1, 2)), [()], [0], [0])])
    with file._writing() as db:
        db.execute("UPDATE vectors SET numbers = x'00'")
    with pytest.raises(CorruptError, match="another length"):
        file.read("v", ["m1"], numbers=["a"], words=[])


def test_views_do_not_mix(table):
    table.write("v", SCHEMA, [batch(["m1"], 1)])
    table.write("w", SCHEMA, [batch(["m1"], 2)])
    table.forget("w")
    assert first_number(table, "m1") == 1
    assert not table.read("w", ["m1"], numbers=["a"], words=[]).known.any()


def test_a_view_whose_name_is_a_pattern_is_forgotten_alone(table):
    for view in ("v", "*", "[v]", "v*", "v}"):
        table.write(view, SCHEMA, [batch(["m1", "m2"], 1)])
    for view in ("*", "[v]", "v*"):
        table.forget(view)
    known = [table.read(view, ["m1"], numbers=[], words=[]).known[0] for view in ("v", "*", "[v]", "v*", "v}")]
    assert known == [True, False, False, False, True]


def test_no_table_says_what_to_type(table):
    with pytest.raises(NotFoundError, match="holdfast features materialize"):
        table.read("v", ["m1"], numbers=["a"], words=[])
