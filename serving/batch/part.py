"""One part of a batch as a table: columns named as the fields of a decision, as `features.log.parts` reads them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.decisions import Batch, Contact, Spending
from features.log.parts import KEY
from features.log.rows import microseconds
from serving.batch.plan import Rows
from serving.decide import Choice, Decider, Members, Worth
from training.constraints import REFUSALS
from training.policy import HELD_OUT, RANDOM

OUTCOMES: Final = ("model", "random", "hold_out", "opt_out")
DIGITS: Final = 10  # of the number in a decision's name
_WORDS: Final = ["outcome", "treatment", "segment", "lifecycle_stage"]
_FOUND_BY: Final = ["decision_id", "member_id"]


@dataclass(frozen=True)
class Decided:
    """Hold the decisions on one part, in columns."""

    rows: Rows
    members: Members
    worth: Worth
    choice: Choice
    draw: NDArray[np.float64]

    def spending(self, decider: Decider, campaign_id: str | None) -> Spending:
        """Sum contacts and expected costs by offer."""
        chosen, k = self.choice.chosen, len(decider.treatments)
        contacts = np.bincount(chosen, minlength=k).tolist()
        spent = np.bincount(chosen, weights=self.choice.spent, minlength=k).astype(np.int64).tolist()
        totals = zip(decider.treatments[1:], contacts[1:], spent[1:], strict=True)
        return {(campaign_id or "", offer_id): (n, money) for offer_id, n, money in totals if n}


def part_table(decided: Decided, decider: Decider, batch: Batch, event_timestamp: str) -> pa.Table:
    """Lay decisions out; what all of them share stands once, in the metadata."""
    members, worth, choice = decided.members, decided.worth, decided.choice
    scored, k = members.scored, len(decider.release.offer_ids)
    silent = None if scored.all() else ~scored
    columns = {
        "decision_id": decision_ids(batch.batch_id, decided.rows.first, len(decided.draw)),
        "member_id": decided.rows.named["member_id"],
        "outcome": _coded(_outcomes(members), OUTCOMES),
        "treatment": _coded(choice.chosen, decider.treatments),
        "propensity": pa.array(np.take_along_axis(choice.probabilities, choice.chosen[:, None], axis=1)[:, 0]),
        "draw": pa.array(decided.draw),
        "probabilities": _lists(pa.array(choice.probabilities.ravel()), 1 + k),
        "refusals": _lists(_coded(choice.refusals.ravel(), REFUSALS), k),
        "churn_probability": pa.array(worth.churn_probability, mask=silent),
        "value": pa.array(_whole(worth.value), mask=silent),
        "uplift": _amounts(worth.uplift, silent),
        "cost": _amounts(worth.cost, silent),
        "net_value": _amounts(choice.net_value, silent),
        "error": pa.array(_of_chosen(worth.error, choice.chosen)),
        "segment": decided.rows.named["segment"],
        "lifecycle_stage": decided.rows.named["lifecycle_stage"],
        "facts": _struct({name: pa.array(values, from_pandas=True) for name, values in members.facts.items()}),
        "features": _bytes(members.X),
    }
    seen = _seen(decider, members, choice)
    shared = _shared(decider, batch) | {"event_timestamp": event_timestamp}
    table = pa.table(columns | ({"standing": _struct(seen)} if seen else {}))
    return table.replace_schema_metadata({KEY: json.dumps(shared | ({} if seen else {"standing": {}}))})


def write_part(path: Path, *, table: pa.Table) -> None:
    """Write a part."""
    pq.write_table(table, path, compression="lz4", use_dictionary=_WORDS, write_statistics=_FOUND_BY)


def contacts_of(decided: Decided, decider: Decider, batch: Batch) -> Iterator[Contact]:
    """Give the contacts that decisions make."""
    sent = np.flatnonzero(decided.choice.chosen)
    members, ids = (
        column.take(pa.array(sent)).to_pylist()
        for column in (
            decided.rows.named["member_id"],
            decision_ids(batch.batch_id, decided.rows.first, len(decided.draw)),
        )
    )
    offers = np.array(decider.treatments, dtype=object)[decided.choice.chosen[sent]].tolist()
    return map(Contact._make, zip(members, repeat(microseconds(batch.decided_at)), ids, offers, strict=False))


def decision_ids(batch_id: str, first: int, n: int) -> pa.Array:
    """Name decisions so that the order of names is the order in which they were drawn.

    >>> decision_ids("b1", 7, 1).to_pylist()
    ['b1-0000000007']
    """
    number = pc.utf8_lpad(pa.array(np.arange(first, first + n)).cast(pa.string()), DIGITS, "0")
    return pc.binary_join_element_wise(pa.scalar(batch_id), number, "-")


def _shared(decider: Decider, batch: Batch) -> dict[str, Any]:
    return {
        "campaign_id": batch.campaign_id,
        "decided_at": batch.decided_at.isoformat(),
        "release_id": batch.release_id,
        "catalogue_id": batch.catalogue_id,
        "treatments": decider.treatments,
        "price": batch.settings["price"],
        "stock_prices": batch.settings["stock_prices"],
        "source": "model",
        "reasons": [],  # they take longer than all the rest; `holdfast decisions show` gives them
        "context": {},
    }


def _outcomes(members: Members) -> NDArray[np.int8]:
    of_arm = np.where(members.arm == HELD_OUT, np.int8(2), np.where(members.arm == RANDOM, np.int8(1), np.int8(0)))
    return np.where(members.opted_out, np.int8(3), of_arm)


def _seen(decider: Decider, members: Members, choice: Choice) -> dict[str, pa.Array]:
    """Give what caps, budget and stock saw: only what limits something, null for what is infinite."""
    standing, k = members.standing, len(decider.release.offer_ids)
    seen: dict[str, pa.Array] = {}
    if decider.constraints.longest_days:
        seen["since_offer"] = _lists(_finite(standing.since_offer.ravel()), k)
        seen["since_any"] = _finite(standing.since_any)
        seen["in_period"] = pa.array(standing.in_period)
    if np.isfinite(choice.budget).any():
        seen["budget"] = pa.array(choice.budget)
    if decider.constraints.stock:
        seen["stock"] = _lists(_finite(choice.stock.ravel()), k)
    return seen


def _finite(numbers: NDArray[np.float64]) -> pa.Array:
    return pa.array(numbers, mask=np.isinf(numbers))


def _of_chosen(by_offer: NDArray[np.float64], chosen: NDArray[np.intp]) -> NDArray[np.float64]:
    """Take the standard error of what was sent, 0 where nothing was, `(n,)`."""
    taken = np.take_along_axis(by_offer, np.maximum(chosen - 1, 0)[:, None], axis=1)[:, 0]
    return np.where(chosen > 0, taken, 0.0)


def _whole(money: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(money).astype(np.int64)


def _coded(codes: NDArray[Any], words: tuple[str, ...]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int8)), pa.array(words))


def _lists(values: pa.Array, size: int) -> pa.Array:
    """Cut values into lists of one size."""
    return pa.FixedSizeListArray.from_arrays(values, size)


def _amounts(money: NDArray[np.float64], silent: NDArray[np.bool_] | None) -> pa.Array:
    """Give whole minor units by offer; of who opted out each is null, as Arrow can't read a list that is."""
    missing = None if silent is None else np.repeat(silent, money.shape[1])
    return _lists(pa.array(_whole(money).ravel(), mask=missing), money.shape[1])


def _struct(columns: dict[str, pa.Array]) -> pa.StructArray:
    return pa.StructArray.from_arrays(list(columns.values()), names=list(columns))


def _bytes(X: NDArray[np.float32]) -> pa.Array:
    """Give each row's numbers as bytes, without a copy."""
    little = np.ascontiguousarray(X, dtype="<f4")
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(little.shape[1] * 4), len(X), [None, pa.py_buffer(little)])
