"""What a batch adds to: the tables that stand, whose rows stay unless rows of their key come again.

A batch that replaces all tables adds to nothing, and goes the same way.
"""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection as Queries

from features.intake.staged import Staged
from features.schema import TABLES
from features.warehouse import LOCAL_TIME, Warehouse

NOTHING = pa.schema([])


def hold(queries: Queries, standing: Warehouse | None) -> dict[str, pa.Schema]:
    """Open the tables that stand as views `<name>_held`, with columns as staged; give the schema of each.

    The view `members_stand` names who is a member already: (member_id, joined_at).
    """
    held = {name: _open(queries, standing, name) for name in TABLES}
    member, joined = chosen(held["members"], ("member_id", "joined_at"))
    queries.execute(
        f"CREATE TEMP VIEW members_stand AS SELECT {member}::VARCHAR AS member_id, {joined}::TIMESTAMPTZ AS joined_at "
        f"FROM members_held"
    )
    return held


def _open(queries: Queries, standing: Warehouse | None, name: str) -> pa.Schema:
    if standing is None or name not in standing.tables:
        queries.execute(f"CREATE TEMP VIEW {name}_held AS SELECT 0::BIGINT AS place WHERE false")
        return NOTHING
    path = standing.path(name)
    schema = pq.read_schema(path)
    queries.read_parquet(str(path), file_row_number=True).create_view(f"{name}_file")
    columns = ", ".join([*(f"c{number}" for number in range(len(schema))), "place"])
    queries.execute(f"CREATE TEMP VIEW {name}_held AS FROM {name}_file AS rows({columns})")
    return schema


def chosen(schema: pa.Schema, names: Sequence[str]) -> list[str]:
    """Give columns of a view by their names; one that it lacks is null."""
    return [f"c{schema.names.index(name)}" if name in schema.names else "NULL" for name in names]


def columns_then(staged: Staged, held: pa.Schema) -> list[str]:
    """Name the columns of both, those that stand first, and the derived one last."""
    names = dict.fromkeys([*held.names, *staged.schema.names])
    return sorted(names, key=lambda name: name == LOCAL_TIME)


def lay_over(queries: Queries, staged: Staged, held: pa.Schema) -> int:
    """Open the view `<name>_then`, the good rows and the standing ones that stay; give how many stay."""
    name, names = staged.table.name, columns_then(staged, held)
    stood, came = (
        f"(SELECT {', '.join(f'{column} AS c{number}' for number, column in enumerate(chosen(schema, names)))}, place "
        f"FROM {view})"
        for schema, view in ((held, f"{name}_held"), (staged.schema, f"{name}_good"))
    )
    keys = ", ".join(f"c{names.index(key)}" for key in staged.table.key)
    queries.execute(f"CREATE TEMP VIEW {name}_kept AS FROM {stood} ANTI JOIN {came} USING ({keys})")
    queries.execute(f"CREATE TEMP VIEW {name}_then AS FROM {came} UNION ALL FROM {name}_kept")
    ((kept,),) = queries.execute(f"SELECT count(*) FROM {name}_kept").fetchall()
    return int(kept)
