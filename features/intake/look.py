"""Files nobody has described: some of their rows, how they have to be read, and what their columns are like."""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow.parquet as pq

from features.errors import ContractError
from features.intake.textfiles import MARKS
from features.intake.values import read_numbers, read_written
from features.schema import Column, Table

LOOKED_AT: Final = 5_000  # the first rows of each file
SHORT: Final = 100  # of them, where a glance is enough
BYTES: Final = 2**20
PIECE: Final = 2**16  # bytes, some way on: files are sorted, and the first days of a month do not tell it from a day
PLACES: Final = (0.25, 0.5, 0.75, 1.0)
MOSTLY: Final = 0.9  # of a column's values have to be of the kind
FORMATS: Final = (
    "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%Y%m%d", "%Y/%m/%d", "%d/%m/%y", "%m/%d/%y", "%d.%m.%y"
)  # fmt: skip
CLOCKS: Final = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
COMMAS: Final = r"-?\d{1,3}(\.?\d{3})*,\d+"  # 1.234,50: the comma is the mark before cents
POINTS: Final = r"-?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?"  # 1,234.50: it groups thousands
SYMBOLS: Final = "$€£¥₹"
SUFFIXES: Final = (".csv", ".tsv", ".txt", ".parquet")
ALIASES: Final = {
    "member_id": "member customer customerid customerno custid user userid client clientid household householdid card "
    "cardid cardno cardnumber loyaltyid account accountid memberno person personid id "
    "email customeremail emailaddress",
    "joined_at": "joined joindate joinedon signup signupdate signedup created createdat registered registeredat since "
    "membersince enrolled enrolledat becamememberon",
    "transaction_id": "transaction invoice invoiceno invoiceid order orderid orderno receipt receiptid receiptno "
    "basket basketid ticket ticketid purchaseid id",
    "occurred_at": "date datetime timestamp time when invoicedate orderdate purchasedate purchasedat soldat "
    "transactiondate transactiontimestamp eventtime eventdate createdat at",
    "amount": "total nettotal grosstotal linetotal totalamount revenue netsales sales salesvalue spend spent value net "
    "gross paid",
    "margin": "profit grossmargin",
    "discount": "rebate discountamount",
    "quantity": "qty units items pieces",
    "category": "department productcategory productgroup",
    "event_id": "event id",
    "kind": "type eventtype action",
    "offer_id": "offer coupon couponid id",
    "treatment": "offer offerid coupon couponid arm variant",
    "name": "title offername",
    "channel": "channels medium",
    "contact_cost": "costpercontact contactcosts mailcost",
    "redemption_cost": "costperredemption redemptioncosts",
    "valid_from": "start startdate startson from",
    "valid_until": "end enddate endson until to expires expiresat expiry validto",
    "contact_id": "contact messageid mailid",
    "contacted_at": "sent sentat sentdate contactdate contactedon mailedat date datetime timestamp time when at",
    "started_at": "start startdate startedon",
    "plan": "tariff product package planname subscriptiontype",
    "price": "fee monthlyfee monthlyprice",
    "cancelled_at": "cancelled canceldate cancelledon cancellationdate",
    "ends_at": "end enddate expires expiresat expiry",
}
STEMS: Final = {
    "members": "member customer client user profile household",
    "transactions": "transaction sale order invoice receipt purchase basket retail",
    "subscriptions": "subscription contract plan",
    "events": "event activity log visit view",
    "offers": "offer coupon portfolio promotion",
    "contacts": "contact mail campaign send sent treatment",
    "redemptions": "redemption redeem completed",
}


@dataclass(frozen=True)
class Look:
    """Hold rows of one file, the first and some of the rest, and how they had to be read."""

    path: Path
    frame: pd.DataFrame
    form: dict[str, object] = field(default_factory=dict)


def look_at(path: Path) -> Look:
    """Read some rows of a file, finding out its encoding, its separator, and whether it has a header line."""
    if path.suffix == ".parquet":
        batch = next(pq.ParquetFile(path).iter_batches(batch_size=LOOKED_AT), None)
        return Look(path, batch.to_pandas() if batch is not None else pq.read_table(path).to_pandas())
    lines = _some_lines(path)
    form: dict[str, object] = {}
    try:
        text = lines.decode("utf-8-sig")
    except UnicodeDecodeError:
        form["encoding"] = "utf-16" if lines[:2] in MARKS else "cp1252"
        text = lines.decode(str(form["encoding"]), errors="replace")
    first = text.partition("\n")[0].strip()
    separator = max(",;\t|", key=first.count)
    if separator not in first:
        separator = "whitespace" if re.search(r"\S\s+\S", first) else ","
    if separator != ",":
        form["separator"] = separator
    fields = first.split() if separator == "whitespace" else first.split(separator)
    if any(re.fullmatch(r"-?[\d.]+", part.strip('" ')) for part in fields):  # names are no numbers
        form["names"] = tuple(f"column_{number}" for number in range(1, len(fields) + 1))
    try:
        frame = _read_start(text, separator, form.get("names"))
    except ValueError as error:
        raise ContractError(f"{path} could not be read: {error}") from error
    for name in map(str, frame.columns):
        if written := _how_written(frame[name]):
            form |= written
            read = read_written(frame[name], decimal=written.get("decimal"), symbol=written.get("symbol"))
            frame[name] = read.astype("Float64").astype("string")
    return Look(path, frame, form)


def _some_lines(path: Path) -> bytes:
    """Read the first lines of a file, and some at places further on, none of them cut."""
    with path.open("rb") as file:
        start = file.read(BYTES)
        if len(start) < BYTES:
            return start
        start = start[: start.rfind(b"\n") + 1] or start
        first = b"".join(start.splitlines(keepends=True)[: LOOKED_AT + 1])
        if start[:2] in MARKS or not _apart(first):
            return start
        pieces = []
        for place in PLACES:
            file.seek(max(len(start), int(path.stat().st_size * place) - PIECE))
            piece = file.read(PIECE)
            pieces.append(piece[piece.find(b"\n") + 1 : piece.rfind(b"\n") + 1])
    return b"".join([first, *filter(_apart, pieces)])


def _apart(lines: bytes) -> bool:
    """Say whether every line is a row: where a quoted value goes over several, none can be told from its midst."""
    return not any(line.count(b'"') % 2 for line in lines.splitlines())


def _how_written(values: pd.Series) -> dict[str, str]:
    """Say which mark is before the cents of a column's numbers and what stands beside them; nothing if it is plain."""
    known = values.dropna().str.replace(r"[()\s]", "", regex=True)
    if known.empty:
        return {}
    written, found = dict[str, str](), known.str.extract(f"([{SYMBOLS}])")[0].value_counts()
    if len(found) and found.iloc[0] >= MOSTLY * len(known):
        written["symbol"] = str(found.index[0])
    plain = known.str.replace(written.get("symbol", ""), "", regex=False)
    commas, points = (plain.str.fullmatch(pattern).mean() >= MOSTLY for pattern in (COMMAS, POINTS))
    if commas and not points:
        return written | {"decimal": ","}
    if points and plain.str.contains(",").any():
        return written | {"decimal": "."}
    return written if points else {}


def _read_start(text: str, separator: str, names: object) -> pd.DataFrame:
    given = list(names) if isinstance(names, tuple) else None
    return pd.read_csv(
        io.StringIO(text),
        dtype="string",
        keep_default_na=False,
        na_values=[""],
        sep=r"\s+" if separator == "whitespace" else separator,
        names=given,
        header=None if given else 0,
    )


def likeness(table: Table, look: Look) -> float:
    """Count the needed columns that are there, as a share, and let the file's name decide between equals."""
    found = match_columns(table, look.frame)
    return sum(name in found for name in table.needed) / len(table.needed) * 0.9 + 0.6 * is_named(table, look)


def is_named(table: Table, look: Look) -> bool:
    """Say whether a file is called what such tables are called."""
    return any(word in look.path.stem.lower() for word in STEMS[table.name].split())


def is_currency(values: pd.Series) -> bool:
    """Say whether a column says in which currency a row's amounts are, by its name and its values."""
    known = values.dropna().astype("string").str.strip()
    return _plain(str(values.name)) in {"currency", "currencycode"} and bool(known.str.fullmatch("[A-Za-z]{3}").all())


def match_columns(table: Table, frame: pd.DataFrame) -> dict[str, str]:
    """Match columns by name, the contract's own first, and only where the values are of the kind."""
    found: dict[str, str] = {}
    for column in table.columns:
        names = [_plain(column.name), *ALIASES.get(column.name, "").split()]
        likely = [str(c) for c in frame.columns if _plain(str(c)) in names and str(c) not in found.values()]
        for source in sorted(likely, key=lambda name: names.index(_plain(name))):
            if column.name not in found and _is(column, frame[source]):
                found[column.name] = source
    return found


def match_values(table: Table, frame: pd.DataFrame, found: Mapping[str, str]) -> dict[str, str]:
    """Match the times and the amount that no name tells, where a file has one column of that kind alone."""
    rest = [str(name) for name in frame.columns if str(name) not in found.values()]
    cents = [name for name in rest if (numbers(frame[name]).dropna() % 1 != 0).any()]
    times = [name for name in rest if name not in cents and date_formats(frame[name].head(SHORT))]
    wanted = {column.name for column in table.columns if column.required} - set(found)
    alone = {"amount": cents, "occurred_at": times}
    return {name: only[0] for name, only in alone.items() if name in wanted and len(only) == 1}


def _is(column: Column, values: pd.Series) -> bool:
    values = values.dropna()
    if values.empty or column.kind in {"id", "text", "flag"}:
        return True
    if column.kind == "time":
        return bool(date_formats(values))
    found = numbers(values)
    return bool(found.notna().mean() >= MOSTLY and (column.signed or (found.dropna() >= 0).all()))


def date_formats(values: pd.Series) -> list[str]:
    """Give the formats that read most values, `ISO8601` among them; more than one where days and months look alike."""
    if pd.api.types.is_datetime64_any_dtype(values):
        return ["ISO8601"]
    text = values.dropna().astype("string")
    tried = ["ISO8601", *(day + clock for day in FORMATS for clock in CLOCKS)]
    if text.str.fullmatch(r"\d{8}").all():
        tried = ["%Y%m%d"]  # ISO too, but a number as often: better said
    good = {form: pd.to_datetime(text, errors="coerce", format=form, utc=True).notna().mean() for form in tried}
    return [form for form in tried if good[form] >= MOSTLY and good[form] == max(good.values())]


def line_product(frame: pd.DataFrame) -> str | None:
    """Give the expression of a line's total, where a number and a price are there."""
    known = {_plain(str(column)): str(column) for column in frame.columns}
    number = next((known[name] for name in ("quantity", "qty", "units") if name in known), None)
    price = next((known[name] for name in ("unitprice", "price", "itemprice") if name in known), None)
    return f"{number} * {price}" if number and price else None


def numbers(values: pd.Series) -> pd.Series:
    """Read numbers; what is none is missing."""
    return read_numbers(values).astype("float64")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
