"""A campaign's decisions in columns, by the million: batches straight from their files, and of the log's rows a few.

What is asked for here is what a report needs; features, reasons and draws stay where they are.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.log.entries import Part
from features.log.parts import KEY, intact
from features.log.reading import read_parts
from features.log.rows import decode, open_to_read, select

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

SHARED: Final = ("release_id", "catalogue_id", "decided_at")  # by all decisions of a part
OWN: Final = (
    "decision_id",
    "member_id",
    "outcome",
    "treatment",
    "propensity",
    "value",
    "churn_probability",
    "lifecycle_stage",
)
BY_TREATMENT: Final = ("refusals", "net_value", "probabilities")
NOT_SCORED: Final = "not_scored"  # the refusal of every offer for whom nothing could be said of


@dataclass(frozen=True)
class Block:
    """Hold decisions among the same treatments, money in minor units.

    Attributes
    ----------
    frame
        `OWN`, `SHARED` and the `tier` of the decision's facts
    treatments
        control, then the offers
    refusals
        (n, n_offers) words, empty where the offer was possible
    net_value
        (n, n_offers) what was expected, NaN where nothing was
    probabilities
        (n, 1 + n_offers)
    """

    frame: "pd.DataFrame"
    treatments: tuple[str, ...]
    refusals: NDArray[np.object_]
    net_value: Floats
    probabilities: Floats


def read_blocks(path: Path, campaign_id: str) -> list[Block]:
    """Read a campaign's decisions, those of batches last.

    Raises
    ------
    CorruptError
        If a part of a batch is gone or is not what was written.
    """
    parts = [part for batch, part in read_parts(path) if batch.campaign_id == campaign_id]
    return [*_of_rows(path, campaign_id), *(_of_part(path.parent, part) for part in parts)]


def campaign_ids(path: Path) -> set[str]:
    """Name the campaigns that decisions were taken for."""
    query = "SELECT campaign_id FROM decisions UNION SELECT campaign_id FROM batches"
    with contextlib.closing(open_to_read(path)) as db:
        return {name for (name,) in db.execute(query) if name is not None}


def _of_part(folder: Path, part: Part) -> Block:
    with pq.ParquetFile(intact(folder, part)) as file:
        shared: dict[str, Any] = json.loads(file.schema_arrow.metadata[KEY])
        table = file.read(columns=[*OWN, *BY_TREATMENT, "facts"])
    n, treatments = len(table), tuple(shared["treatments"])
    words = [f.name for f in table.schema if pa.types.is_dictionary(f.type)]
    own = pa.table({name: table[name].cast(pa.string()) if name in words else table[name] for name in OWN})
    frame = own.to_pandas().assign(**{name: shared[name] for name in SHARED})
    facts = table["facts"].combine_chunks()
    known = facts.type.get_field_index("tier") >= 0
    tier = facts.field("tier").to_pandas() if known else None
    frame = frame.assign(decided_at=_times([shared["decided_at"]] * n), tier=tier)
    refusals = table["refusals"].combine_chunks().flatten()
    said = np.array(refusals.dictionary.to_pylist(), dtype=object)[refusals.indices.to_numpy()]
    return Block(
        frame,
        treatments,
        said.reshape(n, len(treatments) - 1),
        _numbers(table["net_value"], len(treatments) - 1),
        _numbers(table["probabilities"], len(treatments)),
    )


def _numbers(lists: pa.ChunkedArray, size: int) -> Floats:
    values = lists.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.float64).reshape(len(lists), size)


def _of_rows(path: Path, campaign_id: str) -> Iterator[Block]:
    """Read the log's own rows; those of one set of treatments are a block."""
    names = (*OWN, *SHARED, "facts", "treatments", *BY_TREATMENT)
    with contextlib.closing(open_to_read(path)) as db:
        rows = _select(db, names, campaign_id)
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row["treatments"]), []).append(row)
    return (_laid(treatments, own) for treatments, own in groups.items())


def _select(db: sqlite3.Connection, names: tuple[str, ...], campaign_id: str) -> list[dict[str, Any]]:
    query = f"{select('decisions', names, where='campaign_id = ?')} ORDER BY decided_at, rowid"
    return [decode(names, row) for row in db.execute(query, (campaign_id,))]


def _laid(treatments: tuple[str, ...], rows: list[dict[str, Any]]) -> Block:
    import pandas as pd

    frame = pd.DataFrame.from_records(rows, columns=[*OWN, *SHARED])
    frame = frame.assign(decided_at=_times(frame["decided_at"]), tier=[row["facts"].get("tier") for row in rows])
    offers = len(treatments) - 1
    # who could not be scored has no entry for an offer, and of its chances perhaps that of control alone
    chances = [[*row["probabilities"], *[0.0] * len(treatments)][: 1 + offers] for row in rows]
    return Block(
        frame,
        treatments,
        np.array([row["refusals"] or [NOT_SCORED] * offers for row in rows], dtype=object).reshape(len(rows), offers),
        np.array([row["net_value"] or [np.nan] * offers for row in rows], dtype=np.float64).reshape(len(rows), offers),
        np.array(chances, dtype=np.float64).reshape(len(rows), 1 + offers),
    )


def _times(values: Any) -> "pd.DatetimeIndex":  # noqa: ANN401 (anything that pandas reads as times)
    import pandas as pd  # the log's other readers and its writer do without

    return pd.DatetimeIndex(pd.to_datetime(values, utc=True)).as_unit("ns")
