"""Postgres against a real server that the test starts; the other databases are in test_sources."""

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import ContractError, NotFoundError
from features.home import Home
from features.ingest import bring
from features.intake.databases import _content_key
from features.intake.mapping import option_values, read_mapping
from features.intake.sources import Source

TABLES = """
CREATE TABLE members (member_id uuid, joined_at timestamptz, "City" text, points smallint);
CREATE TABLE sales (
  id bigint, member_id uuid, occurred_at timestamp, amount numeric(12, 2), category varchar(20), day date, tags text[]
);
INSERT INTO members SELECT ('00000000-0000-4000-8000-' || lpad(i::text, 12, '0'))::uuid, '2024-01-01 12:00+02',
  CASE WHEN i % 2 = 0 THEN 'Köln' END, i % 100 FROM generate_series(1, 1000) AS i;
INSERT INTO sales SELECT i, ('00000000-0000-4000-8000-' || lpad((1 + i % 1000)::text, 12, '0'))::uuid,
  '2024-01-05 10:00'::timestamp + i * interval '1 second', i * 0.01, 'a', '2024-01-05', ARRAY['x']
  FROM generate_series(1, 20000) AS i;
"""
SALES = "SELECT id AS transaction_id, member_id, occurred_at, amount, category, day FROM sales"


@pytest.fixture(scope="module")
def server(postgres_server):
    postgres_server.run(TABLES)
    return postgres_server.place


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def _bring(home, url, *queries, **shared):
    return bring(home, Source(database=url), read_mapping(None, option_values(queries=queries, shared=shared)))


def _url(server, password="hunter2%20%26%20more"):  # noqa: S107
    return f"postgresql://shop:{password}@{server}/postgres"


def test_a_server_gives_what_its_files_would(home, server):
    brought = _bring(home, _url(server), f"transactions={SALES}", major_units=True)
    held = brought.warehouse.frame("transactions")
    assert (len(held), held["amount"].sum()) == (20_000, 20_000 * 20_001 // 2)
    assert str(held["occurred_at"].min()) == "2024-01-05 10:00:01+00:00"
    members = brought.warehouse.frame("members").set_index("member_id")
    assert members.loc["00000000-0000-4000-8000-000000000002", "City"] == "Köln"
    assert str(members["joined_at"].iloc[0]) == "2024-01-01 10:00:00+00:00"
    assert brought.sheet.title == "Warehouse: postgresql database"
    assert not _bring(home, _url(server), f"transactions={SALES}", major_units=True).fresh


@given(st.permutations(range(5)))
@settings(max_examples=10)
def test_a_database_has_no_order_and_its_fingerprint_none(tmp_path_factory, order):
    """A large table's scan may begin anywhere: the same rows have to be the same batch."""
    rows = pa.table({"id": ["a", "b", None, "a", "b"], "amount": [1, 2, 3, 1, None]})
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    with duckdb.connect() as queries:
        pq.write_table(rows, path)
        key = _content_key(queries, path)
        pq.write_table(rows.take(order), path)
        assert _content_key(queries, path) == key
        pq.write_table(rows.slice(1), path)
        assert _content_key(queries, path) != key


def test_a_query_can_change_nothing_in_it(home, server):
    with pytest.raises(ContractError, match="read-only transaction"):
        _bring(home, _url(server), "transactions=DELETE FROM sales RETURNING *")
    held = _bring(home, _url(server), f"transactions={SALES}", major_units=True).warehouse
    assert held.tables["transactions"].rows == 20_000


def test_a_table_that_is_not_there_is_told_with_those_that_are(home, server):
    with pytest.raises(NotFoundError, match=r"no table transactions \(there: members, sales\)"):
        _bring(home, _url(server))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://shop:open-sesame@{}/postgres",
        "postgres:host=127.0.0.1 port={} user=shop password=open-sesame dbname=postgres",
        "postgresql://{}/postgres?user=shop&password=open-sesame",
        "postgresql://shop:open-sesame@{}/post gres?nonsense=1",
    ],
)
def test_a_password_is_never_shown(home, server, url):
    where = server.partition(":")[2] if "port=" in url else server
    with pytest.raises(ContractError, match="could not be read") as caught:
        _bring(home, url.format(where))
    assert "open-sesame" not in str(caught.value)
    assert not home.root.exists()
