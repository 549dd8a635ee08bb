"""Two readers of one file: what the strict one refuses the forgiving one reads, from the same row on."""

import csv
import io

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import ContractError
from features.intake import textfiles
from features.intake.mapping import TableMapping
from features.intake.textfiles import text_parts

PIECES = st.sampled_from(
    ["a", '"', '""', ",", ";", "\n", "\r\n", "\r", " ", "é", "🛒", "=1+1", "", "\t", "\u2028", "'"]
)
TEXT = st.lists(PIECES, max_size=6).map("".join)
FORM = TableMapping()


def _rows(path, form=FORM):
    first, *parts = text_parts(path, form)
    assert first.num_rows == 0
    return pa.Table.from_batches([first, *parts]).to_pylist()


@given(
    st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=8), st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
)
@settings(max_examples=200)
def test_both_readers_give_what_was_written(tmp_path_factory, rows, quoting):
    path, text = tmp_path_factory.mktemp("text") / "t.csv", io.StringIO(newline="")
    rows = [(f"x{first}", *rest) for first, *rest in rows]  # a line of nothing is no row
    csv.writer(text, quoting=quoting).writerows([("p", "q", "r"), *rows])
    path.write_bytes(text.getvalue().encode())
    wanted = [dict(zip("pqr", (value or None for value in row), strict=True)) for row in rows]
    assert _rows(path) == wanted
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(textfiles, "_strict", _refuse)
        assert _rows(path) == wanted


def _refuse(*_):
    raise pa.ArrowInvalid("not regular")
    yield


def test_a_short_line_is_filled_up_and_no_row_comes_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(textfiles, "BLOCK", 2**10)
    lines = [f"{number},{number},x" for number in range(1_000)]
    lines[700] = "700"
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c", *lines]))
    rows = _rows(tmp_path / "t.csv")
    assert [row["a"] for row in rows] == [str(number) for number in range(1_000)]
    assert rows[700] == {"a": "700", "b": None, "c": None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2,3\n4,5,6\n", "more values than the 2 columns that are named"),  # pandas would take it for an index
        ("a,b\n1,2\n1,2,3\n", "Expected 2 fields in line 3, saw 3"),
        ('a,b\n1,2\n3,4\n"1,2\n' + "3,4\n" * 2_000, "longer than 1,024 bytes: is a quote never closed"),
    ],
)
def test_a_line_that_is_too_long_or_never_ends_is_told(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(textfiles, "BLOCK", 2**10)
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ContractError, match=message):
        list(text_parts(tmp_path / "t.csv", FORM))


def test_a_header_alone_says_its_columns(tmp_path):
    for content in ("a,b", "a,b\n"):
        (tmp_path / "t.csv").write_text(content)
        (first,) = text_parts(tmp_path / "t.csv", FORM)
        assert first.schema.names == ["a", "b"]


def test_columns_of_one_name_or_of_none_are_told_apart(tmp_path):
    (tmp_path / "t.csv").write_text(",a,a\n0,1,2\n")
    assert _rows(tmp_path / "t.csv") == [{"Unnamed: 0": "0", "a": "1", "a.1": "2"}]
