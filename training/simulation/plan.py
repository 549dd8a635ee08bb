"""What a person wants simulated, as they type it: the world, its drift, the budget, and their own offers."""

import csv
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from features.errors import ContractError, NotFoundError
from features.world.law import OFFERS, Drift, Offer
from features.world.source import make_world
from training.judging.findings import Gate
from training.simulation.loop import Flight

WAVES, FIRST_CAMPAIGN = 8, 4  # a history of eight waves, the last four of them with randomised contacts
DRIFT: Final = "hazard:1.5:4"


def make_flight(
    members: int,
    *,
    shape: str = "subscription",
    rounds: int = 5,
    drift: str = "",
    budget: str = "",
    offers: tuple[Offer, ...] = OFFERS,
    margin: float = 0.0,
    observable: bool = False,
) -> Flight:
    """Plan a flight; see `parse_drift` and `parse_budget`. `margin` is the gate's, minor units a decision.

    Parameters
    ----------
    observable : let the table of members show the traits behind responses, so that all of the oracle's lead but chance
        can be learned

    Raises
    ------
    ContractError
        If there is no such world, drift or budget.
    """
    world = replace(
        make_world(str(members), shape), waves=WAVES, first_campaign=FIRST_CAMPAIGN, drift=parse_drift(drift)
    )
    ordered = tuple(sorted(offers, key=lambda offer: offer.offer_id))
    world = replace(world, offers=ordered, observable=observable)
    amount, share = parse_budget(budget)
    return Flight(world, rounds, budget=amount, budget_share=share, gate=Gate(champion_margin=margin))


def alike(offers: tuple[Offer, ...]) -> tuple[Offer, ...]:
    """Let every offer appeal to anyone alike: then one is best for all, and telling members apart earns nothing."""
    return tuple(replace(offer, appeal="anyone") for offer in offers)


def parse_drift(text: str) -> tuple[Drift, ...]:
    """Read what moves, by which factor and from which round on.

    >>> parse_drift("hazard:1.5:4")
    (Drift(what='hazard', factor=1.5, from_wave=11),)
    """
    if not text:
        return ()
    try:
        what, factor, number = text.split(":")
        return (
            TypeAdapter(Drift).validate_python({"what": what, "factor": factor, "from_wave": WAVES + int(number) - 1}),
        )
    except (ValueError, ValidationError) as error:
        wanted = f"amount, visits, hazard or response, a factor and a round, such as {DRIFT}"
        raise ContractError(f"--drift {text} came; wanted {wanted}") from error


def parse_budget(text: str) -> tuple[float | None, float | None]:
    """Read an amount in minor units, or a share of what the oracle would spend; the other is None.

    >>> parse_budget("50%"), parse_budget("20000"), parse_budget("")
    ((None, 0.5), (20000.0, None), (None, None))
    """
    if not text:
        return None, None
    try:
        amount = float(text.removesuffix("%"))
    except ValueError:
        amount = 0.0
    if not 0 < amount < float("inf"):
        raise ContractError(f"--budget {text} came; wanted minor units a round, such as 20000, or a share such as 50%")
    return (None, amount / 100) if text.endswith("%") else (amount, None)


def read_offers(path: Path) -> tuple[Offer, ...]:
    """Read a person's own offers: `[[offers]]` in TOML, or a CSV, with the fields of `features.world.law.Offer`.

    Raises
    ------
    NotFoundError
        If there is no such file.
    ContractError
        With every value that is wrong.
    """
    if not path.exists():
        raise NotFoundError(f"{path} is not there; --offers names a TOML or CSV file of offers")
    try:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                rows: object = list(csv.DictReader(file))
        else:
            rows = tomllib.loads(path.read_text(encoding="utf-8")).get("offers", [])
        found = TypeAdapter(tuple[Offer, ...]).validate_python(rows)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ContractError(
            f"{path} can't be read: {error}; wanted TOML with [[offers]], or a CSV, in UTF-8"
        ) from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}" for e in error.errors())
        raise ContractError(f"{path} has wrong offers: {wrong}") from None
    below = [offer.offer_id for offer in found if min(offer.contact_cost, offer.redemption_cost) < 0]
    if below or not found:
        raise ContractError(
            f"{path} has {len(found)} offers, of negative cost: {below}; wanted at least one, none of those"
        )
    return found
