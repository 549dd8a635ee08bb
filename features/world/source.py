"""The synthetic world as a source of `holdfast ingest`: what it is called, its settings, its fingerprint."""

from datetime import timedelta
from pathlib import Path
from typing import Final

from features.files import fingerprint
from features.world.law import World

NAME: Final = "synthetic"  # what one types


def world_settings(world: World) -> str:
    """Write the settings of a programme in this world: its clock starts where the history ends."""
    end = world.start + timedelta(days=world.days)
    offers = ", ".join(f'"{offer.offer_id}"' for offer in world.offers)
    return (
        "# The settings of a synthetic world; every key that is not here has its default (see features/programme.py).\n"
        f'name = "A synthetic world"\ncurrency = "USD"\ntimezone = "UTC"\ntracked_offers = [{offers}]\n'
        f"replay_from = {end:%Y-%m-%dT%H:%M:%SZ}      # the history is over: the service's clock starts where it ends\n"
    )


def world_title(world: World, seed: int) -> str:
    """Say in words which world it is."""
    return f"a synthetic world ({world.members:,} members, {world.shape}, seed {seed})"


def world_fingerprint(world: World, seed: int) -> str:
    """Fingerprint a world's laws, its seed, and the code that lives it."""
    return fingerprint(repr(world), seed, *sorted(Path(__file__).parent.glob("*.py")))
