"""Feast's definitions: each as it stands, and until when the view is materialised."""

from collections.abc import Iterator
from typing import Any

from features.engine import Engine
from features.migration.move import Move, Part
from features.migration.tally import Compared, tally
from features.sheet import Progress
from features.store import PROJECT, Store, open_store
from features.stores.postgres import tables_exist

Entry = tuple[str, str, bytes, list[Any]]  # kind, name, what it says, until when it is materialised


def check(move: Move) -> int:
    """Count definitions of other names than the source's."""
    held = {entry[:2] for entry in _entries(move, move.source)}
    return sum(entry[:2] not in held for entry in _entries(move, move.target))


def copy(move: Move, progress: Progress) -> None:
    """Write the source's definitions, and what is materialised, into the target."""
    source, target = open_store(move.home, move.source), open_store(move.home, move.target)
    objects = [one for _, one in _objects(source)] if _made(move, move.source) else []
    if objects:
        target.feast.apply(objects)
    for kind, one in _objects(source) if objects else ():
        if kind != "view":
            continue
        there = target.feast.get_feature_view(one.name)
        for first, last in one.materialization_intervals:
            if (first, last) not in there.materialization_intervals:
                target.feast.registry.apply_materialization(there, PROJECT, first, last)
    progress("definitions of features", len(objects), len(objects))


def compare(move: Move) -> list[Compared]:
    """Hold the definitions here against those there."""
    return [Compared("registry", tally(_entries(move, move.source)), tally(_entries(move, move.target)))]


REGISTRY = Part("registry", check, copy, compare)


def _entries(move: Move, engine: Engine) -> Iterator[Entry]:
    if _made(move, engine):
        for kind, one in _objects(open_store(move.home, engine)):
            intervals = [list(interval) for interval in getattr(one, "materialization_intervals", ())]
            yield kind, one.name, _said(one), intervals


def _made(move: Move, engine: Engine) -> bool:
    """Tell whether there is a registry: opening one that is not there begins it."""
    if engine.registry == "file":
        return move.home.registry.exists()
    return tables_exist(engine.registry, "registry")


def _objects(store: Store) -> Iterator[tuple[str, Any]]:
    registry = store.feast.registry
    named = {
        "entity": registry.list_entities,
        "source": registry.list_data_sources,
        "view": registry.list_feature_views,
        "service": registry.list_feature_services,
    }
    for kind, listed in named.items():
        yield from ((kind, one) for one in listed(PROJECT) if not one.name.startswith("__"))  # Feast's own


def _said(one: Any) -> bytes:  # noqa: ANN401 (an object of Feast)
    proto = one.to_proto()
    proto.ClearField("meta")  # when it was written, among others
    said: bytes = proto.SerializeToString(deterministic=True)
    return said
