"""One batch: its rows judged together, in queries that need not fit into memory, and written in order."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection as Queries

from features.intake.checks import GUEST, too_many
from features.intake.held import columns_then, lay_over
from features.intake.parts import BYTES, ROWS
from features.intake.shifts import Profile, Shift, profile, refusals, renamed_rows, shifts
from features.intake.staged import Staged, happened
from features.schema import TABLES
from features.warehouse import Warehouse, order_tables

NAMED: Final = 5  # rows with the same fault
CHUNK: Final = 2**12  # rows: of them the parts of a file are gathered


@dataclass(frozen=True)
class Verdict:
    """Say what became of one table: its good rows are the view `<name>_good`, the bad ones the table `<name>_bad`.

    The view `<name>_then` is what the warehouse would hold.
    """

    staged: Staged
    held: pa.Schema  # of the table that it adds to
    kept: int  # rows of that table that stay
    reasons: tuple[tuple[str, int], ...]  # of its bad rows, the most frequent first

    @property
    def bad(self) -> int:
        """How many rows are refused, guests' among them."""
        return sum(count for _, count in self.reasons)

    @property
    def good(self) -> int:
        """How many rows the warehouse would get."""
        return self.staged.rows - self.bad

    @property
    def rows(self) -> int:
        """How many rows the warehouse would hold."""
        return self.good + self.kept


@dataclass(frozen=True)
class Judged:
    """Hold what a batch would bring, and why it is refused, if it is."""

    verdicts: dict[str, Verdict]
    refused: tuple[Shift, ...]


def judge(
    queries: Queries,
    tables: Mapping[str, Staged],
    *,
    held: Mapping[str, pa.Schema],
    standing: Warehouse | None,
    allow: frozenset[str],
) -> Judged:
    """Find rows that came before and rows of no member, then how far the batch is from what the warehouse holds.

    Parameters
    ----------
    held : the tables that it adds to; one that comes without rows adds nothing
    standing : what it is compared with
    """
    verdicts = {}
    queries.execute("CREATE TEMP TABLE members_known AS SELECT member_id FROM members_stand")
    came = {name for name, staged in tables.items() if staged.rows or not held[name].names}
    for name in order_tables(came):  # members come first: a row of a refused member is refused too
        queries.read_parquet(str(tables[name].path)).create_view(f"{name}_came")
        _find_again(queries, tables[name])
        _find_bad(queries, tables[name])
        verdicts[name] = _verdict(queries, tables[name], held[name])
    found = [
        Shift("bad-rows", text)
        for name, verdict in verdicts.items()
        for text in too_many(name, verdict.staged.rows, [fault for fault in verdict.reasons if fault[0] != GUEST])
    ]
    if standing:
        now = {name: _profile(queries, verdict.staged) for name, verdict in verdicts.items()}
        before = {name: _standing_profile(queries, standing, name) for name in standing.tables}
        found += shifts(now, before) + renamed_rows(now, {name: before[name] for name in before if held[name].names})
    return Judged(verdicts, refusals(found, allow))


def refusal(judged: Judged) -> str:
    """Say why a batch is refused, and how to say that it is meant."""
    said = f"the batch was refused, nothing changed: {'; '.join(map(str, judged.refused))}"
    needed = sorted({shift.allowance for shift in judged.refused if shift.allowance})
    if any(shift.allowance is None for shift in judged.refused):
        return f"{said}; mend that"
    return f"{said}; if it is right as it came, type --allow {','.join(needed)}"


def write_rows(queries: Queries, verdict: Verdict, path: Path) -> None:
    """Write a table's rows, by member, time and key, those that share them as they came."""
    table, names = verdict.staged.table, columns_then(verdict.staged, verdict.held)
    by = dict.fromkeys(("member_id", happened(table) or "member_id", *table.key))
    order = [*(f"c{names.index(name)}" for name in by if name in names), "place"]
    rows = queries.sql(f"FROM {table.name}_then ORDER BY {', '.join(order)}").to_arrow_reader(CHUNK)
    schema = _schema(names, rows.schema, verdict)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _row_groups(rows):
            writer.write_table(group.drop_columns("place").rename_columns(names).cast(schema))


def _schema(names: Sequence[str], came: pa.Schema, verdict: Verdict) -> pa.Schema:
    """Give each column the type that it has, or where two differ the one that holds both."""
    types = []
    for name, both in zip(names, came.types, strict=False):  # the last is `place`
        known = {schema.field(name).type for schema in (verdict.held, verdict.staged.schema) if name in schema.names}
        types.append(known.pop() if len(known) == 1 else both)
    return pa.schema(list(zip(names, types, strict=True)))


def _row_groups(rows: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Gather rows by their size alone: equal rows make an equal file, wherever they came from."""
    gathered, count, size = [], 0, 0
    for batch in rows:
        gathered.append(batch)
        count, size = count + batch.num_rows, size + batch.nbytes
        if count >= ROWS or size >= BYTES:
            yield pa.Table.from_batches(gathered).combine_chunks()
            gathered, count, size = [], 0, 0
    if gathered:
        yield pa.Table.from_batches(gathered).combine_chunks()


def first_seen(queries: Queries, transactions: Staged, path: Path) -> int:
    """Write when each new member's first row of transactions was, as `member_id` and `joined_at`; give how many."""
    member, time = transactions.columns("member_id", "occurred_at")
    rows = queries.read_parquet(str(transactions.path)).filter(f"{member} IS NOT NULL AND {time} IS NOT NULL")
    first = rows.aggregate(f"{member} AS member_id, min({time}) AS joined_at")
    new = first.join(queries.view("members_stand"), "member_id", how="anti").order("member_id")
    new.write_parquet(str(path))
    return int(pq.read_metadata(path).num_rows)


def _find_again(queries: Queries, staged: Staged) -> None:
    """Find rows whose id came before, `again` times: (place, again)."""
    name, keys = staged.table.name, ", ".join(staged.columns(*staged.keys))
    query = f"SELECT place, row_number() OVER (PARTITION BY {keys} ORDER BY place) - 1 AS again FROM {name}_came "
    query += (
        f"SEMI JOIN (SELECT {keys} FROM {name}_came GROUP BY ALL HAVING count(*) > 1) USING ({keys}) QUALIFY again > 0"
    )
    none = "SELECT 0::BIGINT AS place, 0 AS again WHERE false"
    queries.execute(f"CREATE TEMP TABLE {name}_again AS {query if keys else none}")


def _find_bad(queries: Queries, staged: Staged) -> None:
    """Gather the bad rows with every reason they have: (place, reason); the others are good."""
    name = staged.table.name
    found = [f"SELECT place, 0 AS rank, reason FROM {name}_came WHERE reason IS NOT NULL"]
    if not staged.made_ids:
        found.append(f"SELECT place, 1, '{', '.join(staged.keys)} came before' FROM {name}_again")
    if name != "members" and "member_id" in staged.table.known:
        (member,) = staged.columns("member_id")
        strangers = f"{name}_came ANTI JOIN members_known ON {member} = member_id WHERE {member} IS NOT NULL"
        found.append(f"SELECT place, 2, 'member_id is not in members' FROM {strangers}")
    bad = f"SELECT place, string_agg(reason, '; ' ORDER BY rank) AS reason FROM ({' UNION ALL '.join(found)})"
    queries.execute(f"CREATE TEMP TABLE {name}_bad AS {bad} GROUP BY place")
    queries.execute(f"CREATE TEMP VIEW {name}_good AS FROM ({_rows(staged)}) ANTI JOIN {name}_bad USING (place)")
    if name == "members":
        (member,) = staged.columns("member_id")
        queries.execute(f"INSERT INTO members_known SELECT {member} FROM members_good")


def _rows(staged: Staged) -> str:
    """Give every row; of equal rows whose id was made from them the second's id ends in `-1`, so that none is lost."""
    name = staged.table.name
    if not staged.made_ids:
        return f"FROM {name}_came"
    (own,) = staged.columns(*staged.keys)
    named = f"{own} || coalesce('-' || again, '') AS {own}"
    return f"SELECT * EXCLUDE (again) REPLACE ({named}) FROM {name}_came LEFT JOIN {name}_again USING (place)"


def _verdict(queries: Queries, staged: Staged, held: pa.Schema) -> Verdict:
    name = staged.table.name
    said, bad = "reason", f"{name}_bad"
    if staged.table.whole:  # there, each row counts
        (own,) = staged.columns(*staged.table.unique)
        some = f"array_to_string(list(who ORDER BY place)[:{NAMED}], ', ')"
        said = f"{some} || if(count(*) > {NAMED}, ' ...', '') || ': ' || reason"
        who = f"place, coalesce({own}, 'row ' || place) AS who, bad.reason"
        bad = f"(SELECT {who} FROM {name}_bad AS bad JOIN {name}_came USING (place))"
    counts = f"SELECT {said}, count(*) FROM {bad} GROUP BY reason ORDER BY 2 DESC, 1"
    reasons = tuple((str(reason), int(rows)) for reason, rows in queries.execute(counts).fetchall())
    return Verdict(staged, held, lay_over(queries, staged, held), reasons)


def _profile(queries: Queries, staged: Staged) -> Profile:
    columns = dict(zip(staged.schema.names, staged.columns(*staged.schema.names), strict=True))
    return profile(queries.view(f"{staged.table.name}_good"), staged.table, staged.schema, columns)


def _standing_profile(queries: Queries, standing: Warehouse, name: str) -> Profile:
    path = standing.home.warehouse / standing.tables[name].file
    schema = pq.read_schema(path)
    return profile(queries.read_parquet(str(path)), TABLES[name], schema, {c: f'"{c}"' for c in schema.names})
