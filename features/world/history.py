"""A world's history under random treatments, in chunks of members: any size in bounded memory.

Members are drawn in blocks, each from its own stream, so that a chunk is only how many blocks come at once.
"""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.errors import ContractError
from features.world.law import WAVE_DAYS, World
from features.world.life import live
from features.world.members import Ints, Members, draw_members, together
from features.world.tables import members_table, offers_table, subscriptions_table, wave_tables
from features.world.truth import truth_frame

BLOCK: Final = 10_000  # members drawn from one stream; another number is another world
TRUTH: Final = "truth.parquet"  # no table of the contract: `ingest` leaves it alone


@dataclass(frozen=True)
class Chunk:
    """Hold some members at the end of the history: their tables as a company has them, and the members themselves."""

    tables: dict[str, pa.Table]
    members: Members


def history(world: World, rng: np.random.Generator) -> Chunk:
    """Live a whole world in memory; its tables are those of the contract, without subscriptions in retail."""
    return next(chunks(world, rng, members=world.members))


def chunks(world: World, rng: np.random.Generator, *, members: int) -> Iterator[Chunk]:
    """Live a world, about so many members at a time: whole blocks, at least one. The offers come with the first."""
    if members < 1:
        raise ContractError(f"chunks of {members} members came; wanted at least 1")
    firsts = iter(range(0, world.members, BLOCK))
    offers = {"offers": offers_table(world)}
    while group := list(itertools.islice(firsts, -(-members // BLOCK))):
        parts = [_block(world, first, rng.spawn(1)[0]) for first in group]
        tables = {name: pa.concat_tables(part.tables[name] for part in parts) for name in parts[0].tables}
        yield Chunk(tables | offers, together([part.members for part in parts]))
        offers = {}


def write_history(world: World, folder: Path, rng: np.random.Generator) -> Path:
    """Write a world's tables as `<table>.parquet`, for `holdfast ingest FOLDER`; give where its truth was written.

    The truth is that of the wave after the history. A run that is broken off leaves no file of the contract's names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Path] = {}
    with ExitStack() as stack:
        writers: dict[str, pq.ParquetWriter] = {}
        for chunk in chunks(world, rng, members=BLOCK):
            truth = pa.Table.from_pandas(truth_frame(world, chunk.members, world.waves), preserve_index=False)
            for name, table in {**chunk.tables, "truth": truth}.items():
                if name not in writers:
                    parts[name] = folder / f".{name}.part"
                    writers[name] = stack.enter_context(pq.ParquetWriter(parts[name], table.schema))
                writers[name].write_table(table)
    for name, path in parts.items():
        path.replace(folder / f"{name}.parquet")
    return folder / TRUTH


def _block(world: World, first: int, rng: np.random.Generator) -> Chunk:
    drawing, *waves = rng.spawn(1 + world.waves)
    members = draw_members(world, first, min(BLOCK, world.members - first), drawing)
    lived: list[dict[str, pa.Table]] = []
    for wave, stream in enumerate(waves):
        choosing, living = stream.spawn(2)
        treatment, contacted = _campaign(world, members, wave, choosing)
        after = live(world, members, treatment, wave=wave, rng=living)
        prefix = f"{wave:02}-{first // BLOCK}"
        lived.append(wave_tables(world, after, treatment, contacted, wave=wave, prefix=prefix))
        members = after.members
    tables = {"members": members_table(world, members)}
    if world.shape != "retail":
        tables["subscriptions"] = subscriptions_table(world, members, until=world.days)
    return Chunk(tables | {name: pa.concat_tables(wave[name] for wave in lived) for name in lived[0]}, members)


def _campaign(world: World, members: Members, wave: int, rng: np.random.Generator) -> tuple[NDArray[np.intp], Ints]:
    """Draw a wave's treatments, equally likely whoever the member is; give them, and the places of who is in it.

    The company doesn't know who has left: they are contacted as well. Whoever opted out is not.
    """
    asked = rng.random(len(members)) < world.audience
    drawn = rng.integers(0, len(world.treatments), len(members))
    known = (members.joined < wave * WAVE_DAYS) & members.personalisation & (wave >= world.first_campaign)
    return np.where(asked & known, drawn, 0), np.flatnonzero(asked & known)
