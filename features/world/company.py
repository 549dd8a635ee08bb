"""A synthetic company in memory: its tables as waves are added, and its members' features by the product's own code."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from features.as_of.computing import Computed, in_session
from features.definitions import MODEL_FEATURES
from features.programme import Programme
from features.warehouse import LOCAL_TIME, quietly
from features.world.law import WAVE_DAYS, World
from features.world.members import TRAITS, Members
from features.world.respond import Answer
from features.world.tables import subscriptions_table

Matrix = NDArray[np.float32]

TIMES: Final = ("occurred_at", "contacted_at", "started_at", "joined_at")


def world_programme(world: World) -> Programme:
    """Give the settings under which a world's features are computed; its days are those of UTC."""
    churn = "contract" if world.shape == "subscription" else "lapse"
    return Programme(tracked_offers=tuple(offer.offer_id for offer in world.offers[:3]), churn=churn)


@dataclass(frozen=True)
class Company:
    """Hold a company's tables in a DuckDB of its own; the parts of a table are shared, not copied."""

    world: World
    tables: dict[str, pa.Table]
    backend: Any
    computed: Computed
    shown: pd.DataFrame  # by member_id, traits; none where the world does not let them be observed

    def after(self, answer: Answer, wave: int) -> "Company":
        """Add what a wave brought; who renewed and who cancelled is known by its end."""
        grown = {name: pa.concat_tables([self.tables[name], part]) for name, part in _dated(answer.tables).items()}
        if "subscriptions" in self.tables:
            terms = subscriptions_table(self.world, answer.members, until=(wave + 1) * WAVE_DAYS)
            grown |= _dated({"subscriptions": terms})
        return replace(self, tables=self.tables | grown)

    def features(self, wave: int) -> pd.DataFrame:
        """Compute what models read when a wave starts: by member_id, a row for everybody who had joined.

        Traits that can be observed stand after the product's own features.
        """
        known = self._known(wave).select(["member_id", *MODEL_FEATURES])
        frame: pd.DataFrame = known.to_pandas().set_index("member_id")
        return frame.astype(np.float32).join(self.shown)

    def snapshot(self, wave: int) -> pd.DataFrame:
        """Compute all that is known when a wave starts, words for people too: a row for everybody who had joined."""
        frame: pd.DataFrame = self._known(wave).drop_columns("created_timestamp").to_pandas()
        return frame.rename(columns={"event_timestamp": "as_of"})

    def _known(self, wave: int) -> pa.Table:
        for name, table in self.tables.items():
            self.backend.con.register(name, table)
        with quietly():
            return self.computed(self.world.as_of(wave)).to_arrow_table()


def found_company(world: World, tables: Mapping[str, pa.Table]) -> Company:
    """Open a company on the tables of a world's history."""
    seen = _dated({name: table for name, table in tables.items() if name != "offers"})
    backend = ibis.duckdb.connect()
    backend.con.execute("SET TimeZone = 'UTC'")
    with quietly():
        for name, table in seen.items():
            backend.con.register(name, table)
        expressions = {name: backend.table(name) for name in seen}
        computed = in_session(backend.con, expressions, world_programme(world))
    names = ["member_id", *(TRAITS if world.observable else ())]
    shown: pd.DataFrame = seen["members"].select(names).to_pandas().set_index("member_id")
    return Company(world, seen, backend, computed, shown.astype(np.float32))


def joined(members: Members, wave: int) -> NDArray[np.intp]:
    """Give the places of those who had joined when a wave starts: the rows of `Company.features`, in their order."""
    return np.flatnonzero(members.joined < wave * WAVE_DAYS)


def _dated(tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Add the programme's wall clock, which here is that of UTC."""
    return {name: _with_local_time(table) for name, table in tables.items()}


def _with_local_time(table: pa.Table) -> pa.Table:
    time = next(name for name in TIMES if name in table.column_names)
    return table.append_column(LOCAL_TIME, table[time].cast(pa.timestamp("us")))
