"""How a company's files and columns become the tables of the contract: one TOML file, or the same as options.

A column of the contract is given as one of

    net_total              a column of the source, in whatever spelling it has
    Quantity * UnitPrice   a product of columns or numbers, rounded to whole minor units where it is money
    'mail'                 the same text for every row
    Coupon else 'control'  a column, and that text where it is empty
    row hash               for ids: made from the row's own content
    first transaction      for `members.joined_at`: the time of the member's first row of transactions
"""

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from features.errors import ContractError, NotFoundError
from features.intake.checks import CURRENCY
from features.schema import TABLES

ROW_HASH: Final = "row hash"
FIRST_TRANSACTION: Final = "first transaction"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("timezone", check_fields=False)
    @classmethod
    def _known_zone(cls, name: str | None) -> str | None:
        try:
            return name and ZoneInfo(name).key
        except (KeyError, ValueError, OSError) as error:  # OSError: a folder of zones, such as 'America'
            raise ValueError(f"{name!r} is no time zone; wanted a name such as 'Europe/Berlin'") from error


class TableMapping(_Strict):
    """Say where one table comes from and what its columns are called there."""

    file: str | None = Field(None, description="the file's name in the folder that is ingested")
    query: str | None = Field(None, description="with a database: a table's name, or a SELECT")
    separator: str | None = Field(None, description="between a text file's columns; 'whitespace' for runs of blanks")
    encoding: str | None = Field(None, description="of a text file; UTF-8 unless said")
    names: tuple[str, ...] = Field((), description="the columns of a text file without a header line")
    decimal: Annotated[str, Field(pattern="^[.,]$")] | None = Field(
        None, description="the mark before cents, where the other one groups thousands"
    )
    symbol: str | None = Field(None, description="such as $, where amounts come with it")
    guests: bool = Field(False, description="rows without a member_id are guests': set aside, not counted as bad")
    major_units: bool | tuple[str, ...] | None = Field(
        None, description="amounts are in dollars: all, or these columns"
    )
    timezone: str | None = Field(None, description="of times that don't say theirs")
    date_format: str | None = Field(None, description="such as %d/%m/%Y; ISO 8601 unless said")
    columns: dict[str, str] = Field({}, description="a column of the contract = where it comes from")


class SourceMapping(_Strict):
    """Say how a company's files differ from the contract; what is not said is as the contract has it.

    >>> SourceMapping(transactions=TableMapping(columns={"amount": "net_total"})).table("transactions").columns
    {'amount': 'net_total'}
    """

    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] | None = None
    timezone: str | None = Field(
        None, description="of times that don't say theirs; the programme's, if it has none yet"
    )
    date_format: str | None = None
    major_units: bool = Field(False, description="amounts are in dollars, not cents, in every table")
    adds: bool = Field(False, description="rows come on top of what the warehouse holds, and do not replace it whole")
    separator: str | None = None
    encoding: str | None = None
    members: TableMapping = TableMapping()
    transactions: TableMapping = TableMapping()
    subscriptions: TableMapping = TableMapping()
    events: TableMapping = TableMapping()
    offers: TableMapping = TableMapping()
    contacts: TableMapping = TableMapping()
    redemptions: TableMapping = TableMapping()

    @model_validator(mode="after")
    def _known_columns(self) -> "SourceMapping":
        wrong = []
        for name, table in TABLES.items():
            known = [*table.known, CURRENCY]
            major = self.table(name).major_units
            for column in (*self.table(name).columns, *(major if isinstance(major, tuple) else ())):
                if column not in known:
                    like = difflib.get_close_matches(column, known, n=1)
                    wrong.append(
                        f"{name}.{column} is no column of the contract ({like[0] if like else ', '.join(known)})"
                    )
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def table(self, name: str) -> TableMapping:
        """Give one table's part, with what is said for all of them."""
        own: TableMapping = getattr(self, name)
        shared = {
            key: getattr(self, key)
            for key in ("timezone", "date_format", "separator", "encoding", "major_units")
            if getattr(own, key) is None
        }
        return own.model_copy(update=shared)

    @property
    def derives_members(self) -> bool:
        """Whether members may be made from transactions, because no table of them exists."""
        return self.members.columns.get("joined_at") == FIRST_TRANSACTION


def read_mapping(path: Path | None, options: Mapping[str, Any] | None = None) -> SourceMapping:
    """Read a mapping file, lay the options over it and check both at once.

    Raises
    ------
    ContractError
        With every key that is wrong, what came and what was wanted.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8")) if path else {}
        return SourceMapping.model_validate(_over(values, options or {}))
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} is not there; `holdfast ingest --init FOLDER` writes a first one") from error
    except tomllib.TOMLDecodeError as error:
        raise ContractError(f"{path} is not TOML: {error}; mend that line") from error
    except UnicodeDecodeError as error:
        raise ContractError(f"{path} is not UTF-8: {error}; save it as UTF-8") from error
    except ValidationError as error:
        wrong = "; ".join(": ".join([*map(str, e["loc"]), e["msg"]]) for e in error.errors())
        raise ContractError(f"the mapping has {error.error_count()} wrong settings: {wrong}") from error


def option_values(
    *, maps: Sequence[str] = (), queries: Sequence[str] = (), shared: Mapping[str, object] | None = None
) -> dict[str, Any]:
    """Bring the options of the front door into the mapping file's shape.

    >>> option_values(maps=["transactions.amount=net_total"], shared={"currency": "USD", "timezone": None})
    {'currency': 'USD', 'transactions': {'columns': {'amount': 'net_total'}}}
    """
    values: dict[str, Any] = {key: value for key, value in (shared or {}).items() if value not in (None, False)}
    for text in maps:
        found = re.fullmatch(r"(\w+)\.(\w+)=(.+)", text)
        if not found:
            raise ContractError(f"--map {text!r} can't be read; wanted such as --map transactions.amount=net_total")
        table, column, where = found.groups()
        values.setdefault(table, {}).setdefault("columns", {})[column] = where
    for text in queries:
        table, equals, query = text.partition("=")
        if not equals or table not in TABLES:
            raise ContractError(f"--query {text!r} can't be read; wanted such as --query 'transactions=SELECT ...'")
        values.setdefault(table, {})["query"] = query
    return values


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _over(merged[key], value) if both else value
    return merged
