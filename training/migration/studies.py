"""Optuna's studies: each is copied whole; one that a killed copy left in part is copied anew."""

from pathlib import Path

from features.engine import Engine
from features.home import Home
from features.migration.move import Move, Part
from features.migration.tally import Compared, digest, tally
from features.sheet import Progress
from features.stores.postgres import tables_exist
from training.studies import Rows, copy_study, open_studies, trials_of


def check(move: Move) -> int:
    """Count what studies of the target hold and those of the source do not."""
    source = {name: set(map(digest, rows)) for name, rows in _studies(move.home, move.source).items()}
    target = _studies(move.home, move.target)
    return sum(digest(row) not in source.get(name, ()) for name, rows in target.items() for row in rows)


def copy(move: Move, progress: Progress) -> None:
    """Copy each study that is not there as it is here."""
    source, target = _studies(move.home, move.source), _studies(move.home, move.target)
    lacking = [name for name, rows in source.items() if tally(rows) != tally(target.get(name, ()))]
    for number, name in enumerate(lacking):
        kept = [open_studies(_place(move.home, engine)) for engine in (move.source, move.target)]
        copy_study(name, *kept)
        progress("studies", number + 1, len(lacking))


def compare(move: Move) -> list[Compared]:
    """Hold the trials here against those there."""
    here, there = ((_named(_studies(move.home, engine))) for engine in (move.source, move.target))
    return [Compared("studies", tally(here), tally(there))]


STUDIES = Part("studies", check, copy, compare)


def _named(studies: dict[str, Rows]) -> Rows:
    return [(name, *row) for name, rows in studies.items() for row in rows]


def _studies(home: Home, engine: Engine) -> dict[str, Rows]:
    """Read every study; where none was ever kept, nothing is made."""
    made = home.studies.exists() if engine.studies == "file" else tables_exist(engine.studies, "studies")
    return trials_of(open_studies(_place(home, engine))) if made else {}


def _place(home: Home, engine: Engine) -> Path | str:
    return home.studies if engine.studies == "file" else engine.studies
