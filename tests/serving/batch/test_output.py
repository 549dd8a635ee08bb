import csv
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import ContractError, UnavailableError
from features.home import Home
from features.stores.objects import Objects
from serving.batch.output import bound_for, inert, write_output

STARTS = ("=", "+", "-", "@", "\t", "\r")


def parts():
    time = pa.array([datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)] * 2, pa.timestamp("us", tz="UTC"))
    words = pa.array(["=HYPERLINK(1)", 'a,"b"\nc']).dictionary_encode()
    columns = {"member_id": pa.array(["-1", "ü"]), "treatment": words, "net": pa.array([-5, None]), "at": time}
    return [pa.table(columns), pa.table(columns)]


def test_a_csv_is_safe_in_a_spreadsheet_and_its_numbers_are_numbers(tmp_path):
    write_output(tmp_path / "d.csv", parts())
    with (tmp_path / "d.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["member_id", "treatment", "net", "at"]
    assert rows[:2] == [
        ["'-1", "'=HYPERLINK(1)", "-5", "2026-01-02T03:04:05.000000Z"],
        ["ü", 'a,"b"\nc', "", "2026-01-02T03:04:05.000000Z"],
    ]
    assert rows[2:] == rows[:2]


def test_a_parquet_file_holds_words_as_they_are(tmp_path):
    write_output(tmp_path / "d.parquet", parts())
    assert pq.read_table(tmp_path / "d.parquet")["member_id"].to_pylist() == ["-1", "ü"] * 2


@given(st.lists(st.text()))
def test_no_cell_begins_as_a_formula_and_all_others_stay(words):
    written = inert(pa.chunked_array([pa.array(words, pa.string())])).to_pylist()
    assert not any(word.startswith(STARTS) for word in written)
    assert written == [f"'{word}" if word.startswith(STARTS) else word for word in words]


def test_another_kind_of_file_is_refused_with_those_that_there_are(tmp_path):
    refused = pytest.raises(ContractError, match=r"decisions\.xlsx came, a name that ends in \.parquet or \.csv")
    with refused, bound_for(f"{tmp_path}/decisions.xlsx", Home(tmp_path)):
        pytest.fail("it was taken")


def test_a_file_is_carried_into_object_storage_whole_with_what_lies_beside_it(s3, tmp_path):
    home = Home(tmp_path)
    objects = Objects(f"{s3.address}/spring")
    with bound_for(f"{s3.address}/spring/d.csv", home) as path:
        write_output(path, parts())
        write_output(path.with_name("d.refused.csv"), parts()[:1])
        assert objects.names() == []
    assert objects.names() == ["d.csv", "d.refused.csv"]
    write_output(tmp_path / "here.csv", parts())
    assert objects.read("d.csv", most=1 << 20) == (tmp_path / "here.csv").read_bytes()
    assert list(home.batches.iterdir()) == []


def test_what_fails_on_the_way_into_object_storage_leaves_nothing_there_or_here(s3, tmp_path):
    home = Home(tmp_path)
    begun = bound_for("s3://holdfast/d.csv", home)
    write_output(begun.__enter__(), parts())
    assert begun.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None) is False
    assert Objects("s3://holdfast").names() == []
    assert list(home.batches.iterdir()) == []
    s3.away()
    with pytest.raises(UnavailableError, match="objects at s3://holdfast "), bound_for("s3://holdfast/d.csv", home):
        pytest.fail("it was decided")


def test_a_file_is_whole_or_absent(tmp_path):
    def broken():
        yield parts()[0]
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write_output(tmp_path / "d.csv", broken())
    assert list(tmp_path.iterdir()) == []


def test_a_csv_says_that_it_is_utf8_where_it_is_asked_to(tmp_path):
    rows = pa.table({"member_id": ["Zoë"]})
    for marked in (False, True):
        path = tmp_path / f"{marked}.csv"
        write_output(path, [rows], marked=marked)
        assert path.read_bytes().startswith(b"\xef\xbb\xbf") == marked
        assert path.read_text(encoding="utf-8-sig").splitlines()[1] == '"Zoë"'
