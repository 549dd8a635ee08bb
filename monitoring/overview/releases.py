"""What serves, since when, and who promoted what on which grounds."""

from dataclasses import dataclass
from typing import Final

from features.errors import NotFoundError
from features.home import Home
from training.releases.ledger import Change, ledger
from training.releases.manifest import read_manifest
from training.releases.names import names_of

MOST: Final = 10  # changes, the latest


@dataclass(frozen=True)
class Releases:
    """Hold the champion, and the changes that led to it, the latest first."""

    champion: str
    names: tuple[str, ...]
    experiment: str  # where its uplift comes from
    offers: tuple[str, ...]
    changes: tuple[Change, ...]
    trained: int  # releases that exist


def gather_releases(home: Home) -> Releases:
    """Read the ledger.

    Raises
    ------
    NotFoundError
        If nothing was promoted.
    """
    changes = ledger(home)
    if not changes:
        raise NotFoundError("nothing was promoted yet")
    champion = changes[-1].to_release
    manifest = read_manifest(home.releases / champion)
    return Releases(
        champion=champion,
        names=tuple(names_of(home, champion)),
        experiment=manifest.experiment,
        offers=tuple(offer.offer_id for offer in manifest.offers),
        changes=changes[::-1][:MOST],
        trained=len(list(home.releases.glob("*/manifest.json"))),
    )
