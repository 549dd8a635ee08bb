"""The online store: every vector as it is packed, those among them that are newer than the last snapshot."""

from collections.abc import Iterator
from typing import Any, Final

from features.definitions import VIEW
from features.engine import Engine
from features.home import Home
from features.migration.move import Move, Part
from features.migration.tally import Compared, Tally, tally
from features.sheet import Progress
from features.stores.online import open_table
from features.stores.packed import PackedTable, Row, repacked

_PATIENCE_MS: Final = 5_000  # nobody waits for a decision here


def check(move: Move) -> int:
    """Count members that only the target has a vector of."""
    source, target = _table(move.home, move.source), _table(move.home, move.target)
    return sum(len(ids) - len(source.rows(VIEW, ids)) for ids in target.members(VIEW))


def copy(move: Move, progress: Progress) -> None:
    """Write every vector; a newer one that stands there already is left as it is."""
    source, target = _table(move.home, move.source), _table(move.home, move.target)
    size, done = sum(map(len, source.members(VIEW))), 0
    for ids in source.members(VIEW):
        for schema, batch in repacked(source.rows(VIEW, ids)):
            target.write(VIEW, schema, [batch])
        done += len(ids)
        progress("vectors of members", done, size)


def compare(move: Move) -> list[Compared]:
    """Hold the vectors here against those there."""
    return [Compared("online", _tally(move.home, move.source), _tally(move.home, move.target))]


ONLINE = Part("online", check, copy, compare)


def _tally(home: Home, engine: Engine) -> Tally:
    return tally(_rows(_table(home, engine)))


def _rows(table: PackedTable) -> Iterator[tuple[Any, ...]]:
    for ids in table.members(VIEW):
        yield from (tuple(Row(*row)) for _, row in table.rows(VIEW, ids))


def _table(home: Home, engine: Engine) -> PackedTable:
    return open_table(engine.model_copy(update={"online_timeout_ms": _PATIENCE_MS}), home.online)
