"""Files named one by one, databases, and files that are not what they seem."""

import sqlite3
from contextlib import closing

import duckdb
import pandas as pd
import pytest

from features.errors import ContractError, NotFoundError
from features.home import Home
from features.ingest import bring
from features.intake.mapping import option_values, read_mapping
from features.intake.sources import Source, open_source

MEMBERS = pd.DataFrame({"member_id": ["m1", "m2"], "joined_at": "2024-01-01"})
ROWS = pd.DataFrame({"transaction_id": ["a", "b"], "member_id": ["m1", "m2"], "occurred_at": "2024-01-05"})
ROWS = ROWS.assign(amount=[100, -(2**40)])


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def _from(home, url, queries=()):
    return bring(home, Source(database=str(url)), read_mapping(None, option_values(queries=queries)))


def _sqlite(path, **tables):
    with closing(sqlite3.connect(path)) as connection:
        for name, table in tables.items():
            table.to_sql(name, connection, index=False)
    return path


def test_files_are_named_one_by_one_beside_a_folder(home, tmp_path):
    (tmp_path / "f").mkdir()
    MEMBERS.to_csv(tmp_path / "f" / "members.csv", index=False)
    ROWS.to_parquet(tmp_path / "sales.parquet")
    files = [None, tmp_path / "sales.parquet", None, None, None, None, None]
    held = bring(home, open_source(str(tmp_path / "f"), files, None), read_mapping(None)).warehouse
    assert held.frame("transactions")["amount"].tolist() == [100, -(2**40)]
    with pytest.raises(NotFoundError, match="members not given; type --members FILE"):
        bring(home, open_source("", files, None), read_mapping(None))


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_a_database_gives_what_its_files_would(home, tmp_path, kind):
    if kind == "sqlite":
        url = f"sqlite:{_sqlite(tmp_path / 'shop.file', members=MEMBERS, sales=ROWS)}"
    else:
        url = tmp_path / "shop's.duckdb"
        with duckdb.connect(str(url)) as connection:
            connection.from_df(MEMBERS).create("members")
            connection.from_df(ROWS).create("sales")
    with pytest.raises(NotFoundError, match=r"no table transactions \(there: members, sales\); type --query"):
        _from(home, url)
    brought = _from(home, url, ["transactions=SELECT * FROM sales WHERE amount > 0"])
    assert brought.warehouse.frame("transactions")["transaction_id"].tolist() == ["a"]
    assert not _from(home, url, ["transactions=SELECT * FROM sales WHERE amount > 0"]).fresh
    whole = _from(home, url, ["transactions=sales"]).warehouse
    assert whole.frame("transactions")["amount"].tolist() == [100, -(2**40)]


def test_a_query_of_a_database_can_change_nothing_in_it(home, tmp_path):
    path = _sqlite(tmp_path / "shop.db", members=MEMBERS, transactions=ROWS)
    with pytest.raises(ContractError, match="readonly"):
        _from(home, path, ["transactions=DELETE FROM transactions"])
    assert len(_from(home, path).warehouse.frame("transactions")) == 2


def test_a_database_that_is_not_there_or_none_is_told(home, tmp_path):
    with pytest.raises(NotFoundError, match=r"is no file; wanted such as --from sqlite:shop\.db"):
        _from(home, "sqlite:none.db")
    (tmp_path / "a.duckdb").write_text("no database at all, only some words" * 200)
    with pytest.raises(ContractError, match="could not be read"):
        _from(home, tmp_path / "a.duckdb")


def test_a_server_needs_its_extension_and_a_password_is_never_shown(home):
    with pytest.raises(ContractError, match="postgres database could not be read") as caught:
        _from(home, "postgres:host=127.0.0.1 port=1 user=me password=hunter2 dbname=shop")
    assert "hunter2" not in str(caught.value)
    assert not home.root.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"member_id;joined_at\nm1;2024-01-01\n", r"';' between the columns and no comma.*type --separator ';'"),
        (b"member_id\tjoined_at\nm1\t2024-01-01\n", "a tab between the columns"),
        ("member_id,joined_at\ncafé,2024-01-01\n".encode("cp1252"), "utf-8.*type --encoding cp1252"),
        ("member_id,joined_at\nm1,2024-01-01\n".encode("utf-16"), "wanted UTF-8.*type --encoding utf-16"),
        (b"", "could not be read: No columns"),
        (b"member_id,joined_at\n", "members is empty, at least one row"),
        (b'member_id,joined_at\n"m1,2024-01-01\n', "could not be read"),  # a quote that is never closed
    ],
)
def test_a_file_that_is_something_else_is_told_by_what_it_is(home, tmp_path, content, message):
    (tmp_path / "members.csv").write_bytes(content)
    ROWS.to_csv(tmp_path / "transactions.csv", index=False)
    with pytest.raises(ContractError, match=message):
        bring(home, Source(folder=tmp_path), read_mapping(None))
    assert not home.warehouse.exists()


@pytest.mark.parametrize(
    ("encode", "form"),
    [
        (lambda text: text.encode("utf-8-sig"), {}),  # what spreadsheets write
        (lambda text: text.encode("utf-16"), {"encoding": "utf-16"}),
        (lambda text: text.encode("cp1252"), {"encoding": "cp1252"}),
        (lambda text: text.replace(",", ";").encode(), {"separator": ";"}),
        (lambda text: text.replace("\n", "\r\n").encode(), {}),
    ],
)
def test_other_encodings_and_separators_are_read_when_told(home, tmp_path, encode, form):
    (tmp_path / "members.csv").write_bytes(encode("member_id,joined_at\nmé1,2024-01-01\nm2,2024-01-01\n"))
    ROWS.replace("m1", "mé1").to_parquet(tmp_path / "transactions.parquet")
    held = bring(home, Source(folder=tmp_path), read_mapping(None, {"members": form})).warehouse
    assert sorted(held.frame("members")["member_id"]) == ["m2", "mé1"]
