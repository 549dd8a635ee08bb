import csv
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import features.warehouse
from features.errors import ContractError, NotFoundError
from features.home import Home
from features.ingest import ingest_source, ingest_world, warehouse_sheet
from features.intake import textfiles
from features.programme import read_programme
from features.warehouse import open_warehouse, order_tables
from features.world.law import World

# What comes out of other people's systems: formulas, quotes, line breaks, separators, right-to-left marks, emoji
HOSTILE = ["=1+1", "+cmd|' /C calc'!A0", "@SUM(A1)", 'say "hi"', "a\nb", "a\r\nb", "a,b;c\td", "\u2028", "\u202e", "🛒"]
TEXT = st.sampled_from(HOSTILE) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20
)
CELLS = st.tuples(
    st.integers(0, 499), st.sampled_from(["transaction_id", "member_id", "occurred_at", "amount", "note"]), TEXT
)


def _write(folder, tables, suffix=".csv", *, quoting=csv.QUOTE_MINIMAL):
    folder.mkdir(exist_ok=True)
    for name, table in tables.items():
        if suffix == ".csv":
            table.to_csv(folder / f"{name}.csv", index=False, quoting=quoting)
        else:
            table.to_parquet(folder / f"{name}.parquet", index=False)
    return str(folder)


def _bytes(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*")) if path.is_file()}


def _refused(home, table):
    return [json.loads(line) for path in home.quarantine.glob(f"{table}-*.jsonl") for line in _lines(path)]


def _lines(path):
    return path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.fixture(scope="module")
def tables(company):
    frames = company.frames(np.random.default_rng(8))
    frames["transactions"] = frames["transactions"].head(500).assign(note="as it came")
    return frames


@pytest.fixture
def folder(tmp_path, tables):
    return tmp_path / _write(tmp_path / "brought", tables)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_what_is_brought_is_what_the_warehouse_holds(home, tmp_path, tables, suffix):
    warehouse, fresh = ingest_source(home, _write(tmp_path / "brought", tables, suffix))
    assert fresh
    for name, table in tables.items():
        kept = warehouse.frame(name).drop(columns="local_time")
        came = table.reset_index(drop=True)
        order = [column for column in came if column in {"member_id", "occurred_at", "contact_id", "transaction_id"}]
        kept, came = (t.sort_values([*order, came.columns[-1]], ignore_index=True) for t in (kept, came))
        assert list(kept.columns) == list(came.columns)
        for column in came:
            wanted = came[column].astype(object).where(came[column].notna(), None)
            assert kept[column].astype(object).where(kept[column].notna(), None).tolist() == wanted.tolist(), column
    assert warehouse_sheet(warehouse).rows[0] == ("members", "25", "0")


def test_csv_and_parquet_of_one_content_are_one_warehouse(tmp_path, tables):
    """Order and types are the warehouse's, not the source's, so that everything computed from it is the same."""
    prints = {
        ingest_source(Home(tmp_path / f"home{suffix}"), _write(tmp_path / f"b{suffix}", frames, suffix))[0].fingerprint
        for suffix in (".csv", ".parquet")
        for frames in [{name: frame.drop(columns="quantity", errors="ignore") for name, frame in tables.items()}]
    }
    assert len(prints) == 1


@settings(max_examples=25)
@given(cells=st.lists(CELLS, max_size=5, unique_by=lambda cell: cell[0]))
def test_every_row_is_kept_or_refused_and_a_refused_one_is_as_it_came(tmp_path_factory, tables, cells):
    root = tmp_path_factory.mktemp("batch")
    table = tables["transactions"].astype(object)
    for row, column, text in cells:
        table.loc[row, column] = text
    source = _write(root / "brought", tables | {"transactions": table}, quoting=csv.QUOTE_ALL)  # for a lone \\r
    home = Home(root / "home")
    warehouse, _ = ingest_source(home, source)
    kept, refused = warehouse.frame("transactions"), _refused(home, "transactions")
    assert len(kept) + len(refused) == len(table) == 500
    assert len(refused) == warehouse.tables["transactions"].quarantined
    spoilt = {row: (column, text) for row, column, text in cells}
    for record in refused:
        column, text = spoilt.pop(record["row"])  # nothing is refused but what was spoilt
        assert record["values"][column] == text
        assert column in record["reason"]
        assert (record["table"], record["source"]) == ("transactions", source)
    for column, text in spoilt.values():  # nothing spoilt is kept but what is a value of the column's kind
        assert column in {"note", "transaction_id"} or (column != "member_id" and re.search(r"\d", text))
    rest = table.drop(index=[record["row"] for record in refused])
    assert sorted(kept["note"]) == sorted(rest["note"])
    assert sorted(kept["transaction_id"]) == sorted(rest["transaction_id"])


def test_refused_text_survives_in_the_quarantine(home, tmp_path, tables):
    rows = pd.concat([tables["transactions"]] * 3, ignore_index=True).astype(object)
    rows.loc[range(10), "note"] = HOSTILE
    rows.loc[range(10), "amount"] = HOSTILE
    ingest_source(home, _write(tmp_path / "brought", tables | {"transactions": rows}))
    refused = _refused(home, "transactions")
    assert [record["row"] for record in refused] == list(range(10))
    assert [record["values"]["amount"] for record in refused] == HOSTILE
    assert [record["values"]["note"] for record in refused] == HOSTILE


def test_a_missing_value_in_quarantine_is_null_and_not_a_word(home, tmp_path, tables):
    rows = tables["transactions"].assign(discount=np.nan)
    rows.loc[7, "transaction_id"] = None
    ingest_source(home, _write(tmp_path / "brought", tables | {"transactions": rows}, ".parquet"))
    (record,) = _refused(home, "transactions")
    assert (record["row"], record["values"]["transaction_id"], record["values"]["discount"]) == (7, None, None)


def _spoil(path, old, new):
    path.write_bytes(path.read_bytes().replace(old, new, 1))


def _header_only(path):
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])


def _repeat(path, times):
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(keepends=True)[1] * times)


REFUSED = {
    "missing": (lambda f: (f / "members.csv").unlink(), NotFoundError, r"lacks members.csv or .*name the files"),
    "no_folder": (shutil.rmtree, NotFoundError, "no such folder.*'complete-journey' for the built-in"),
    "no_bytes": (lambda f: (f / "contacts.csv").write_bytes(b""), ContractError, "contacts.csv could not be read"),
    "header_only": (lambda f: _header_only(f / "members.csv"), ContractError, "members is empty, at least one row"),
    "renamed": (
        lambda f: _spoil(f / "transactions.csv", b"occurred_at", b"occured"),
        ContractError,
        r"transactions lacks the column 'occurred_at' \('occured' came: renamed\?\); wanted: transaction_id,",
    ),
    "latin_1": (
        lambda f: _spoil(f / "transactions.csv", b"as it came", b"caf\xe9"),
        ContractError,
        "transactions.csv could not be read: .*utf-8.*wanted UTF-8",
    ),
    "ragged": (lambda f: _spoil(f / "contacts.csv", b"A,", b"A,B,"), ContractError, "contacts.csv could not be read"),
    "no_parquet": (
        lambda f: (f / "members.csv").rename(f / "members.parquet").write_bytes(b"PAR1 cut short"),
        ContractError,
        "members.parquet could not be read",
    ),
    "too_many_bad": (
        lambda f: (f / "transactions.csv").write_text(
            (f / "transactions.csv").read_text().replace(",99,", ",-.99,"), encoding="utf-8"
        ),
        ContractError,
        r"rows are bad \(\d+.\d%; most often: amount is no money.*; see .*quarantine",
    ),
    "members_twice": (
        lambda f: _repeat(f / "members.csv", 1),
        ContractError,
        r"members: 1 of 26 rows are bad \(3.8%; most often: member_id came before\)",
    ),
    "strangers": (
        lambda f: _spoil(f / "members.csv", b"m00,", b"x00,"),
        ContractError,
        r"transactions: .* rows are bad \(.*; most often: member_id is not in members\)",
    ),
}


@pytest.mark.parametrize(("spoil", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_a_refused_batch_changes_nothing_and_says_why(home, folder, spoil, error, message):
    ingest_source(home, str(folder))
    before = _bytes(home.warehouse)
    spoil(folder)
    with pytest.raises(error, match=message):
        ingest_source(home, str(folder))
    assert _bytes(home.warehouse) == before
    assert not home.features.exists()


@pytest.mark.parametrize(("spoil", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_a_refused_first_batch_leaves_no_warehouse(home, folder, spoil, error, message):
    spoil(folder)
    with pytest.raises(error, match=message):
        ingest_source(home, str(folder))
    with pytest.raises(NotFoundError, match="holds no tables yet; `holdfast ingest`"):
        open_warehouse(home)


def test_every_fault_of_a_batch_is_said_at_once(home, folder):
    _header_only(folder / "contacts.csv")
    _spoil(folder / "members.csv", b"joined_at", b"since")
    _spoil(folder / "transactions.csv", b"amount", b"total")
    with pytest.raises(ContractError, match="nothing changed") as caught:
        ingest_source(home, str(folder))
    assert all(text in str(caught.value) for text in ("contacts is empty", "'joined_at'", "'amount'"))


def test_a_few_bad_rows_are_set_aside_and_the_rest_is_taken(home, folder):
    _spoil(folder / "transactions.csv", b",250,", b",2.50,")
    _spoil(folder / "transactions.csv", b"as it came", b"=1+1")
    warehouse, _ = ingest_source(home, str(folder))
    assert (warehouse.tables["transactions"].rows, warehouse.tables["transactions"].quarantined) == (499, 1)
    (record,) = _refused(home, "transactions")
    assert record["values"]["amount"] == "2.50"
    sheet = warehouse_sheet(warehouse)
    assert ("transactions", "499", "1") in sheet.rows
    assert str(home.quarantine) in sheet.notes[0]


def test_the_lines_of_a_refused_member_are_refused_and_not_lost(home, tmp_path, company):
    """They could be counted for nobody: the warehouse holds no row that belongs to no member."""
    tables = company.frames(np.random.default_rng(2), members=300)
    buys_once = tables["transactions"]["member_id"].value_counts().idxmin()
    lines = int((tables["transactions"]["member_id"] == buys_once).sum())
    members = tables["members"].astype({"joined_at": object})
    members.loc[members["member_id"] == buys_once, "joined_at"] = "long ago"
    kept = {name: tables[name] for name in ("transactions",)}
    warehouse, _ = ingest_source(home, _write(tmp_path / "brought", {"members": members} | kept))
    assert warehouse.tables["transactions"].quarantined == lines > 0
    assert set(warehouse.frame("transactions")["member_id"]) <= set(warehouse.frame("members")["member_id"])


def test_the_same_batch_twice_changes_nothing(home, folder):
    ingest_source(home, str(folder))
    before = _bytes(home.root)
    warehouse, fresh = ingest_source(home, str(folder))
    assert not fresh
    assert warehouse == open_warehouse(home)
    assert _bytes(home.root) == before


def test_another_time_zone_is_another_batch(home, folder):
    """The days of the warehouse are local, so it can't stand when the zone changes."""
    first = ingest_source(home, str(folder))[0].frame("transactions")
    home.settings.write_text('timezone = "Asia/Kathmandu"')
    second, fresh = ingest_source(home, str(folder))
    assert fresh
    moved = second.frame("transactions")["local_time"] - first["local_time"]
    assert (moved == pd.Timedelta(hours=5, minutes=45)).all()


def test_a_new_batch_takes_the_old_ones_place_and_leaves_no_file_of_it(home, folder, tables):
    ingest_source(home, str(folder))
    _write(folder, {"transactions": tables["transactions"].head(300)})
    warehouse, fresh = ingest_source(home, str(folder))
    assert fresh
    assert len(warehouse.frame("transactions")) == 300
    there = {path.name for path in home.warehouse.iterdir()}
    assert there == {"manifest.json", *(table.file for table in warehouse.tables.values())}


def test_an_ingest_killed_before_its_manifest_leaves_the_previous_state(home, folder, tables, monkeypatch):
    before, _ = ingest_source(home, str(folder))
    held = before.frame("transactions")
    _write(folder, {"transactions": tables["transactions"].head(300)})

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(features.warehouse, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            ingest_source(home, str(folder))
    assert open_warehouse(home) == before
    pd.testing.assert_frame_equal(open_warehouse(home).frame("transactions"), held)
    after, fresh = ingest_source(home, str(folder))  # the next run does the work
    assert fresh
    assert len(after.frame("transactions")) == 300
    assert len(list(home.warehouse.glob("transactions-*"))) == 1


def test_what_a_killed_ingest_left_goes_with_the_next_one_and_two_at_once_are_refused(home, folder):
    child = f"""
import os, signal
import features.ingest as it
from features.home import Home
it.judge = lambda *_, **__: (print("spilled", flush=True), signal.pause())
it.ingest_source(Home(__import__("pathlib").Path({str(home.root)!r})), {str(folder)!r})
"""
    with subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "spilled\n"
        with pytest.raises(ContractError, match="another ingest is at work"):
            ingest_source(home, str(folder))
        process.kill()
    assert list((home.root / "ingest").glob("*.parquet"))
    with pytest.raises(NotFoundError, match="holds no tables yet"):
        open_warehouse(home)
    ingest_source(home, str(folder))
    assert {path.name for path in home.root.iterdir()} == {"warehouse"}


def test_a_folder_with_two_files_of_one_table_is_refused(home, folder, tables):
    _write(folder, {"members": tables["members"]}, ".parquet")
    with pytest.raises(ContractError, match=r"members\.csv and .*members\.parquet are both there; .* --members"):
        ingest_source(home, str(folder))


def test_no_number_in_quarantine_breaks_it(home, tmp_path, tables):
    rows = tables["transactions"].assign(score=np.linspace(0, 1, 500), category=b"\xff")
    rows.loc[3, ["transaction_id", "score"]] = [None, float("inf")]
    ingest_source(home, _write(tmp_path / "brought", tables | {"transactions": rows}, ".parquet"))
    (record,) = _refused(home, "transactions")
    assert (record["values"]["score"], record["values"]["category"]) == ("inf", "\\xff")


def test_the_order_is_by_member_time_and_receipt_and_as_it_came(home, folder):
    """Whole pandas is the oracle of what many parts, spilled and sorted by queries, become."""
    came = pd.read_csv(folder / "transactions.csv", dtype={"transaction_id": "string"})
    came["occurred_at"] = pd.to_datetime(came["occurred_at"], format="ISO8601", utc=True)
    wanted = came.sort_values(["member_id", "occurred_at", "transaction_id"], kind="stable")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(textfiles, "BLOCK", 2**12)
        held = ingest_source(home, str(folder))[0].frame("transactions")
    for column in ("member_id", "transaction_id", "amount"):
        assert held[column].tolist() == wanted[column].tolist()


@pytest.mark.parametrize("shape", ["retail", "both"])
def test_a_synthetic_world_is_ingested_by_its_name_and_once(home, shape):
    world = World(1_000, shape=shape, waves=4, first_campaign=1)
    held = ingest_world(home, world, 0)
    assert held.fresh
    assert held.warehouse.tables["members"].rows == 1_000
    assert {table.quarantined for table in held.warehouse.tables.values()} == {0}
    assert read_programme(home.settings).tracked_offers == tuple(offer.offer_id for offer in world.offers)
    before = _bytes(home.root)
    assert not ingest_world(home, world, 0).fresh
    assert _bytes(home.root) == before
    assert ingest_world(home, world, 1).fresh


def test_a_table_that_was_not_brought_is_named(home, folder):
    warehouse, _ = ingest_source(home, str(folder))
    with pytest.raises(NotFoundError, match="no table 'offers', only contacts, members, redemptions, transactions"):
        warehouse.frame("offers")


def test_tables_stand_in_the_contracts_order():
    assert order_tables({"redemptions", "members", "offers"}) == ["members", "offers", "redemptions"]


def test_a_warehouse_of_another_version_is_ingested_anew(company):
    tables = company.frames(np.random.default_rng(1))
    warehouse = company.ingest(tables)
    manifest = warehouse.home.warehouse / "manifest.json"
    known = json.loads(manifest.read_bytes())
    manifest.write_text(json.dumps({name: value for name, value in known.items() if name != "read_by"}))
    with pytest.raises(NotFoundError, match="another version"):
        open_warehouse(warehouse.home)
    company.ingest(tables, home=warehouse.home)
    assert json.loads(manifest.read_bytes()) == known
