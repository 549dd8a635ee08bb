"""The reference: what the champion learned from, kept as a summary and a sample, so that nobody's rows are needed.

Of every column it is the distribution, over all rows; of up to 10,000 members, who stand under numbers instead of ids,
the bin of each value in each week, from which chance is measured; and 5,000 rows without ids, for Evidently's report.
"""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import CorruptError
from features.files import write_folder_whole
from features.saying import Saying
from monitoring.distances import Bins, Codes, Ints, NumberBins, number_bins, word_bins
from monitoring.distributions import Numbers, Words, numbers_of, words_of
from monitoring.verdict import Finding
from monitoring.windows import Kind, codes_of, columns_of, faults, floats, infinite, kind_of

MOST_MEMBERS: Final = 10_000  # more are sampled down to so many: thresholds then err to the quiet side
SHOWN_ROWS: Final = 5_000
THREADS: Final = 2  # sorting lets go of the interpreter; more threads would hold more columns at once
_FILES: Final = ("reference.json", "distributions.parquet", "sample.parquet", "shown.parquet")

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Reference:
    """Hold what a current window is compared with."""

    kinds: dict[str, Kind]  # of every column, in order
    faults: tuple[Finding, ...]  # what is wrong with the reference itself
    distributions: dict[str, Numbers | Words]  # of the columns that can be judged
    money: frozenset[str]
    ageing: frozenset[str]
    rows: int
    members: int
    member: Ints  # (n_sampled,) 0 … n_members - 1
    snapshot: Ints  # (n_sampled,) 0 … n_snapshots - 1, in order of time
    codes: dict[str, Codes]  # (n_sampled,) each
    shown: pd.DataFrame  # rows for Evidently's report, without ids

    def bins(self, columns: Sequence[str]) -> list[Bins]:
        """Give what measures columns, numbers first."""
        found = [_bins(name, self.distributions[name], money=name in self.money) for name in columns]
        return sorted(found, key=lambda column: "wasserstein" not in column.tests)


def summarise(
    frame: pd.DataFrame, *, money: Collection[str], rng: np.random.Generator, ageing: Collection[str] = ()
) -> Reference:
    """Summarise a window as a reference.

    Columns in `money` are in minor units and compared on a logarithmic scale; columns in `ageing` grow with time and
    are not judged.
    """
    whole = faults("reference", frame)
    kinds = {} if whole else {name: kind_of(frame[name]) for name in columns_of(frame)}
    numbers = [infinite("reference", frame[name]) for name, kind in kinds.items() if kind == "number"]
    wrong = [found for found in numbers if found]
    judged = [name for name, kind in kinds.items() if kind in {"number", "text"}]
    judged = [name for name in judged if name not in {found.column for found in wrong} | {*ageing}]
    every = {} if whole else distributions(frame, judged, kinds)
    kept = {name: found.thinned() if isinstance(found, Numbers) else found for name, found in every.items()}
    member = codes_of(frame, "member_id")
    rows = _sampled(member, rng)
    coded = partial(_coded, frame, kept, frozenset(money), rows)
    codes = dict(zip(judged, side_by_side(coded, judged), strict=True))
    shown = np.sort(rng.choice(len(frame), size=min(len(frame), SHOWN_ROWS), replace=False))
    return Reference(
        kinds=kinds,
        faults=(*whole, *wrong),
        distributions=kept,
        money=frozenset(money),
        ageing=frozenset(ageing),
        rows=len(frame),
        members=int(member.max()) + 1 if len(member) else 0,
        member=np.unique(member[rows], return_inverse=True)[1],
        snapshot=codes_of(frame, "as_of")[rows],
        codes=codes,
        shown=frame[judged].iloc[shown].reset_index(drop=True) if judged else pd.DataFrame(),
    )


def distributions(frame: pd.DataFrame, columns: Sequence[str], kinds: dict[str, Kind]) -> dict[str, Numbers | Words]:
    """Find how the values of columns are distributed, over all rows."""
    count = partial(_distribution, frame, kinds)
    return dict(zip(columns, side_by_side(count, columns), strict=True))


def side_by_side(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Work on columns, a few at a time."""
    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(work, items))


def write_reference(folder: Path, reference: Reference) -> None:
    """Write a reference into a folder, whole or not at all."""
    write_folder_whole(folder, partial(_fill, reference=reference))


def read_reference(folder: Path) -> Reference:
    """Read what `write_reference` wrote.

    Raises
    ------
    CorruptError
        If it is not that.
    """
    try:
        told = json.loads((folder / _FILES[0]).read_bytes())
        tables = [pq.read_table(folder / name) for name in _FILES[1:]]
        return _read(told, tables[0], tables[1], tables[2].to_pandas())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptError(f"{folder} holds no reference ({error}); delete it, and it is made anew") from error


def _bins(name: str, distribution: Numbers | Words, *, money: bool) -> Bins:
    if isinstance(distribution, Words):
        return word_bins(name, distribution)
    return number_bins(name, distribution, money=money)


def _distribution(frame: pd.DataFrame, kinds: dict[str, Kind], column: str) -> Numbers | Words:
    return numbers_of(floats(frame[column])) if kinds[column] == "number" else words_of(frame[column])


def _coded(
    frame: pd.DataFrame, found: dict[str, Numbers | Words], money: frozenset[str], rows: Ints, column: str
) -> Codes:
    bins = _bins(column, found[column], money=column in money)
    if isinstance(bins, NumberBins):
        return bins.codes(floats(frame[column])[rows])
    return bins.codes(frame[column].iloc[rows])


def _sampled(member: Ints, rng: np.random.Generator) -> Ints:
    """Choose rows: all those of up to so many members, drawn at random."""
    members = int(member.max()) + 1 if len(member) else 0
    if members <= MOST_MEMBERS:
        return np.arange(len(member))
    drawn = np.zeros(members, dtype=np.bool_)
    drawn[rng.choice(members, MOST_MEMBERS, replace=False)] = True
    return np.flatnonzero(drawn[member])


def _fill(folder: Path, *, reference: Reference) -> None:
    told = {
        "kinds": reference.kinds,
        "faults": [asdict(fault) for fault in reference.faults],
        "money": sorted(reference.money),
        "ageing": sorted(reference.ageing),
        "rows": reference.rows,
        "members": reference.members,
        "missing": {name: found.missing for name, found in reference.distributions.items()},
    }
    (folder / _FILES[0]).write_text(json.dumps(told, allow_nan=False), encoding="utf-8")
    values = [_rows_of(name, found) for name, found in reference.distributions.items()]
    pq.write_table(pa.concat_tables(values) if values else _ROWS.empty_table(), folder / _FILES[1])
    sample = {"member": reference.member, "snapshot": reference.snapshot}
    coded = {f"code.{name}": codes for name, codes in reference.codes.items()}
    pq.write_table(pa.table(sample | coded), folder / _FILES[2])
    pq.write_table(pa.Table.from_pandas(reference.shown, preserve_index=False), folder / _FILES[3])


_ROWS: Final = pa.schema(
    [("column", pa.string()), ("number", pa.float64()), ("word", pa.string()), ("rows", pa.int64())]
)


def _rows_of(name: str, found: Numbers | Words) -> pa.Table:
    n = len(found.counts)
    numbers = found.points if isinstance(found, Numbers) else pa.nulls(n, pa.float64())
    words = list(found.words) if isinstance(found, Words) else pa.nulls(n, pa.string())
    return pa.table([pa.array([name] * n, pa.string()), numbers, words, found.counts], schema=_ROWS)


def _read(told: dict[str, Any], values: pa.Table, sample: pa.Table, shown: pd.DataFrame) -> Reference:
    of = values.to_pandas().groupby("column", sort=False)
    found: dict[str, Numbers | Words] = {}
    for name, missing in told["missing"].items():
        rows = of.get_group(name)
        counts = rows["rows"].to_numpy(dtype=np.int64)
        if told["kinds"][name] == "number":
            found[name] = Numbers(rows["number"].to_numpy(), np.cumsum(counts), missing)
        else:
            found[name] = Words(tuple(rows["word"]), counts, missing)
    return Reference(
        kinds=told["kinds"],
        faults=tuple(Finding(**fault | {"said": Saying.read(fault["said"])}) for fault in told["faults"]),
        distributions=found,
        money=frozenset(told["money"]),
        ageing=frozenset(told["ageing"]),
        rows=told["rows"],
        members=told["members"],
        member=sample["member"].to_numpy(),
        snapshot=sample["snapshot"].to_numpy(),
        codes={name: sample[f"code.{name}"].to_numpy() for name in found},
        shown=shown,
    )
