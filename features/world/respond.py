"""A closed loop: a world answers a policy's decisions, wave after wave."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from features.errors import ContractError
from features.world.law import WAVE_DAYS, World
from features.world.life import live
from features.world.members import Ints, Members
from features.world.tables import member_ids, wave_tables


@dataclass(frozen=True)
class Answer:
    """Hold how the members took a wave's decisions.

    Attributes
    ----------
    tables
        transactions, events, contacts and redemptions of the wave, to be appended to the company's
    outcome
        (n_decisions,) in their order: margin less redemption cost within the wave, before contact costs, in minor
        units; its expectation is `truth.expected_outcome`
    members
        everybody, as they are after the wave
    """

    tables: dict[str, pa.Table]
    outcome: NDArray[np.int64]
    members: Members


def respond(world: World, members: Members, decisions: pd.DataFrame, *, wave: int, rng: np.random.Generator) -> Answer:
    """Live one wave under decisions; whoever is not among them is not contacted.

    From the same stream two policies meet the same chance: members decided on alike fare alike.

    Parameters
    ----------
    members : as the history, or the answer before, left them; nobody new joins after the history
    decisions : member_id and treatment, a row per member; a `propensity` and a `decision_id` go into the contacts
    wave : the one after the members' last: `world.waves` follows the history

    Raises
    ------
    ContractError
        For an unknown member or treatment, a member twice, or one who has not joined yet.
    """
    who, treated = _read(world, members, decisions, wave)
    treatment = np.zeros(len(members), dtype=np.intp)
    treatment[who] = treated
    lived = live(world, members, treatment, wave=wave, rng=rng)
    tables = wave_tables(world, lived, treatment, who, wave=wave, prefix=f"{wave:02}-r")
    for name in {"propensity", "decision_id"} & set(decisions):
        tables["contacts"] = _with(tables["contacts"], name, decisions[name])
    outcome = np.zeros(len(members), dtype=np.int64)
    for part in lived.purchases:
        np.add.at(outcome, part.who, part.margin)
    np.subtract.at(outcome, lived.redemptions.who, lived.redemptions.value.astype(np.int64))
    return Answer(tables, outcome[who], lived.members)


def _read(world: World, members: Members, decisions: pd.DataFrame, wave: int) -> tuple[Ints, NDArray[np.intp]]:
    missing = sorted({"member_id", "treatment"} - set(decisions))
    if missing:
        raise ContractError(f"decisions lack {missing}; came: {list(decisions)}, wanted: member_id, treatment")
    places = pd.Index(member_ids(members).to_pandas()).get_indexer(pd.Index(decisions["member_id"]))
    treatment = pd.Index(world.treatments).get_indexer(pd.Index(decisions["treatment"]))
    for wrong, reason in (
        (places < 0, "nobody here has that member_id"),
        (treatment < 0, f"the treatment is none of {', '.join(world.treatments)}"),
        (decisions.duplicated("member_id").to_numpy(), "the member came before"),
        (members.joined[places] >= wave * WAVE_DAYS, "the member has not joined yet"),
    ):
        if wrong.any():
            row = decisions[["member_id", "treatment"]].iloc[int(np.argmax(wrong))].tolist()
            raise ContractError(
                f"{int(wrong.sum())} of {len(decisions)} decisions are refused: {reason} (first: {row})"
            )
    return places.astype(np.int64), treatment.astype(np.intp)


def _with(table: pa.Table, name: str, values: pd.Series) -> pa.Table:
    column = pa.array(values)
    place = table.schema.get_field_index(name)
    return table.append_column(name, column) if place < 0 else table.set_column(place, name, column)
