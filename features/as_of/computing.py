"""Snapshots computed: in a session of DuckDB, some members at a time where memory is short of all, or on Spark."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow.parquet as pq

from features.as_of.expression import among_all, of_members
from features.as_of.known import READ, Moment, moment, session_moment, variable, visible
from features.catalogue.segments import BOUNDS, bounds_of
from features.memory import query_memory, within
from features.programme import Programme

ROW: Final = 640  # bytes of memory that a query takes for each row of the tables
_PIECE: Final = (
    "member_id >= getvariable('first') AND (getvariable('until') IS NULL OR member_id < getvariable('until'))"
)
_MEMBERS: Final = "of_members"  # the table between the two steps
_PACKED: Final = "packed"  # the database in memory that has it compressed, where it comes in pieces

Computed = Callable[[datetime], duckdb.DuckDBPyRelation]
Write = Callable[[datetime, Path], None]


class Queries(NamedTuple):
    """Hold a snapshot's steps as queries of DuckDB, over tables by their names and the session's variables."""

    members: str  # what follows from their own rows, in the order of members
    bounds: str
    snapshot: str


def in_session(
    session: duckdb.DuckDBPyConnection,
    tables: Mapping[str, ir.Table],
    programme: Programme,
    *,
    ends: Sequence[str] = (),
) -> Computed:
    """Give what computes snapshots of tables that a session has by these names: each to be read before the next.

    Parameters
    ----------
    ends : the first member of each piece but the first, if the tables show only the members from the session's variable
        `first` to `until`
    """
    queries = _queries(tables, programme)

    def computed(as_of: datetime) -> duckdb.DuckDBPyRelation:
        _set(session, as_of=as_of, today=as_of.astimezone(programme.zone).date())
        if ends:
            _take_pieces(session, queries.members, ends)
        else:
            session.execute(f"CREATE OR REPLACE TEMP TABLE {_MEMBERS} AS {queries.members}")
        _set(session, **dict(zip(BOUNDS, *session.sql(queries.bounds).fetchall(), strict=True)))
        return session.sql(queries.snapshot)

    return computed


def computed_of(
    paths: Mapping[str, Path], programme: Programme, *, folder: Path, memory: int | None = None
) -> Computed:
    """Give the same for tables in Parquet files, in a session of its own that spills into a folder.

    Parameters
    ----------
    memory : bytes that a query may take, by default `features.memory.query_memory`
    """
    memory, paths = memory or query_memory(), {name: paths[name] for name in READ if name in paths}
    rows = sum(pq.read_metadata(path).num_rows for path in paths.values())
    backend = ibis.duckdb.connect(**within(folder, memory))
    session, tables = backend.con, {name: backend.read_parquet(path) for name, path in paths.items()}
    ends = _ends(session.read_parquet(str(paths["members"])), math.ceil(rows * ROW / memory))
    for name, path in paths.items():
        table = session.read_parquet(str(path))
        (table.filter(_PIECE) if ends else table).create_view(name)
    return in_session(session, tables, programme, ends=ends)


def writer(paths: Mapping[str, Path], programme: Programme, *, folder: Path, memory: int | None = None) -> Write:
    """Give what writes snapshots; see `computed_of`."""
    computed = computed_of(paths, programme, folder=folder, memory=memory)
    return lambda as_of, path: computed(as_of).write_parquet(str(path))


def spark_writer(paths: Mapping[str, Path], programme: Programme) -> Write:
    """Give what writes the same snapshots by Spark: compiled anew for each, as Ibis knows no variables of Spark's."""
    from features.spark import between, plainly, read_tables, write_parquet

    tables = read_tables(programme.engine.spark, paths)

    def write(as_of: datetime, path: Path) -> None:
        at = moment(as_of, programme)
        with between(of_members(tables, at=at, programme=programme), path) as members:
            with plainly():
                snapshot = among_these(members, at=at, programme=programme)
            write_parquet(snapshot.order_by("member_id"), path)

    return write


def among_these(members: ir.Table, *, at: Moment, programme: Programme) -> ir.Table:
    """Find the bounds now, by the engine that has all members, and take the second step with them as literals."""
    (bounds,) = bounds_of(members).to_pyarrow().to_pylist()
    return among_all(members, lambda name: ibis.literal(bounds[name]), at=at, programme=programme)


def _queries(tables: Mapping[str, ir.Table], programme: Programme) -> Queries:
    """Compile once for all tables of one shape: that takes longer than to run it on a small company's."""
    shape = tuple((name, table.schema()) for name, table in sorted(visible(dict(tables)).items()))
    return _compiled(shape, programme.model_dump_json())


@cache
def _compiled(shape: tuple[tuple[str, ibis.Schema], ...], settings: str) -> Queries:
    at, programme = session_moment(), Programme.model_validate_json(settings)
    own = of_members({name: ibis.table(schema, name=name) for name, schema in shape}, at=at, programme=programme)
    members = ibis.table(own.schema(), name=_MEMBERS)
    steps = own.order_by("member_id"), bounds_of(members), among_all(members, variable, at=at, programme=programme)
    return Queries(*(str(ibis.to_sql(step, dialect="duckdb")) for step in steps))


def _take_pieces(session: duckdb.DuckDBPyConnection, query: str, ends: Sequence[str]) -> None:
    """Take the first step some members at a time, and keep what comes of it compressed, so that nothing spills."""
    session.execute(f"ATTACH IF NOT EXISTS ':memory:' AS {_PACKED} (COMPRESS)")
    into = f"CREATE OR REPLACE TABLE {_PACKED}.{_MEMBERS} AS"
    for first, until in pairwise(("", *ends, None)):
        _set(session, first=first, until=until)
        session.execute(f"{into} {query}")
        session.execute(f"CHECKPOINT {_PACKED}")  # only then are its rows compressed
        into = f"INSERT INTO {_PACKED}.{_MEMBERS}"
    session.execute(f"CREATE OR REPLACE TEMP VIEW {_MEMBERS} AS FROM {_PACKED}.{_MEMBERS}")


def _set(session: duckdb.DuckDBPyConnection, **values: Any) -> None:  # noqa: ANN401 (of any type of a column's)
    for name, value in values.items():
        session.execute(f"SET VARIABLE {name} = $1", [value])


def _ends(members: duckdb.DuckDBPyRelation, pieces: int) -> list[str]:
    """Find the first member of each piece but the first."""
    shares = [number / pieces for number in range(1, pieces)]
    ((ends,),) = members.aggregate(f"quantile_disc(member_id, {shares})").fetchall() if shares else [([],)]
    return list(ends)
