"""What the doctor finds of real servers: what is wrong with one is told apart, and never its password."""

import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from features.engine import Engine
from features.home import Home
from monitoring.doctor import parts
from monitoring.doctor.parts import Asked

NOBODY = "postgresql://ada:s3cret@127.0.0.1:1/none"


def clock():
    return datetime.now(UTC)  # noqa: TID251 (held against a server's)


def asked(tmp_path, **engine):
    return Asked(Home(tmp_path), Engine(**engine), clock)


@pytest.fixture
def postgres(postgres_server):
    yield postgres_server
    postgres_server.run(
        "ALTER SYSTEM RESET ALL; SELECT pg_reload_conf(); DROP SCHEMA IF EXISTS holdfast_tracking CASCADE;"
    )


def set_to(server, *settings):
    """Change settings of the server, as its owner would."""
    server.run(f"{' '.join(f'ALTER SYSTEM SET {setting};' for setting in settings)} SELECT pg_reload_conf();")


def test_what_learns_is_there_and_a_spark_that_is_not_is_ill(tmp_path):
    assert parts.training(asked(tmp_path)).well
    far = asked(tmp_path, training="spark", spark="spark://127.0.0.1:1")
    assert parts.features(far).well
    assert not parts.training(far).well
    assert "Spark" in parts.training(far).mend


def test_redis_that_answers_is_well_and_its_clock_is_held_against_this_ones(redis_server, tmp_path):
    examined = asked(tmp_path, online=redis_server.address, online_timeout_ms=2_000)
    found = parts.online(examined)
    assert found.well
    assert found.found.startswith("answers in ")
    assert abs(examined.apart["online"]) < timedelta(seconds=2)
    assert examined.clocks().well


def test_a_cluster_is_well_like_one_server(redis_cluster, tmp_path):
    address = f"redis+cluster://{','.join(f'127.0.0.1:{server.port}' for server in redis_cluster)}"
    examined = asked(tmp_path, online=address, online_timeout_ms=2_000)
    assert parts.online(examined).well
    assert "online" in examined.apart


def test_redis_that_is_slower_than_decisions_wait_is_slow(own_redis, tmp_path):
    own_redis.client.execute_command("CLIENT", "PAUSE", 60, "WRITE")  # milliseconds
    found = parts.online(asked(tmp_path, online=own_redis.address, online_timeout_ms=1))
    assert not found.well
    assert "online_timeout_ms (1)" in found.mend


def test_redis_that_hangs_is_silent_and_one_that_is_gone_is_absent(own_redis, tmp_path, monkeypatch):
    monkeypatch.setattr("features.stores.health.SECONDS", 0.2)
    own_redis.hang()
    assert "says nothing within" in parts.online(asked(tmp_path, online=own_redis.address)).found
    own_redis.stop()
    assert parts.online(asked(tmp_path, online=own_redis.address)).found == "nothing listens there"
    own_redis.start()


def test_a_replica_and_a_full_redis_take_no_writes(own_redis, tmp_path):
    examined = asked(tmp_path, online=own_redis.address)
    own_redis.client.config_set("maxmemory", 1)
    assert "memory is full" in parts.online(examined).found
    own_redis.client.config_set("maxmemory", 0)
    own_redis.client.execute_command("REPLICAOF", "127.0.0.1", 1)
    found = parts.online(examined)
    assert found.found == "takes no writes: it is a replica"
    assert "takes writes" in found.mend


def test_redis_that_wants_a_password_refuses_and_none_is_shown(own_redis, tmp_path):
    own_redis.client.config_set("requirepass", "other")
    address = own_redis.address.replace("redis://", "redis://:s3cret@")
    found = parts.online(asked(tmp_path, online=address))
    assert found.found.startswith("refuses: ")
    assert "s3cret" not in repr(found)
    assert found.setting.startswith("redis://***@127.0.0.1:")


@pytest.mark.parametrize("part", ["registry", "tracking", "studies", "decisions"])
def test_each_part_on_postgres_is_well_before_anything_stands_there(postgres, tmp_path, part):
    examined = asked(tmp_path, **{part: postgres.address})
    found = getattr(parts, part)(examined)
    assert found.well, found
    assert "hunter2" not in repr(found)
    assert part in examined.apart


def test_nothing_there_is_told_from_a_wrong_password_and_a_database_that_is_not(postgres, tmp_path):
    place = postgres.place
    told = {
        NOBODY: "nothing listens there",
        f"postgresql://shop:s3cret@{place}/postgres": "refuses: the password",
        postgres.address.replace("/postgres", "/nowhere"): "refuses: the database",
    }
    for address, words in told.items():
        found = parts.studies(asked(tmp_path, studies=address))
        assert found.found == words
        assert "s3cret" not in repr(found)
        assert "`studies` under [engine]" in found.mend


def test_a_server_set_to_read_only_is_told(postgres, tmp_path):
    postgres.run("ALTER ROLE shop SET default_transaction_read_only = on")
    found = parts.tracking(asked(tmp_path, tracking=postgres.address))
    postgres.run("SET default_transaction_read_only = off; ALTER ROLE shop RESET default_transaction_read_only")
    assert found.found == "takes no writes: it is set to read-only"


def test_a_slow_server_is_told(postgres, tmp_path):
    set_to(postgres, "pre_auth_delay = 1")  # seconds
    found = parts.registry(asked(tmp_path, registry=postgres.address))
    assert not found.well
    assert found.found.startswith("answers in ")
    assert "bring it nearer" in found.mend


def test_tables_of_another_mlflow_are_told(postgres, tmp_path):
    postgres.run(
        "CREATE SCHEMA holdfast_tracking; CREATE TABLE holdfast_tracking.alembic_version (version_num text);"
        "INSERT INTO holdfast_tracking.alembic_version VALUES ('0123456789ab');"
    )
    found = parts.tracking(asked(tmp_path, tracking=postgres.address))
    assert "not what this home wants" in found.found
    assert found.mend.startswith("0123456789ab came")


def test_a_registry_of_another_feast_is_told_by_the_tables_it_lacks(postgres, tmp_path):
    postgres.run("CREATE SCHEMA holdfast_registry; CREATE TABLE holdfast_registry.entities (name text);")
    found = parts.registry(asked(tmp_path, registry=postgres.address))
    postgres.run("DROP SCHEMA holdfast_registry CASCADE")
    assert "not what this home wants" in found.found
    assert "feature_views" in found.mend
    assert " entities" not in found.mend


def test_a_copy_of_the_log_that_lacks_a_column_is_told(postgres, tmp_path, decision):
    from features.decisions import SharedLog
    from features.log.drain import drain

    home = Home(tmp_path)
    with SharedLog(home.decisions) as log:
        log.append([decision("d1")], now=clock()).result()
        drain(log, home.decisions, postgres.address)
    assert parts.decisions(asked(tmp_path, decisions=postgres.address)).well
    postgres.run("ALTER TABLE decisions DROP COLUMN draw")
    assert parts.decisions(asked(tmp_path, decisions=postgres.address)).mend.startswith("lacks decisions.draw: ")


def test_a_ledger_of_other_homes_or_another_version_is_told(postgres, tmp_path):
    from features.log.ledger import Terms
    from features.log.shared import SharedLog

    one, other = Home(tmp_path / "one"), Home(tmp_path / "other")
    with SharedLog(one.decisions, Terms(postgres.address, 10.0)):
        pass
    with SharedLog(other.decisions):
        pass
    settings = {"decisions": postgres.address, "agree": True}
    assert "ledger" not in parts.decisions(asked(one.root, **settings)).mend
    assert "privacy.key is not that" in parts.decisions(asked(other.root, **settings)).mend
    assert "has no privacy.key yet" in parts.decisions(asked(tmp_path / "new", **settings)).mend
    postgres.run("UPDATE holdfast_ledger.terms SET format = 1")
    assert "has format 1, 1004 was wanted" in parts.decisions(asked(one.root, **settings)).mend
    postgres.run("DROP SCHEMA holdfast_ledger CASCADE")


def test_a_postgres_that_is_later_than_instances_wait_is_told(postgres, tmp_path, monkeypatch):
    settings = {"decisions": postgres.address, "agree": True}
    assert parts.decisions(asked(tmp_path, **settings, decisions_timeout_ms=10_000)).well
    monkeypatch.setattr("features.log.ledger.round_trip", lambda _: 0.25)
    found = parts.decisions(asked(tmp_path, **settings, decisions_timeout_ms=80))
    assert "takes 250 ms, and this instance decides apart after 80" in found.mend
    assert parts.decisions(asked(tmp_path, decisions=postgres.address)).well  # alone, nobody waits for it


def test_clocks_that_differ_are_told():
    examined = Asked(Home("."), Engine(), clock, apart={"online": timedelta(seconds=-7), "studies": timedelta(0)})
    assert examined.clocks().found == "online's is -7.0 s"
    assert not examined.clocks().well


def test_object_storage_is_tried_and_what_is_wrong_is_told_with_what_mends_it(s3, tmp_path):
    assert parts.objects(asked(tmp_path)).well
    examined = asked(tmp_path, objects=s3.address)
    assert parts.objects(examined).found.startswith("takes an object, gives it back")
    s3.away()
    found = parts.objects(examined)
    assert (found.setting, found.found) == ("s3://holdfast/programme", "nothing listens there")
    assert found.mend == "start it, or mend its address; `objects` under [engine] in holdfast.toml"
    s3.back()
    nobodys = parts.objects(asked(tmp_path, objects="s3://nobodys"))
    assert (nobodys.found, nobodys.well) == ("refuses: there is no such bucket", False)


def test_a_file_that_is_no_database_is_told(tmp_path):
    home = Home(tmp_path)
    assert parts.online(asked(tmp_path)).found == "not made yet: `holdfast features materialize`"
    home.online.write_bytes(b"no database" * 100)
    assert "can't be read" in parts.online(asked(tmp_path)).found
    home.online.unlink()
    sqlite3.connect(home.online).close()
    assert parts.online(asked(tmp_path)).well
