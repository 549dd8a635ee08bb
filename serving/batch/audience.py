"""Whom a batch is about: a file of ids, a segment or stage by its name, a rule, or everybody who is active."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.errors import ContractError, NotFoundError
from features.files import fingerprint
from features.intake.mapping import TableMapping
from features.intake.parts import file_parts
from features.intake.values import NUMBERS, read_ids
from features.population import Population, facts
from features.programme import Programme
from features.rules import known_facts, parse_rule

FILES: Final = frozenset({".csv", ".parquet", ".tsv", ".txt"})
NAMED: Final = ("segment", "lifecycle_stage", "tier")  # the features whose words are names of audiences
NOTHING: Final = pa.table(
    {"row": pa.array([], pa.int64()), "member_id": pa.array([], pa.string()), "reason": pa.array([], pa.string())}
)
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Audience:
    """Hold who is decided on, and which rows of a file were not."""

    asked: str  # in words
    identity: str  # changes whenever the request does
    by: str | pa.Array  # a rule that holds for them, or their ids
    refused: pa.Table  # of a file: row (of the file, 1 is the first below the header), member_id, reason

    def chosen(self, population: Population, part: int) -> Flags:
        """Say who of a part is of it, in the part's order."""
        if not isinstance(self.by, str):
            return np.asarray(pc.is_in(population.read(["member_id"], part)["member_id"], value_set=self.by))
        rule = parse_rule(self.by, known_facts())
        names = sorted(rule.names)
        return rule.holds(facts(population.read(names, part), names))


def find_audience(population: Population, asked: str | None, programme: Programme) -> Audience:
    """Resolve what was asked for.

    Raises
    ------
    NotFoundError, ContractError
        For a file that is not there or has no `member_id`, a name nobody has, a rule that does not parse.
    """
    if asked is not None and Path(asked).suffix.lower() in FILES:
        return _of_file(population, Path(asked))
    rule = active_rule(programme) if asked is None else _rule(population, asked)
    parse_rule(rule, known_facts())
    words = "everybody who is active" if asked is None else asked
    return Audience(words, fingerprint(rule), rule, NOTHING)


def active_rule(programme: Programme) -> str:
    """Say who is scored: who bought lately, or has a subscription that runs."""
    if programme.churn == "contract":
        return "subscription_days_to_end > 0"
    return f"recency_days <= {programme.activity_days}"


def _rule(population: Population, asked: str) -> str:
    """Take a lone word for the name of a segment, a stage or a tier, anything else for a rule."""
    if not asked.isidentifier():
        return asked
    parts = [population.read(NAMED, part) for part in range(len(population.sizes))]
    known = {word: name for part in parts for name in NAMED for word in part[name].unique().drop_null().to_pylist()}
    if asked not in known:
        raise ContractError(
            f"nobody is {asked!r}: {', '.join(sorted(known))} were wanted, or a file, or a rule such as "
            f"'recency_days > 60 and tier == \"gold\"'"
        )
    return f"{known[asked]} == '{asked}'"


def _of_file(population: Population, path: Path) -> Audience:
    if not path.exists():
        raise NotFoundError(f"there is no file {path}; --audience takes a CSV or Parquet file with a column member_id")
    ids = _ids(path)
    known, coded = _known(population, ids), ids.dictionary_encode().indices.fill_null(-1).to_numpy()
    first = np.zeros(len(ids), dtype=np.bool_)
    first[np.unique(coded, return_index=True)[1]] = True
    stranger = f"nobody of this id had joined by {population.as_of:%Y-%m-%d %H:%M} UTC"
    wrong = pc.make_struct(ids.is_null(), pa.array(~known), pa.array(~first))
    reason = pc.case_when(wrong, "there is no member_id", stranger, "it came before", pa.scalar(None, pa.string()))
    rows = pa.table({"row": np.arange(1, len(ids) + 1), "member_id": ids, "reason": reason})
    if not known.any():
        raise ContractError(
            f"no member of {path} is known of {len(ids):,} that came; member_id as `members` has it was wanted"
        )
    return Audience(path.name, fingerprint(path), ids.drop_null().unique(), rows.filter(rows["reason"].is_valid()))


def _known(population: Population, ids: pa.Array) -> Flags:
    """Say which ids are somebody's in the snapshot."""
    known = np.zeros(len(ids), dtype=np.bool_)
    for part in range(len(population.sizes)):
        known |= pc.is_in(ids, value_set=population.read(["member_id"], part)["member_id"]).to_numpy(
            zero_copy_only=False
        )
    return known


def _ids(path: Path) -> pa.Array:
    first, *parts = file_parts(path, TableMapping())()
    if "member_id" not in first.schema.names:
        raise ContractError(f"{path} has the columns {', '.join(first.schema.names)}; member_id was wanted")
    came = [read_ids(part.column("member_id").to_pandas(types_mapper=NUMBERS.get)) for part in parts]
    return pa.concat_arrays([pa.array([], pa.string()), *(pa.array(ids.array, pa.string()) for ids in came)])
