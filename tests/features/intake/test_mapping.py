"""A company's own names, units, clocks and ids become the contract's, and what is made up is said."""

import json
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import ContractError, NotFoundError
from features.home import Home
from features.ingest import bring
from features.intake.conform import Notes, Units, conform, written
from features.intake.mapping import SourceMapping, option_values, read_mapping
from features.intake.parts import table_parts
from features.intake.sources import Source

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"
MEMBERS = "member_id,joined_at\nm1,2024-01-01\nm2,2024-01-02\n"


def _bring(folder, *, home=None, now=None, **values):
    mapping = read_mapping(None, values)
    return bring(Home(folder / "home") if home is None else home, Source(folder=folder), mapping, now=now)


@pytest.fixture
def put(tmp_path):
    def write(transactions, members=MEMBERS):
        (tmp_path / "members.csv").write_text(members)
        (tmp_path / "transactions.csv").write_text(transactions)
        return tmp_path

    return write


def _amounts(values, **mapping):
    raw = pd.DataFrame({"net": values, "occurred_at": "2024-01-01", "member_id": "m1"})
    _, part = table_parts(pa.Table.from_pandas(raw, preserve_index=False))()
    form = SourceMapping.model_validate({"transactions": {"columns": {"amount": "net"}}} | mapping)
    notes = Notes()
    frame = conform("transactions", part, form.table("transactions"), units=Units(ZoneInfo("UTC"), 2), notes=notes)
    return frame["amount"].tolist(), written(notes)


@given(st.lists(st.integers(-(10**11), 10**11), min_size=1, max_size=50))
@settings(max_examples=100)
def test_every_amount_in_cents_survives_being_written_in_dollars(cents):
    """As text, as people write it, and as the nearest float: the tolerance is far below half a cent."""
    text = pd.Series([f"{'-' if c < 0 else ''}{abs(c) // 100}.{abs(c) % 100:02d}" for c in cents], dtype="string")
    assert _amounts(text, major_units=True)[0] == cents
    assert _amounts(text.astype(float), major_units=True)[0] == cents
    german = text.str.replace(".", ",", regex=False)
    form = {"columns": {"amount": "net"}, "decimal": ",", "major_units": True}
    assert _amounts(german, transactions=form)[0] == cents


def test_more_digits_than_the_currency_has_are_refused_and_a_product_is_rounded():
    assert _amounts(["1.005"], major_units=True)[0] == ["unreadable: 1.005"]
    form = {"columns": {"amount": "net * 1.3"}, "major_units": True}
    values, notes = _amounts(["1.01"], transactions=form)
    assert values == [131]  # 131.3 cents
    assert "1 products were rounded" in notes[-1]


def test_amounts_with_their_currencys_sign_and_groups_are_read_and_others_are_not():
    form = {"columns": {"amount": "net"}, "symbol": "$", "decimal": ".", "major_units": True}
    values, _ = _amounts(["$1,012.50", "-$3", "($4.25)", "1012.5", "€3.00", "12,50"], transactions=form)
    assert values == [101250, -300, -425, 101250, "unreadable: €3.00", "unreadable: 12,50"]
    german = {"columns": {"amount": "net"}, "decimal": ",", "major_units": True}
    assert _amounts(["1.012,50 ", "12.50"], transactions=german)[0] == [101250, "unreadable: 12.50"]


def test_unmarked_times_are_the_programmes_and_marked_ones_their_own(put):
    folder = put(
        "transaction_id,member_id,occurred_at,amount\n"
        "a,m1,2024-07-01 12:00,1\nb,m1,2024-01-01 12:00:00,1\n"
        "c,m1,2024-07-01T12:00:00Z,1\nd,m1,2024-07-01 12:00+05:45,1\n"
    )
    held = _bring(folder, timezone="Europe/Berlin").warehouse.frame("transactions").set_index("transaction_id")
    hours = held["occurred_at"].dt.strftime("%H:%M")
    assert hours.to_dict() == {"a": "10:00", "b": "11:00", "c": "12:00", "d": "06:15"}
    assert held.loc["a", "local_time"] == pd.Timestamp("2024-07-01 12:00")  # the programme took the zone


def test_where_clocks_change_no_row_is_lost_and_it_is_said(put):
    folder = put("transaction_id,member_id,occurred_at,amount\na,m1,2024-10-27 02:30,1\nb,m1,2024-03-31 02:30,1\n")
    brought = _bring(folder, timezone="Europe/Berlin")
    held = brought.warehouse.frame("transactions").set_index("transaction_id")["occurred_at"]
    assert held["a"] == datetime(2024, 10, 27, 0, 30, tzinfo=UTC)  # the first of the two
    assert held["b"] == datetime(2024, 3, 31, 1, 0, tzinfo=UTC)  # that half hour never was
    assert any("2 times lie where the clocks of Europe/Berlin change" in note for note in brought.sheet.notes)


def test_a_date_format_is_kept_to(put):
    folder = put("transaction_id,member_id,occurred_at,amount\na,m1,03/02/2024,1\n")
    form = {"date_format": "%d/%m/%Y"}
    held = _bring(folder, transactions=form).warehouse.frame("transactions")
    assert held["occurred_at"].tolist() == [pd.Timestamp("2024-02-03", tz="UTC")]
    put("transaction_id,member_id,occurred_at,amount\na,m1,2024-02-03,1\n")
    with pytest.raises(ContractError, match="occurred_at is no time"):
        _bring(folder, transactions=form)


HOSTILE = ["=1+1", '"', "a\nb", "a\r\nb", "+cmd|' /C calc'!A0", "0001", "1e5", "NA", " x ", "\u202e"]


def test_ids_are_kept_exactly_whatever_they_hold(tmp_path):
    pd.DataFrame({"member_id": HOSTILE, "joined_at": "2024-01-01"}).to_csv(tmp_path / "members.csv", index=False)
    rows = pd.DataFrame({"receipt": HOSTILE, "member_id": HOSTILE, "occurred_at": "2024-01-01", "amount": 1})
    rows.to_csv(tmp_path / "transactions.csv", index=False)
    held = _bring(tmp_path, transactions={"columns": {"transaction_id": "receipt"}}).warehouse
    assert sorted(held.frame("members")["member_id"]) == sorted(HOSTILE)
    assert sorted(held.frame("transactions")["transaction_id"]) == sorted(HOSTILE)


def test_an_id_that_parquet_holds_as_a_float_is_the_whole_number(tmp_path):
    ids = pd.DataFrame({"member_id": [17850.0, 13047.0], "joined_at": "2024-01-01"})
    ids.to_parquet(tmp_path / "members.parquet")
    rows = pd.DataFrame({"transaction_id": ["a"], "member_id": [17850.0], "occurred_at": "2024-01-01", "amount": 1})
    rows.to_parquet(tmp_path / "transactions.parquet")
    assert _bring(tmp_path).warehouse.frame("members")["member_id"].tolist() == ["13047", "17850"]


def test_ids_that_pandas_wrote_beside_gaps_are_the_whole_numbers_they_were_and_it_is_said(tmp_path):
    """A customer's file has no gap, the receipts' has: both name the same member."""
    pd.DataFrame({"member_id": [17850, 13047], "joined_at": "2024-01-01"}).to_csv(tmp_path / "members.csv", index=False)
    buyers = pd.DataFrame({"transaction_id": ["1.0", "1.05", "v2.0"], "member_id": [17850, 13047, None]})
    buyers.assign(occurred_at="2024-01-01", amount=1).to_csv(tmp_path / "transactions.csv", index=False)
    assert "17850.0" in (tmp_path / "transactions.csv").read_text()
    brought = _bring(tmp_path, transactions={"guests": True})
    bought = brought.warehouse.frame("transactions").sort_values("member_id")
    assert bought[["member_id", "transaction_id"]].to_numpy().tolist() == [["13047", "1.05"], ["17850", "1"]]
    said = [note for note in brought.sheet.notes if "came with .0" in note]
    assert [note.split(" ids")[0] for note in said] == ["transactions.transaction_id: 1", "transactions.member_id: 2"]
    alone = _bring(tmp_path, home=Home(tmp_path / "other"), transactions={"file": "transactions.csv", "guests": True})
    assert sorted(alone.warehouse.frame("members")["member_id"]) == ["13047", "17850"]


def test_missing_ids_are_made_from_the_row_so_that_a_longer_file_keeps_them(put):
    line = "m1,2024-01-01,1\n"
    folder = put(f"member_id,occurred_at,amount\n{line}{line}m2,2024-01-02,5\n")
    brought = _bring(folder)
    assert any("transactions came without transaction_id" in note for note in brought.sheet.notes)
    first = set(brought.warehouse.frame("transactions")["transaction_id"])
    assert len(first) == 3  # the two equal rows too
    put(f"member_id,occurred_at,amount\nm2,2023-12-31,7\n{line}{line}m2,2024-01-02,5\n")
    assert first < set(_bring(folder).warehouse.frame("transactions")["transaction_id"])


def test_guests_are_set_aside_and_counted_and_no_fault(put):
    folder = put("transaction_id,member_id,occurred_at,amount\na,m1,2024-01-01,1\nb,,2024-01-01,1\nc,,2024-01-01,1\n")
    with pytest.raises(ContractError, match="member_id is missing"):
        _bring(folder)
    home = Home(folder / "other")
    held = _bring(folder, home=home, transactions={"guests": True}).warehouse.tables["transactions"]
    assert (held.rows, held.quarantined) == (1, 2)
    (path,) = home.quarantine.glob("transactions-*")
    assert [json.loads(line)["reason"] for line in path.read_text().splitlines()] == [
        "a guest's row, set aside as the mapping says"
    ] * 2


def test_quarantine_holds_the_row_as_the_source_has_it(put):
    rows = "".join(f"t{number},m1,2024-01-01,1.00\n" for number in range(200))
    folder = put(f"transaction_id,member_id,occurred_at,net\nbad,m1,2024-01-01,12 EUR\n{rows}")
    _bring(folder, major_units=True, transactions={"columns": {"amount": "net"}})
    (path,) = (folder / "home" / "quarantine").glob("*")
    record = json.loads(path.read_text())
    assert (record["row"], record["values"]["net"]) == (0, "12 EUR")
    assert record["reason"].startswith("amount is no money")


def test_rows_in_another_currency_and_rows_from_the_future_are_refused(put):
    rows = "".join(f"t{number},m1,2024-01-01,1,GBP\n" for number in range(300))
    folder = put(
        f"transaction_id,member_id,occurred_at,amount,currency\n{rows}x,m1,2024-01-01,1,EUR\ny,m1,2025-01-01,1,GBP\n"
    )
    now = datetime(2024, 6, 1, tzinfo=UTC)
    held = _bring(folder, currency="GBP", now=now).warehouse.tables["transactions"]
    assert (held.rows, held.quarantined) == (300, 2)
    (path,) = (folder / "home" / "quarantine").glob("*")
    reasons = [json.loads(line)["reason"] for line in path.read_text().splitlines()]
    assert reasons == [
        "currency is EUR, the programme's is GBP",
        "occurred_at is in the future (it is 2024-06-01 00:00 UTC)",
    ]
    with pytest.raises(ContractError, match="says USD, the programme's currency is GBP"):
        _bring(folder, currency="USD")


def test_a_refund_larger_than_every_purchase_is_kept_with_its_sign(put):
    folder = put("transaction_id,member_id,occurred_at,amount\na,m1,2024-01-01,100\nb,m1,2024-01-02,-5000\n")
    assert sorted(_bring(folder).warehouse.frame("transactions")["amount"]) == [-5000, 100]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"transactions": {"columns": {"amuont": "x"}}},
            r"transactions.amuont is no column .* \(amount\)",
        ),
        ({"timezone": "Mars/Olympus"}, "'Mars/Olympus' is no time zone"),
        ({"transaction": {}}, "transaction: Extra inputs"),
        ({"currency": "dollars", "separater": ";"}, "2 wrong settings"),
    ],
)
def test_every_wrong_setting_of_a_mapping_is_named(values, message):
    with pytest.raises(ContractError, match=message):
        read_mapping(None, values)


def test_a_mapping_that_is_not_there_or_no_toml_is_told(tmp_path):
    with pytest.raises(NotFoundError, match="--init"):
        read_mapping(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("currency = USD")
    with pytest.raises(ContractError, match="is not TOML"):
        read_mapping(tmp_path / "bad.toml")


def test_options_win_over_the_file(tmp_path):
    (tmp_path / "m.toml").write_text('currency = "EUR"\n[transactions.columns]\namount = "a"\nmargin = "b"\n')
    mapping = read_mapping(tmp_path / "m.toml", option_values(maps=["transactions.amount=net = total"]))
    assert mapping.transactions.columns == {"amount": "net = total", "margin": "b"}
    with pytest.raises(ContractError, match=r"wanted such as --map transactions\.amount=net_total"):
        option_values(maps=["amount:net"])


def test_a_column_that_did_not_come_is_told_with_its_like(put):
    folder = put("transaction_id,member_id,occurred_at,net_totals\na,m1,2024-01-01,1\n")
    with pytest.raises(ContractError, match="no column is called 'net_total'; 'net_totals' came"):
        _bring(folder, transactions={"columns": {"amount": "net_total"}})


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "rows", "members", "refused"), [("online_retail", 406_829, 4_372, 135_080), ("cdnow", 6_919, 2_357, 0)]
)
def test_public_sets_of_other_shapes_need_a_mapping_only(tmp_path, name, rows, members, refused):
    """Rows and members as the sets' own descriptions count them; sums recomputed here from the files."""
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is not here: it is not passed on with the project")
    mapping = read_mapping(ROOT / "docs" / "mappings" / f"{name}.toml")
    held = bring(Home(tmp_path), Source(folder=DATA / name), mapping).warehouse
    table = held.tables["transactions"]
    assert (table.rows, table.quarantined, held.tables["members"].rows) == (rows, refused, members)
    amounts = held.frame("transactions", ["amount"])["amount"]
    assert amounts.sum() == _total(name)


def _total(name):
    if name == "cdnow":
        lines = (DATA / name / "CDNOW_sample.txt").read_text().splitlines()
        return sum(int(line.split()[-1].replace(".", "")) for line in lines)
    lines = pd.read_parquet(DATA / name / "online_retail.parquet").dropna(subset=["CustomerID"])
    return int(np.round(lines["Quantity"] * lines["UnitPrice"] * 100).sum())
