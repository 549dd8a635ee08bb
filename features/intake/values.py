"""Numbers and times as text -> typed values; regular text at the speed of Arrow, and whatever else pandas reads.

Each fast way gives `None` unless it reads every value, and then what the slow way would have given.
"""

import re
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

CLOCK_WORDS: Final = ("now", "today")  # pandas reads them as times
WHOLE: Final = r"^-?[0-9]{1,15}$"
BEYOND: Final = r"[eE][+-]?[0-9]{4,}"  # an exponent that no number has: pandas 2.3 crashes on 1e2147483648
POINTED: Final = r"^-?[0-9]+\.0$"  # a whole number as its writer had to hold it beside a gap
BLANKS: Final = "[\\s\u00a0\u202f]"  # as people write between thousands, and before a currency's sign
DECIMAL: Final = r"^-?[0-9]{1,15}(\.[0-9]{1,9})?$"
MARKED: Final = r"(?:[Zz]|[+-]\d{2}:?\d{2})$"  # a time that says its own zone
EARLIEST, LATEST = datetime(1678, 1, 1), datetime(2262, 1, 1)  # noqa: DTZ001 (about what pandas reads from text)
LAST_YEAR: Final = 2037
TEXT: Final = pa.large_string()  # what pandas holds text in: no part is copied on its way
ARROW_TEXT: Final = pd.StringDtype("pyarrow")
NUMBERS: Final[dict[pa.DataType, pd.api.extensions.ExtensionDtype]] = {
    TEXT: ARROW_TEXT, pa.bool_(): pd.BooleanDtype(),
    pa.int8(): pd.Int8Dtype(), pa.int16(): pd.Int16Dtype(), pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(), pa.uint16(): pd.UInt16Dtype(), pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
}  # fmt: skip


def read_text(values: pd.Series) -> pd.Series:
    """Show values as text; whole floats, which is what whole numbers with gaps become, without their `.0`."""
    if not pd.api.types.is_float_dtype(values):
        return values.astype(ARROW_TEXT)
    whole = (values % 1 == 0) & (values.abs() < 2**63)
    text = values.where(whole).astype("Int64").astype(ARROW_TEXT)
    return text if whole[values.notna()].all() else text.where(whole, values.astype("Float64").astype(ARROW_TEXT))


def read_ids(values: pd.Series) -> pd.Series:
    """Show ids as text; one that came as `17850.0` is the `17850` that it is where no gap is beside it."""
    text = read_text(values)
    if (found := _pointed(text)) is None:
        return text
    came = _arrow(text)
    whole = pc.if_else(found, pc.utf8_slice_codeunits(came, 0, stop=-2), came)
    return pd.Series(whole.to_pandas(types_mapper=NUMBERS.get).array, index=values.index)


def pointed(values: pd.Series) -> int:
    """Count the texts that are whole numbers with `.0`."""
    found = _pointed(values)
    return 0 if found is None else int(pc.sum(found).as_py())


def read_numbers(values: pd.Series) -> pd.Series:
    """Read numbers; what is none is missing."""
    fast = _matching(values, WHOLE, pa.int64())
    fast = fast if fast is not None else _matching(values, DECIMAL, pa.float64())
    if fast is not None or pd.api.types.is_numeric_dtype(values):
        return fast if fast is not None else values
    return pd.to_numeric(values.mask(values.astype(ARROW_TEXT).str.contains(BEYOND)), errors="coerce")


def read_written(values: pd.Series, *, decimal: str | None, symbol: str | None) -> pd.Series:
    """Read numbers as people write them, such as `$1,012.50`, `1.012,50` or `(5.00)`; what is none is missing.

    Parameters
    ----------
    decimal : the mark before cents; the other one may group thousands. `None`: there are no groups
    symbol : what may stand before or after a number
    """
    if pd.api.types.is_numeric_dtype(values) or not (decimal or symbol):
        return read_numbers(values)
    text = values.astype(ARROW_TEXT).str.replace(BLANKS, "", regex=True)
    if symbol:
        text = text.str.replace(rf"^([-+(]?){re.escape(symbol)}|{re.escape(symbol)}(\)?)$", r"\1\2", regex=True)
    text = text.str.replace(r"^\((.+)\)$", r"-\1", regex=True)  # as accountants write what is below 0
    if decimal:
        group = "." if decimal == "," else ","
        text = text.where(text.str.fullmatch(rf"[-+]?(\d{{1,3}}([{group}]\d{{3}})+|\d+)([{decimal}]\d+)?"))
        text = text.str.replace(group, "", regex=False).str.replace(decimal, ".", regex=False)
    return read_numbers(text)


def read_times(values: pd.Series, form: str = "ISO8601") -> pd.Series:
    """Read times to the microsecond, in UTC, those that don't say their zone as well; what is none is missing."""
    if pd.api.types.is_datetime64_any_dtype(values):
        utc = values.dt.tz_convert("UTC") if values.dt.tz is not None else values.dt.tz_localize("UTC")
        times: pd.Series = utc.astype("datetime64[us, UTC]")
        return times
    fast = regular_times(values) if form == "ISO8601" else None
    if fast is not None:
        return fast if fast.dt.tz is not None else fast.dt.tz_localize("UTC")
    values = values.mask(values.astype(ARROW_TEXT).str.lower().isin(CLOCK_WORDS))
    return pd.to_datetime(values, utc=True, errors="coerce", format=form).astype("datetime64[us, UTC]")


def regular_times(values: pd.Series) -> pd.Series | None:
    """Read ISO 8601 times, if either all or none of them say their zone; in UTC if they do."""
    text = _arrow(values)
    if text is None or text.null_count == len(text):
        return None
    some = next(value for chunk in text.chunks for value in chunk if value.is_valid)
    zone = "UTC" if re.search(MARKED, some.as_py()) else None
    try:
        times = text.cast(pa.timestamp("us", tz=zone))
    except pa.ArrowInvalid:
        return None
    span = pc.min_max(times.cast(pa.timestamp("us"))).as_py()
    if span["min"] < EARLIEST or span["max"] > LATEST:
        return None
    return pd.Series(times.to_pandas().array, index=values.index)


def fast_zone(zone: ZoneInfo, times: pd.Series) -> ZoneInfo | str:
    """Name a zone in the way pandas computes with fastest; that way knows no clock change after 2037."""
    return zone if times.max() >= pd.Timestamp(LAST_YEAR, 1, 1, tz=times.dt.tz) else zone.key


def _pointed(values: pd.Series) -> "pa.ChunkedArray | None":
    """Say which texts are whole numbers with `.0`; None if it is none."""
    text = _arrow(values)
    if text is None or not pc.any(pc.ends_with(text, ".0"), min_count=0).as_py():
        return None
    return pc.match_substring_regex(text, POINTED)


def _matching(values: pd.Series, pattern: str, kind: pa.DataType) -> pd.Series | None:
    text = _arrow(values)
    if text is None or not pc.all(pc.match_substring_regex(text, pattern), min_count=0).as_py():
        return None
    read = text.cast(kind).to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    return pd.Series(read.array, index=values.index)


def _arrow(values: pd.Series) -> "pa.ChunkedArray | None":
    return pa.chunked_array(values.array.__arrow_array__()) if values.dtype == ARROW_TEXT else None
