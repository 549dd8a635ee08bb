"""Feast's registry in a real Postgres, beside whatever else has its tables there."""

from datetime import UTC, datetime, timedelta

import pytest

from features.definitions import ALL, VIEW
from features.engine import Engine
from features.errors import UnavailableError
from features.home import Home
from features.store import PROJECT, open_store
from features.stores.postgres import asked, in_schema


@pytest.fixture(scope="module")
def engine(postgres_server):
    return Engine(registry=postgres_server.address)


@pytest.fixture(scope="module")
def applied(engine, tmp_path_factory):
    store = open_store(Home(tmp_path_factory.mktemp("first")), engine)
    store.apply()
    return store


def test_what_one_machine_applied_another_finds(applied, engine, tmp_path):
    other = open_store(Home(tmp_path), engine)
    assert other.feast.get_feature_service(ALL) == applied.feast.get_feature_service(ALL)
    assert not (tmp_path / "registry.pb").exists()


def test_a_materialisation_is_noted_for_everybody(applied, engine, tmp_path):
    as_of = datetime(2017, 4, 2, 4, tzinfo=UTC)
    view = applied.feast.get_feature_view(VIEW)
    applied.feast.registry.apply_materialization(view, PROJECT, as_of - timedelta(seconds=1), as_of)
    there = open_store(Home(tmp_path), engine).feast.get_feature_view(VIEW)
    assert there.materialization_intervals == [(as_of - timedelta(seconds=1), as_of)]


def test_parts_that_share_a_database_have_a_schema_each(applied, postgres_server):
    assert applied.feast.list_feature_views()
    in_schema(postgres_server.address, "tracking")
    schemas = postgres_server.run("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'holdfast%' ORDER BY 1")
    assert schemas == ["holdfast_registry", "holdfast_tracking"]
    assert postgres_server.run("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == ["0"]


def test_who_reads_online_only_needs_no_registry(tmp_path):
    open_store(Home(tmp_path), Engine(registry="postgresql://nobody@127.0.0.1:1/none"))


def test_no_error_says_the_password():
    with (
        pytest.raises(UnavailableError, match=r"registry at postgresql://\*\*\*@127.0.0.1:1/none") as refused,
        asked("postgresql://ada:s3cret@127.0.0.1:1/none", "registry"),
    ):
        pass
    assert "s3cret" not in str(refused.value)
