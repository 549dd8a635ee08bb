"""Rows of members who were erased: left out before anything is judged, counted, and kept nowhere, nor their ids."""

from dataclasses import replace
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection as Queries

from features.intake.conform import Notes
from features.intake.staged import Staged
from features.privacy.consent import Consent
from features.privacy.rows import MEMBER

ASKED: Final = 100_000  # ids at once
NOTE: Final = "rows of {table} were left out, {{:,}}: their members were erased"


def leave_out(queries: Queries, staged: dict[str, Staged], consent: Consent, notes: Notes) -> dict[str, Staged]:
    """Take the rows of members with a tombstone out of every table that is on its way in."""
    return {name: _leave_out(queries, table, consent, notes) for name, table in staged.items()}


def _leave_out(queries: Queries, staged: Staged, consent: Consent, notes: Notes) -> Staged:
    if MEMBER not in staged.schema.names:
        return staged
    (member,) = staged.columns(MEMBER)
    rows = queries.read_parquet(str(staged.path))
    gone: list[str] = []
    for part in rows.aggregate(member).to_arrow_reader(ASKED):
        ids = [one for one in part.column(0).to_pylist() if one is not None]
        gone += [one for one, erased in zip(ids, consent.erased(ids), strict=True) if erased]
    if not gone:
        return staged
    path = staged.path.with_suffix(".kept.parquet")
    queries.register("erased_members", pa.table({"erased": pa.array(gone, pa.string())}))
    rows.join(queries.view("erased_members"), f"{member} = erased", how="anti").order("place").write_parquet(str(path))
    queries.unregister("erased_members")
    kept = pq.read_metadata(path).num_rows
    notes[NOTE.format(table=staged.table.name)] += staged.rows - kept
    staged.path.unlink()
    return replace(staged, path=path, rows=kept)
