"""The expression of a snapshot, compiled once to a query in which the tables and the moment vary.

It is written when a snapshot is materialised: what is computed live later is of the definition that the snapshot was
computed by, and whoever runs it needs no Ibis.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from features.catalogue.entries import CATALOGUE
from features.errors import NotFoundError
from features.files import write_by_content, write_json
from features.home import Home
from features.programme import Programme, read_programme
from features.stores.packed import Schema
from features.warehouse import Warehouse, open_warehouse

if TYPE_CHECKING:
    import ibis

AUDIENCE: Final = "audience"  # the table of what compares members with each other
_FILE: Final = "plan.json"


@dataclass(frozen=True)
class Plan:
    """Hold the query, and what it reads and gives."""

    sql: str
    columns: dict[str, tuple[str, ...]]  # of each table
    schema: Schema
    timezone: str
    as_of: datetime  # of the snapshot that was materialised
    audience: str  # the file, below `Home.live`, of that snapshot's features that compare members with each other


def write_plan(home: Home, as_of: datetime) -> None:
    """Compile the expression for the warehouse's tables, and keep it beside what the snapshot of `as_of` compares."""
    snapshot = pq.read_table(home.snapshot(as_of), columns=["member_id", *compared()])
    audience, _ = write_by_content(home.live, AUDIENCE, ".parquet", partial(pq.write_table, snapshot))
    plan = make_plan(open_warehouse(home), read_programme(home.settings), as_of=as_of, audience=audience)
    write_json(home.live / _FILE, asdict(plan) | {"as_of": as_of.isoformat(), "audience": audience.name})
    for old in set(home.live.glob(f"{AUDIENCE}-*.parquet")) - {audience}:
        old.unlink()


def read_plan(home: Home) -> Plan:
    """Read what `write_plan` wrote.

    Raises
    ------
    NotFoundError
        If nothing was materialised yet.
    """
    path = home.live / _FILE
    if not path.exists():
        raise NotFoundError("there is no plan for live features yet; `holdfast features materialize` writes one")
    value: dict[str, Any] = json.loads(path.read_bytes())
    columns = {name: tuple(chosen) for name, chosen in value.pop("columns").items()}
    schema = Schema(**{kind: tuple(names) for kind, names in value.pop("schema").items()})
    return Plan(columns=columns, schema=schema, as_of=datetime.fromisoformat(value.pop("as_of")), **value)


def make_plan(warehouse: Warehouse, programme: Programme, *, as_of: datetime, audience: Path) -> Plan:
    """Compile the expression for the tables of a warehouse; of their columns those that features read."""
    from ibis import Schema as Columns

    from features.as_of.known import READ, READ_OF_ALL
    from features.definitions import NUMBERS, WORDS

    schemas = {name: pq.read_schema(warehouse.path(name)) for name in warehouse.tables}
    read = {name: _chosen(schemas[name], (*READ_OF_ALL, *READ[name])) for name in READ if name in schemas}
    shape = tuple((name, Columns.from_pyarrow(schema)) for name, schema in read.items())
    sql = _compiled(shape, Columns.from_pyarrow(pq.read_schema(audience)), programme.model_dump_json())
    columns = {name: tuple(schema.names) for name, schema in read.items()}
    return Plan(sql, columns, Schema(NUMBERS, WORDS), programme.timezone, as_of, str(audience.resolve()))


@cache
def _compiled(shape: "tuple[tuple[str, ibis.Schema], ...]", audience: "ibis.Schema", settings: str) -> str:
    """Compile it once for all tables of one shape, as `features.as_of.computing` does."""
    import ibis

    from features.as_of.expression import of_members
    from features.as_of.known import session_moment

    tables = {name: ibis.table(schema, name=name) for name, schema in shape}
    at, programme = session_moment(), Programme.model_validate_json(settings)
    vectors = of_members(tables, at=at, programme=programme)
    rows = vectors.left_join(ibis.table(audience, name=AUDIENCE), "member_id")
    stamps = {"event_timestamp": at.time, "created_timestamp": at.time}
    return str(
        ibis.to_sql(rows.select("member_id", **stamps, **{name: rows[name] for name in CATALOGUE}), dialect="duckdb")
    )


def compared() -> list[str]:
    """Name the features that compare a member with all others: live, they are those of the last snapshot."""
    from features import transforms  # noqa: F401 (registers the features)

    return [name for name, feature in CATALOGUE.items() if feature.source == "audience"]


def _chosen(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    return pa.schema([schema.field(name) for name in names if name in schema.names])
