"""The synthetic world as a source of `holdfast ingest`: what it is called, its settings, its fingerprint."""

from datetime import timedelta
from pathlib import Path
from typing import Final, cast, get_args

from features.errors import ContractError
from features.files import fingerprint
from features.world.law import Shape, World

NAME: Final = "synthetic"  # what one types


def make_world(members: str, shape: str) -> World:
    """Read which world is wanted, as people type it.

    Raises
    ------
    ContractError
        If there is no such world.
    """
    if not members.isdigit():
        raise ContractError(
            f"--members {members} came; with synthetic it is how many there are, such as --members 10000"
        )
    if shape not in get_args(Shape):
        raise ContractError(f"--shape {shape} came; wanted {', '.join(get_args(Shape))}")
    return World(int(members), shape=cast("Shape", shape))


def world_settings(world: World) -> str:
    """Write the settings of a programme in this world: its clock starts where the history ends."""
    end = world.start + timedelta(days=world.days)
    offers = ", ".join(f'"{offer.offer_id}"' for offer in world.offers)
    churn = "contract" if world.shape == "subscription" else "lapse"
    return (
        "# The settings of a synthetic world; every key that is not here has its default (see features/programme.py).\n"
        f'name = "A synthetic world"\ncurrency = "USD"\ntimezone = "UTC"\ntracked_offers = [{offers}]\n'
        f'churn = "{churn}"\n'
        f"replay_from = {end:%Y-%m-%dT%H:%M:%SZ}      # the history is over: the service's clock starts where it ends\n"
    )


def world_title(world: World, seed: int) -> str:
    """Say in words which world it is."""
    return f"a synthetic world ({world.members:,} members, {world.shape}, seed {seed})"


def world_fingerprint(world: World, seed: int) -> str:
    """Fingerprint a world's laws, its seed, and the code that lives it."""
    return fingerprint(repr(world), seed, *sorted(Path(__file__).parent.glob("*.py")))
