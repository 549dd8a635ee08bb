"""A day's rows on top of what the warehouse holds: the same as if all had come at once."""

from datetime import timedelta

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import features.intake.batch
import features.warehouse
from features.errors import ContractError, NotFoundError
from features.home import Home
from features.ingest import bring
from features.intake.mapping import SourceMapping, TableMapping
from features.intake.sources import Source
from features.schema import TABLES
from features.warehouse import open_warehouse

MEMBERS = pd.DataFrame({"member_id": ["m1", "m2"], "joined_at": "2024-01-01", "region": ["north", "south"]})
LINES = pd.DataFrame(
    {
        "transaction_id": ["a", "a", "b", "b"],
        "member_id": ["m1", "m1", "m2", "m1"],
        "occurred_at": ["2024-01-05 10:00", "2024-01-05 10:00", "2024-01-06", "2024-01-06"],
        "amount": [100, 200, 300, 400],
    }
)
BOUGHT = SourceMapping(members=TableMapping(columns={"joined_at": "first transaction"}))
UNNAMED = SourceMapping(transactions=TableMapping(columns={"transaction_id": "row hash"}))
ADD = {"adds": True}
PARTS = range(3)
ROWS = st.lists(
    st.tuples(
        st.integers(0, 2),  # the member
        st.integers(0, 4),  # the receipt, event, ...: rows that share it and the member come together
        st.integers(0, 99),  # the amount
        st.sampled_from(PARTS),  # the part in which they come
        st.booleans(),  # whether they came before, with another amount
    ),
    max_size=16,
)


def _write(folder, tables):
    folder.mkdir(parents=True)
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)
    return folder


def _state(home):
    return {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()}


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.fixture
def take(home, tmp_path):
    def run(mapping=SourceMapping(), *, rehearse=False, allow=(), **tables):  # noqa: B008 (frozen)
        folder = _write(tmp_path / str(len(list(tmp_path.iterdir()))), tables)
        return bring(home, Source(folder=folder), mapping, rehearse=rehearse, allow=frozenset(allow))

    return run


@pytest.fixture
def add(take):
    def run(mapping=SourceMapping(), **rest):  # noqa: B008 (frozen)
        return take(mapping.model_copy(update=ADD), **rest)

    return run


@pytest.fixture
def held(home):
    return lambda name, *columns: open_warehouse(home).frame(name)[list(columns)].to_numpy().tolist()


def _table(name, rows):
    """Make a table of rows; those of one key are of one time, and so are some of different keys."""
    numbers = [number for _, number, *_ in rows]
    own = pd.array([f"{name[0]}{member}{number}" for member, number, *_ in rows], dtype="string")
    when = pd.to_datetime([f"2024-01-0{1 + number // 2}" for number in numbers]).tz_localize("UTC")
    amount = pd.array([amount for _, _, amount, *_ in rows], dtype="Int64")
    frame = pd.DataFrame({"member_id": pd.array([f"m{row[0]}" for row in rows], dtype="string"), "occurred_at": when})
    if name == "transactions":  # an id may be used by two members
        receipts = pd.array([f"t{number}" for number in numbers], dtype="string")
        return frame.assign(transaction_id=receipts, amount=amount, note=own)
    if name == "events":
        return frame.assign(event_id=own, kind="survey", value=amount)
    if name == "redemptions":
        return frame.assign(offer_id=own, amount=amount)
    frame = frame.rename(columns={"occurred_at": "started_at"})
    return frame.assign(ends_at=frame["started_at"] + timedelta(days=30), price=amount)


def _split(name, rows):
    """Give a whole table and its parts; rows of one key come together, some with an older version before them."""
    terms = 2 if name == "subscriptions" else 1  # that begin at one time
    keyed = [((row[0], row[1] // terms), row) for row in rows]
    part = {key: (max(place, key[0]), again) for key, (*_, place, again) in reversed(keyed)}
    keyed = list({key: (key, row) for key, row in keyed}.values()) if TABLES[name].unique else keyed
    parts = [
        [row for key, row in keyed if part[key][0] == at]
        + [(*row[:2], row[2] + 1) for key, row in keyed if key[0] <= at < part[key][0] and part[key][1]]
        for at in PARTS
    ]
    return _table(name, [row for _, row in keyed]), [_table(name, part) for part in parts]


@settings(max_examples=10)  # of four tables each, brought five times: two seconds
@given(
    rows=st.fixed_dictionaries(dict.fromkeys(("transactions", "events", "redemptions", "subscriptions"), ROWS)),
    order=st.permutations(PARTS),
)
def test_parts_on_top_of_each_other_are_the_whole_that_comes_at_once(tmp_path_factory, rows, order):
    """Row for row, in the same order, byte for byte: nothing tells how the rows came."""
    root = tmp_path_factory.mktemp("parts")
    ids, regions = ["m0", "m1", "m2"], ["north", None, "south"]
    members = pd.DataFrame({"member_id": ids, "joined_at": pd.Timestamp("2023-12-01", tz="UTC"), "region": regions})
    split = {name: _split(name, [(0, 0, 1, 0, False), *table]) for name, table in rows.items()}
    whole = {"members": members} | {name: table for name, (table, _) in split.items()}
    once = bring(Home(root / "once"), Source(folder=_write(root / "whole", whole)), SourceMapping()).warehouse
    for at in PARTS:  # a member comes in the part of its number, and all of them again in the last one
        came = members.iloc[list(order)] if at == PARTS[-1] else members.iloc[[at]].assign(region="unknown")
        part = {"members": came} | {name: parts[at] for name, (_, parts) in split.items() if len(parts[at])}
        source = Source(folder=_write(root / str(at), part))
        after = bring(Home(root / "parts"), source, SourceMapping(**ADD)).warehouse
    for name in once.tables:
        pd.testing.assert_frame_equal(after.frame(name), once.frame(name))
    assert after.fingerprint == once.fingerprint
    before = _state(after.home)
    assert not bring(after.home, source, SourceMapping(**ADD)).fresh
    assert _state(after.home) == before


def test_a_receipt_that_comes_again_replaces_its_lines_and_a_row_its_namesake(take, add, held):
    take(members=MEMBERS, transactions=LINES)
    again = LINES.iloc[[1]].assign(amount=250)
    add(members=MEMBERS.iloc[[1]].assign(region="west"), transactions=again)
    assert held("transactions", "member_id", "transaction_id", "amount") == [
        ["m1", "a", 250],
        ["m1", "b", 400],
        ["m2", "b", 300],
    ]
    assert held("members", "member_id", "region") == [["m1", "north"], ["m2", "west"]]


def test_what_is_not_brought_stays_and_what_is_new_joins(take, add, held):
    take(members=MEMBERS, transactions=LINES)
    visit = pd.DataFrame({"event_id": ["e"], "member_id": ["m1"], "occurred_at": "2024-01-09", "kind": "visit"})
    brought = add(events=visit)
    assert brought.fresh
    assert list(brought.warehouse.tables) == ["members", "transactions", "events"]
    assert brought.sheet.rows == (("members", "2", "0"), ("transactions", "4", "0"), ("events", "1", "0"))
    assert held("transactions", "amount") == [[100], [200], [400], [300]]


def test_a_row_of_a_stranger_is_refused_and_one_of_a_standing_member_taken(take, add):
    take(members=MEMBERS, transactions=LINES)
    with pytest.raises(ContractError, match=r"1 of 2 rows are bad .*most often: member_id is not in members"):
        add(transactions=LINES.head(2).assign(transaction_id=["c", "d"], member_id=["m1", "m9"]))


def test_refused_rows_are_counted_for_as_long_as_others_of_their_table_stand(take, add):
    take(members=MEMBERS, transactions=LINES)
    many = pd.DataFrame(
        {"transaction_id": [f"t{n}" for n in range(100)], "member_id": "m1", "occurred_at": "2024-02-01"}
    )
    brought = add(transactions=many.assign(amount=[-(2**60), *range(99)]))
    assert add(transactions=LINES.assign(amount=1)).sheet.rows[1] == ("transactions", "103", "1")
    assert "refused rows" in brought.sheet.notes[0]


def test_a_warehouse_never_shrinks_by_an_addition_but_a_change_of_units_is_still_told(take, add):
    many = pd.DataFrame(
        {"transaction_id": [f"t{n}" for n in range(200)], "member_id": "m1", "occurred_at": "2024-02-01"}
    )
    take(members=MEMBERS, transactions=many.assign(amount=500))
    assert add(transactions=many.head(40).assign(amount=600)).warehouse.tables["transactions"].rows == 200
    with pytest.raises(ContractError, match=r"the median of transactions.amount moved .*type --allow median"):
        add(transactions=many.head(40).assign(amount=60_000))


def test_an_extra_column_is_null_where_it_did_not_come(take, add, held, home):
    take(members=MEMBERS, transactions=LINES.assign(shop=7))
    new = LINES.head(1).assign(transaction_id="c", till="x")
    with pytest.raises(ContractError, match=r"transactions lacks 'shop'.*type --allow columns"):
        add(transactions=new)
    add(transactions=new, allow=["columns"])
    wanted = [["a", 7, None], ["a", 7, None], ["c", None, "x"], ["b", 7, None], ["b", 7, None]]
    came = held("transactions", "transaction_id", "shop", "till")
    assert [[None if pd.isna(value) else value for value in row] for row in came] == wanted
    assert list(open_warehouse(home).frame("transactions"))[-3:] == ["shop", "till", "local_time"]


def test_a_type_that_is_allowed_to_change_holds_both(take, add, held):
    take(members=MEMBERS, transactions=LINES.assign(shop=7, till=None))
    with pytest.raises(ContractError, match=r"transactions\.shop was int64 and is string"):
        add(transactions=LINES.head(2).assign(shop="x", till="y"))
    add(transactions=LINES.head(2).assign(shop="x", till="y"), allow=["types"])
    assert held("transactions", "shop", "till") == [["x", "y"], ["x", "y"], ["7", None], ["7", None]]


def test_rows_without_an_id_are_known_by_what_they_say(take, add, held):
    """Equal rows that come again are the same; one more of them is one more."""
    lines = LINES.drop(columns="transaction_id").assign(amount=[100, 100, 300, 400])
    take(UNNAMED, members=MEMBERS, transactions=lines)
    assert not add(UNNAMED, transactions=lines[::-1]).fresh
    assert not add(UNNAMED, transactions=lines[[*lines.columns[::-1]]].head(1)).fresh
    add(UNNAMED, transactions=lines.iloc[[0, 0, 0]])
    assert held("transactions", "amount") == [[100], [100], [100], [400], [300]]


def test_rows_that_would_not_be_known_again_are_refused(take, add):
    lines = LINES.drop(columns="transaction_id")
    take(UNNAMED, members=MEMBERS, transactions=lines)
    with pytest.raises(ContractError, match="now other columns came: rows that come again would count twice"):
        add(UNNAMED, transactions=lines.assign(shop=1))
    with pytest.raises(ContractError, match="now 'transaction_id' came: rows that come again would count twice"):
        add(transactions=LINES)
    assert take(members=MEMBERS, transactions=LINES).fresh  # as a whole they may


def test_who_buys_first_joins_then_and_who_is_there_stays(take, add, held):
    take(BOUGHT, transactions=LINES)
    earlier = LINES.iloc[[0, 0]].assign(transaction_id=["x", "y"], member_id=["m1", "m3"], occurred_at="2024-01-03")
    brought = add(BOUGHT, transactions=earlier)
    assert "1 who bought" in brought.sheet.notes[0]
    assert [(who, f"{when:%d}") for who, when in held("members", "member_id", "joined_at")] == [
        ("m1", "05"), ("m2", "06"), ("m3", "03"),
    ]  # fmt: skip
    assert len(held("transactions", "amount")) == 6


def test_attributes_that_come_again_do_not_move_when_a_member_joined(take, add, held):
    who = MEMBERS[["member_id", "region"]]
    take(BOUGHT, members=who, transactions=LINES)
    later = LINES.tail(1).assign(transaction_id="x", occurred_at="2024-02-01")
    add(BOUGHT, members=who.assign(region="west"), transactions=later)
    assert [(region, f"{when:%m-%d}") for region, when in held("members", "region", "joined_at")] == [
        ("west", "01-05"), ("west", "01-06"),
    ]  # fmt: skip
    assert add(BOUGHT, transactions=later.assign(amount=1)).fresh  # nobody is new: no attribute is missed


def test_a_table_without_rows_adds_nothing(take, add, home):
    take(members=MEMBERS, transactions=LINES)
    before = _state(home)
    assert not add(members=MEMBERS.head(0), transactions=LINES.head(0).assign(till="")).fresh
    assert _state(home) == before


def test_the_first_addition_is_a_first_batch(add):
    with pytest.raises(NotFoundError, match=r"lacks members\.csv"):
        add(transactions=LINES)
    assert add(members=MEMBERS, transactions=LINES).fresh
    assert not add(members=MEMBERS, transactions=LINES).fresh


def test_an_addition_of_nothing_is_told(take, add):
    take(members=MEMBERS, transactions=LINES)
    with pytest.raises(NotFoundError, match=r"\(there: nothing\); name the files after their tables"):
        add()


def test_a_file_that_the_mapping_names_may_be_missing_today(take, add):
    take(members=MEMBERS, transactions=LINES)
    named = SourceMapping(members=TableMapping(file="people.parquet"))
    assert add(named, transactions=LINES.assign(amount=1)).fresh
    with pytest.raises(NotFoundError, match=r"people\.parquet is no file"):
        take(named, transactions=LINES)


def test_rows_of_two_time_zones_never_stand_in_one_table(take, add, home):
    take(members=MEMBERS, transactions=LINES)
    home.settings.write_text('timezone = "Asia/Kathmandu"\n')
    with pytest.raises(ContractError, match=r"timezone was '\w+' and is 'Asia/Kathmandu' .*without --add"):
        add(transactions=LINES)
    assert take(members=MEMBERS, transactions=LINES).fresh
    assert not add(transactions=LINES).fresh


def test_the_whole_after_an_addition_replaces_it(take, add, held):
    take(members=MEMBERS, transactions=LINES)
    add(transactions=LINES.head(1).assign(transaction_id="c"))
    whole = take(members=MEMBERS, transactions=LINES)
    assert whole.fresh
    assert held("transactions", "transaction_id") == [["a"], ["a"], ["b"], ["b"]]


def test_a_rehearsal_shows_what_there_would_be(take, add, home):
    take(members=MEMBERS, transactions=LINES)
    before = _state(home)
    shown = add(transactions=LINES.head(2).assign(transaction_id=["a", "c"]), rehearse=True)
    assert [row[:4] for row in shown.sheet.rows] == [("transactions", "4", "4", "0")]
    assert _state(home) == before


def test_a_killed_addition_leaves_what_stood(take, add, home, monkeypatch):
    take(members=MEMBERS, transactions=LINES)
    before = open_warehouse(home).frame("transactions")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(features.warehouse, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            add(transactions=LINES.assign(amount=1))
    pd.testing.assert_frame_equal(open_warehouse(home).frame("transactions"), before)
    assert add(transactions=LINES.assign(amount=1)).fresh


def test_wide_rows_are_stored_alike_however_they_came(take, add, home, monkeypatch):
    """What a part of the file may weigh is counted from its rows, not from the files that they came in."""
    monkeypatch.setattr(features.intake.batch, "BYTES", 2**18)
    rng = np.random.default_rng(7)
    lines = pd.DataFrame({"transaction_id": [f"t{n:05d}" for n in range(20_000)], "member_id": "m1"})
    lines = lines.assign(occurred_at="2024-01-05", amount=rng.integers(1, 99, 20_000), note="x" * 40)
    whole = take(members=MEMBERS, transactions=lines).warehouse.fingerprint
    take(members=MEMBERS, transactions=lines[::2])
    assert add(transactions=lines[1::2].sample(frac=1, random_state=1)).warehouse.fingerprint == whole
    assert pq.read_metadata(open_warehouse(home).path("transactions")).num_row_groups > 3
