"""The packed table on Redis: writers that race, a cluster, what expires, and servers that hang, die and come back."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from features.errors import ContractError, CorruptError, NotFoundError, UnavailableError
from features.stores.packed import Batch, Schema
from features.stores.packed_redis import RedisTable, _keys

SCHEMA = Schema(("a", "b"), ("stage",))
IDS = [f"m{number}" for number in range(600)]
DAYS = 3
text = st.text(st.characters(codec="utf-8"), max_size=128)
TIMEOUT = 0.25  # seconds; a busy machine answers within it


@contextmanager
def opened(address, prefix, timeout=TIMEOUT):
    table = RedisTable(address, prefix=prefix, days=DAYS, timeout_ms=round(timeout * 1000))
    try:
        yield table
    finally:
        table.close()


def batch(ids, value, time=0):
    times = [time] * len(ids)
    return Batch(ids, np.full((len(ids), 2), value, dtype=float), [("new",)] * len(ids), times, times)


def read(table, ids, view="v"):
    return table.read(view, ids, numbers=["a", "b"], words=["stage"])


def failing(table, ids):
    """Read what can't be read, and say how long that took."""
    start = time.perf_counter()
    with pytest.raises(UnavailableError, match=r"\[engine\] in holdfast\.toml"):
        read(table, ids)
    return time.perf_counter() - start


def test_of_many_writers_at_once_the_newest_stands(redis_server):
    """Each member is written by eight writers in orders of their own; no row is a mix, none gets older."""
    times = range(1, 41)

    def write(seed):
        with opened(redis_server.address, "race") as table:
            for moment in np.random.default_rng(seed).permutation(times).tolist():
                table.write("v", SCHEMA, [batch(IDS[:50], moment, moment)])

    with opened(redis_server.address, "race") as table, ThreadPoolExecutor(8) as writers:
        table.create()
        done = [writers.submit(write, seed) for seed in range(8)]
        seen = np.zeros(50)
        while not all(writer.done() for writer in done):
            first, second = np.nan_to_num(read(table, IDS[:50]).numbers).T
            assert (first == second).all()
            assert (first >= seen).all()
            seen = first
        assert all(writer.result() is None for writer in done)
        assert (read(table, IDS[:50]).numbers == times[-1]).all()


def test_a_row_expires_unless_it_is_written_again(redis_server):
    with opened(redis_server.address, "expiry") as table:
        table.write("v", SCHEMA, [batch(["m1"], 1, 7)])
        (key,) = redis_server.client.scan_iter("expiry:v:*", 1000)
        assert DAYS * 86_400 - 60 < redis_server.client.ttl(key) <= DAYS * 86_400
        redis_server.client.expire(key, 100)
        table.write("v", SCHEMA, [batch(["m1"], 2, 6)])
        assert redis_server.client.ttl(key) <= 100  # an older write is none
        table.write("v", SCHEMA, [batch(["m1"], 1, 7)])
        assert redis_server.client.ttl(key) > 100
        redis_server.client.pexpire(key, 0)
        assert not read(table, ["m1"]).known.any()


def test_who_is_erased_is_gone_and_nobody_else(redis_server):
    with opened(redis_server.address, "erasing") as mine, opened(redis_server.address, "other") as other:
        for table in (mine, other):
            table.write("v", SCHEMA, [batch(IDS[:9], 1)])
        assert mine.erase("v", [*IDS[:3], "nobody"]) == 3
        assert mine.erase("v", IDS[:3]) == 0
        assert read(mine, IDS[:9]).known.tolist() == [False] * 3 + [True] * 6
        assert read(other, IDS[:9]).known.all()


def filled_by(table, ids, value, time, meanwhile):
    """Fill in many parts, and do something before the last."""

    def batches():
        for start in range(0, len(ids), 100):
            if start == len(ids) - 100:
                meanwhile()
            yield batch(ids[start : start + 100], value, time)

    table.fill("v", SCHEMA, batches())


@pytest.mark.parametrize("servers", ["redis_server", "redis_cluster"])
def test_a_filling_is_seen_whole_or_not_at_all(servers, request):
    """Readers of all members see one filling or the other in every one of their looks, and never both."""
    server = request.getfixturevalue(servers)
    address = server.address if servers == "redis_server" else _address(server)
    with opened(address, "atomic") as table, opened(address, "atomic") as other, ThreadPoolExecutor(1) as filler:
        table.create()
        table.fill("v", SCHEMA, [batch(IDS, 0, 0)])

        def fill():
            for number in range(1, 11):
                filled_by(table, IDS, number, number, lambda: None)

        done, seen = filler.submit(fill), 0.0
        while not done.done():
            (one,) = np.unique(read(other, IDS).numbers).tolist()
            assert one >= seen
            seen = one
        done.result()
        assert np.unique(read(other, IDS).numbers).tolist() == [10]


def test_a_store_that_is_filled_for_the_first_time_is_not_there_before_it_is_whole(redis_server):
    with opened(redis_server.address, "first") as table:
        table.create()

        def nothing_yet():
            with pytest.raises(NotFoundError, match="filled for the first time"):
                read(table, IDS[:10])

        filled_by(table, IDS, 1, 1, nothing_yet)
        assert read(table, IDS).known.all()


def test_what_became_known_during_a_filling_is_seen_at_once_and_after_it(redis_server):
    with opened(redis_server.address, "live") as table:
        table.fill("v", SCHEMA, [batch(IDS, 1, 1)])

        def live():
            table.write("v", SCHEMA, [batch(IDS[:3], 3, 3), batch(IDS[-3:], 3, 3), batch(IDS[3:6], 1.5, 1)])
            assert read(table, [*IDS[:8], *IDS[-3:]]).numbers[:, 0].tolist() == [3] * 3 + [1.5] * 3 + [1] * 2 + [3] * 3

        filled_by(table, IDS, 2, 2, live)
        assert read(table, [*IDS[:8], *IDS[-3:]]).numbers[:, 0].tolist() == [3] * 3 + [2] * 5 + [3] * 3


def test_a_filling_that_died_is_never_seen_and_the_next_one_is(redis_server):
    with opened(redis_server.address, "died") as table:
        table.fill("v", SCHEMA, [batch(IDS, 1, 1)])

        def die():
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            filled_by(table, IDS, 2, 2, die)
        assert (read(table, IDS).numbers == 1).all()
        table.fill("v", SCHEMA, [batch(IDS, 3, 3)])
        assert (read(table, IDS).numbers == 3).all()
        size = redis_server.client.strlen(next(redis_server.client.scan_iter("died:v:*", 1000)))
        table.write("v", SCHEMA, [batch(IDS, 4, 4)])
        again = redis_server.client.strlen(next(redis_server.client.scan_iter("died:v:*", 1000)))
        assert size == again  # one row each


@pytest.mark.parametrize("servers", ["redis_server", "redis_cluster"])
def test_only_who_has_a_row_that_is_shown_is_named(servers, request):
    server = request.getfixturevalue(servers)
    address = server.address if servers == "redis_server" else _address(server)

    with opened(address, "named") as table:

        def named():
            return sorted(name for names in table.members("v") for name in names)

        def nobody_yet():
            assert named() == []

        def dies():
            assert named() == sorted([*IDS, "live"])
            raise KeyboardInterrupt

        filled_by(table, IDS, 1, 1, nobody_yet)
        table.write("v", SCHEMA, [batch(["live"], 1, 1)])
        with pytest.raises(KeyboardInterrupt):
            filled_by(table, ["live", *(f"new{number}" for number in range(199))], 2, 2, dies)
        assert named() == sorted([*IDS, "live"])


def test_two_cannot_fill_at_once(redis_server):
    with opened(redis_server.address, "two") as table, opened(redis_server.address, "two") as other:

        def too():
            with pytest.raises(ContractError, match="another process fills the online store"):
                other.fill("v", SCHEMA, [batch(IDS, 9, 9)])

        filled_by(table, IDS, 1, 1, too)
        assert (read(other, IDS).numbers == 1).all()


def test_programmes_that_share_a_server_do_not_meet(redis_server):
    with opened(redis_server.address, "mine") as mine, opened(redis_server.address, "mine.too") as other:
        mine.write("v", SCHEMA, [batch(["m1"], 1)])
        other.write("v", SCHEMA, [batch(["m1"], 2)])
        other.forget("v")
        assert read(mine, ["m1"]).numbers.tolist() == [[1, 1]]
        assert not read(other, ["m1"]).known.any()


def test_a_row_that_names_no_schema_is_refused(redis_server):
    with opened(redis_server.address, "lost") as table:
        table.write("v", SCHEMA, [batch(["m1"], 1)])
        redis_server.client.delete("lost:schemas")
        with pytest.raises(CorruptError, match="holdfast features materialize"):
            read(table, ["m1"])


@given(view=text, member_id=text)
def test_the_keys_of_a_script_lie_in_one_slot(view, member_id):
    """Whatever a view and its members are called: a cluster refuses a script over two slots."""
    table = RedisTable("redis+cluster://localhost:1", prefix="p", days=1, timeout_ms=1)
    ids = [member_id, *IDS]
    for command in table._scripts(view, SCHEMA, batch(ids, 1), 1):
        keys = command.words[3 : 3 + command.words[2]]
        assert {key_slot(key) for key in keys} == {key_slot(command.key)}


def test_a_cluster_keeps_and_gives_every_row(redis_cluster):
    with opened(_address(redis_cluster), "whole") as table:
        numbers = np.arange(1200, dtype=float).reshape(-1, 2)
        times = list(range(600))
        table.write("v", SCHEMA, [Batch(IDS, numbers, [("new",)] * 600, times, times)])
        table.write("v", SCHEMA, [batch(IDS[:300], -1, -1)])
        found = read(table, [*IDS[::-1], "nobody", *IDS])
        assert found.numbers.tobytes() == np.vstack([numbers[::-1], [[np.nan] * 2], numbers]).tobytes()
        assert min(server.client.dbsize() for server in redis_cluster) > 100
        table.forget("v")
        assert not read(table, IDS).known.any()


def test_a_slot_that_moved_to_another_master_is_followed_there(redis_cluster):
    with opened(_address(redis_cluster), "moved") as table:
        table.write("v", SCHEMA, [batch(IDS, 1)])
        assert read(table, IDS).known.all()
        giver, taker = redis_cluster[0].client, redis_cluster[1]
        slot = key_slot(next(giver.scan_iter("moved:v:*", 1000)))
        keys = giver.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1000)
        names = [client.execute_command("CLUSTER", "MYID") for client in (giver, taker.client)]
        taker.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[0])
        giver.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[1])
        giver.execute_command("MIGRATE", "127.0.0.1", taker.port, "", 0, 5000, "KEYS", *keys)
        assert read(table, IDS).known.all()  # the giver says: ask there
        for client in (taker.client, giver):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", names[1])
        assert read(table, IDS).known.all()  # the giver says: moved
        table.write("v", SCHEMA, [batch(IDS, 2, 1)])
        assert (read(table, IDS).numbers == 2).all()


def test_one_master_that_hangs_costs_the_members_of_the_others_nothing(redis_cluster):
    with opened(_address(redis_cluster), "hang") as table:
        table.write("v", SCHEMA, [batch(IDS, 1)])
        assert read(table, IDS).known.all()
        node = table._reader._open().get_node_from_key
        ports = [node(key).port for key in _keys("hang", "v", IDS)[0]]
        hung = [member_id for member_id, port in zip(IDS, ports, strict=True) if port == redis_cluster[1].port]
        fine = [member_id for member_id in IDS if member_id not in hung]
        redis_cluster[1].hang()
        try:
            assert failing(table, IDS) < 2 * TIMEOUT  # not once for each of its 200 keys
            assert failing(table, hung[:1]) < 2.5 * TIMEOUT
            assert read(table, fine).known.all()
        finally:
            redis_cluster[1].go_on()
        assert _again(table, IDS).known.all()


def test_a_cluster_of_which_nobody_answers_is_not_asked_on(redis_cluster):
    for server in redis_cluster:
        server.hang()
    try:
        with opened(_address(redis_cluster), "none") as table:
            assert failing(table, IDS) < 3 * TIMEOUT  # two servers are named
            assert failing(table, IDS) < TIMEOUT / 2
    finally:
        for server in redis_cluster:
            server.go_on()


def test_a_server_that_hangs_fails_a_read_in_time_and_is_left_alone_for_a_moment(own_redis):
    with opened(own_redis.address, "p") as table:
        table.write("v", SCHEMA, [batch(IDS, 1)])
        assert read(table, IDS).known.all()
        own_redis.hang()
        assert TIMEOUT * 0.9 < failing(table, IDS[:10]) < 2 * TIMEOUT
        assert failing(table, IDS[:10]) < TIMEOUT / 2
        own_redis.go_on()
        assert _again(table, IDS).known.all()


def test_a_server_that_was_down_is_read_again_and_what_it_lost_is_said(own_redis):
    with opened(own_redis.address, "p") as table:
        table.write("v", SCHEMA, [batch(IDS, 1)])
        assert read(table, IDS).known.all()
        own_redis.stop()
        assert failing(table, IDS) < 2 * TIMEOUT
        own_redis.start()
        with pytest.raises(NotFoundError, match="holdfast features materialize"):
            _again(table, IDS)
        table.write("v", SCHEMA, [batch(IDS, 2)])
        assert (read(table, IDS).numbers == 2).all()


def test_a_server_that_restarted_between_two_reads_is_not_noticed(own_redis):
    with opened(own_redis.address, "p") as table:
        table.create()
        assert not read(table, ["m1"]).known.any()
        own_redis.stop()
        own_redis.start()
        table.create()
        assert not read(table, ["m1"]).known.any()


def test_a_full_server_is_said_to_be_full_and_names_nobody(own_redis):
    own_redis.client.config_set("maxmemory", "1mb")
    with opened(own_redis.address, "p") as table, pytest.raises(UnavailableError, match="OutOfMemory") as refused:
        table.write("v", SCHEMA, [batch([f"{member_id}{'x' * 100}" for member_id in IDS * 50], 1)])
    assert "m1" not in str(refused.value)


def test_a_password_is_in_no_message():
    with opened("redis://holdfast:s3cret@127.0.0.1:1/0", "p") as table, pytest.raises(UnavailableError) as refused:
        read(table, ["m1"])
    assert "127.0.0.1:1" in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("address", ["redis://host:port/0", "redis+cluster://:7000,", "redis+cluster://h:1,h:x"])
def test_an_address_that_is_none_is_said_when_it_is_used(address):
    with opened(address, "p") as table, pytest.raises(ContractError, match="no address of Redis"):
        table.create()


def _address(cluster):
    return f"redis+cluster://127.0.0.1:{cluster[0].port},127.0.0.1:{cluster[2].port}"


def _again(table, ids):
    """Read as soon as the table asks its servers again."""
    until = time.perf_counter() + 10
    while time.perf_counter() < until:
        try:
            return read(table, ids)
        except UnavailableError:
            continue
    raise AssertionError("the server was not asked again")
