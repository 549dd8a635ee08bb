"""The fast way of reading a value gives what the slow one would, or leaves it alone."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.intake.values import (
    ARROW_TEXT,
    fast_zone,
    pointed,
    read_ids,
    read_numbers,
    read_text,
    read_times,
    read_written,
    regular_times,
)

DIGITS = st.text("0123456789", min_size=1, max_size=4)
TIMES = st.datetimes(datetime(1600, 1, 1), datetime(2400, 1, 1))  # noqa: DTZ001 (as people write them)
ZONES = ["Europe/London", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "UTC"]
AS_TIME = st.one_of(
    TIMES.map(str),
    TIMES.map(lambda time: time.isoformat(timespec="minutes") + "Z"),
    st.tuples(TIMES, st.sampled_from(["+05:45", "-0330", "+02"])).map(lambda pair: str(pair[0]) + pair[1]),
    st.builds("{}-{}-{} {}:{}".format, DIGITS, DIGITS, DIGITS, DIGITS, DIGITS),
    st.sampled_from(
        ["now", "", " 2024-01-01", "2024-13-01", "2024-02-30", "20240101", "2024-01-01T24:00", "9999-12-31"]
    ),
)
AS_NUMBER = st.one_of(
    st.integers(-(10**18), 10**18).map(str),
    st.decimals(-(10**6), 10**6, places=3).map(str),
    st.sampled_from(["+1", " 1", "0x10", "1e3", "inf", "nan", "-", "", "1_000", "007", "1.", ".5", "1,5", "٣"]),
)


@given(st.lists(AS_TIME, min_size=1, max_size=4))
@settings(max_examples=300)
def test_regular_times_are_what_pandas_reads_one_by_one(texts):
    values = pd.Series(texts, dtype=ARROW_TEXT)
    words = values.mask(values.isin(["now"]))
    slow = pd.to_datetime(words, utc=True, errors="coerce", format="ISO8601").astype("datetime64[us, UTC]")
    assert read_times(values).equals(slow)


@given(st.lists(AS_NUMBER, min_size=1, max_size=4))
@settings(max_examples=300)
def test_regular_numbers_are_what_pandas_reads_one_by_one(texts):
    values = pd.Series(texts, dtype=ARROW_TEXT)
    slow = pd.to_numeric(values.astype(object), errors="coerce").astype(float)
    assert read_numbers(values).astype(float).tolist() == pytest.approx(slow.tolist(), rel=1e-15, nan_ok=True)


@pytest.mark.parametrize("text", ["1e2147483648", "1E+3000000000", "-1e2147483650", "1e4294967295", "78e99999999999"])
def test_a_number_that_crashes_pandas_or_comes_out_as_another_is_none(text):
    for kind in (ARROW_TEXT, "string", object):
        values = pd.Series(["1.5x", text, "1e3"], dtype=kind)
        assert read_numbers(values).isna().tolist() == [True, True, False]


def test_times_with_and_without_a_zone_are_left_to_the_slow_way():
    mixed = pd.Series(["2024-01-01", "2024-01-01T00:00Z"], dtype=ARROW_TEXT)
    assert regular_times(mixed) is None
    assert read_times(mixed).tolist() == [pd.Timestamp("2024-01-01", tz="UTC")] * 2


@given(st.sampled_from(ZONES), st.lists(st.datetimes(datetime(1971, 1, 1), datetime(2060, 1, 1)), min_size=1))  # noqa: DTZ001
@settings(max_examples=200)
def test_a_zone_is_the_same_zone_however_it_is_named(name, times):
    zone, utc = ZoneInfo(name), pd.Series(pd.to_datetime(times, utc=True)).dt.as_unit("us")
    local = utc.dt.tz_convert(fast_zone(zone, utc)).dt.tz_localize(None)
    assert local.tolist() == [time.replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None) for time in times]


def test_whole_floats_are_the_numbers_they_were_before_a_gap_came():
    assert read_text(pd.Series([17850.0, None, 1e17])).tolist() == ["17850", pd.NA, "100000000000000000"]
    assert read_text(pd.Series([2.0, 2.5])).tolist() == ["2", "2.5"]  # each by itself, whatever is beside it


IDS = st.lists(st.one_of(st.none(), st.integers(-(2**53), 2**53), st.text(max_size=6)), max_size=30)


@given(IDS)
@settings(max_examples=200)
def test_an_id_is_the_same_with_and_without_the_point_that_a_gap_brings(ids):
    plain = pd.Series([None if one is None else str(one) for one in ids], dtype=ARROW_TEXT)
    with_point = pd.Series([f"{one}.0" if isinstance(one, int) else one for one in ids], dtype=ARROW_TEXT)
    assert read_ids(with_point).equals(read_ids(plain))
    assert pointed(with_point) == sum(isinstance(one, int) for one in ids) + pointed(plain)


@given(st.integers(-(10**11), 10**11), st.sampled_from(".,"), st.sampled_from(["$", "€", "kr.", None]), st.booleans())
@settings(max_examples=300)
def test_an_amount_is_the_same_however_people_write_it(cents, decimal, symbol, as_accountants):
    group = "," if decimal == "." else "."
    digits = f"{abs(cents) // 100:,}".replace(",", group) + f"{decimal}{abs(cents) % 100:02d}"
    shown = f"{symbol or ''}{digits}"
    sign = "-" if cents < 0 else ""
    text = f"({shown})" if as_accountants and cents < 0 else f"{sign}{shown}"
    (value,) = read_written(pd.Series([text], dtype=ARROW_TEXT), decimal=decimal, symbol=symbol)
    assert round(float(value) * 100) == cents


def test_blanks_of_every_kind_may_stand_in_an_amount():
    text = pd.Series(["1 012,50 €", "1\u202f012,50\u00a0€"], dtype=ARROW_TEXT)
    assert read_written(text, decimal=",", symbol="€").tolist() == [1012.5, 1012.5]


@pytest.mark.parametrize("text", ["1,23.50", "12,50", "1.234.50", "$", "€5.00", "1,2345", "5.00 USD", ""])
def test_what_is_grouped_otherwise_or_is_of_another_currency_is_no_number(text):
    assert read_written(pd.Series([text], dtype=ARROW_TEXT), decimal=".", symbol="$").isna().all()
