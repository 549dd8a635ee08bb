"""Take decisions again from what the log kept of them, and compare byte by byte."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.decisions import Decision, find_decision, is_erased, read_catalogue_body, read_decisions
from features.errors import ContractError
from features.home import Home
from features.log.entries import DECISION
from features.log.rows import encode
from features.log.standing import Standing
from features.offers import catalogue_from_json
from features.programme import Programme
from features.sheet import Progress, Sheet
from serving.decide import FALLBACKS, SOURCES, Decider, Members, Occasion, Purse, StandIn, Worth
from serving.record import File, Request, fact_column, reasons_of, record
from training.artifacts import OF_OFFERS, open_release
from training.releases.shelf import bring

Floats = NDArray[np.float64]

BLOCK: Final = 1_000  # decisions scored at once

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Replayed:
    """Say whether a decision came out as it was logged, and where not."""

    decision_id: str
    differing: tuple[str, ...]


def rows_to_replay(
    home: Home, decision_id: str, *, sample: int | None, every: bool, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Read one decision, a sample, or every one.

    Raises
    ------
    ContractError
        If none of them, or more than one, is asked for.
    """
    if sum([bool(decision_id), sample is not None, every]) != 1:
        raise ContractError("one of a decision's id, --sample N and --all was wanted: holdfast decisions replay --all")
    if decision_id:
        return [find_decision(home.decisions, decision_id)]
    rows = [row for row in read_decisions(home.decisions) if not is_erased(row)]
    if every or sample is None or sample >= len(rows):
        return rows
    return [rows[place] for place in sorted(rng.choice(len(rows), sample, replace=False).tolist())]


def replay(home: Home, rows: Sequence[Row], *, progress: Progress = lambda *_: None) -> list[Replayed]:
    """Replay rows of the log, each from its release, its catalogue, its features and its draw alone.

    Raises
    ------
    NotFoundError, CorruptError
        If a release or a catalogue is gone or is not what it was.
    """
    found: list[Replayed] = []
    for (release_id, catalogue_id, campaign_id), group in groupby(sorted(rows, key=_source), key=_source):
        decider, of_source = _decider(home, release_id, catalogue_id), list(group)
        for start in range(0, len(of_source), BLOCK):
            block = of_source[start : start + BLOCK]
            again = decide_again(decider, block, campaign_id or None)
            found += [_compare(row, one) for row, one in zip(block, again, strict=True)]
            progress("replaying decisions", len(found), len(rows))
    return found


def differing_sheet(differing: Sequence[Replayed], shown: int = 20) -> Sheet:
    """Show the decisions that came out otherwise than they were logged."""
    rows = tuple((one.decision_id, ", ".join(one.differing)) for one in differing[:shown])
    notes = (f"{len(differing) - shown:,} more differ",) if len(differing) > shown else ()
    return Sheet("Not as logged", ("decision", "differs in"), rows, notes)


def decision_sheet(row: Row, programme: Programme) -> Sheet:
    """Show one decision, a row per treatment."""
    campaign = f", campaign {row['campaign_id']}" if row["campaign_id"] else ""
    why = f" ({row['fallback_reason']})" if row["fallback_reason"] else ""
    drawn = f"{row['treatment']}, drawn with {row['draw']:.6f} at the budget's price {row['price']:.4f}"
    notes = (
        f"member {row['member_id']}, {row['decided_at']:%Y-%m-%d %H:%M:%S} UTC{campaign}",
        f"by {row['outcome']}{why}: {drawn}",
        f"release {row['release_id']}, catalogue {row['catalogue_id']}",
        *(reason["text"] for reason in row["reasons"]),
        *(f"{name}: {value}" for name, value in {**row["facts"], **row["standing"]}.items()),
    )
    lines = tuple(_line(row, place, programme) for place in range(len(row["treatments"])))
    header = ("treatment", "probability", "uplift", "cost", "net value", "not possible")
    return Sheet(f"Decision {row['decision_id']}", header, lines, notes)


def as_json(row: Row) -> dict[str, Any]:
    """Give a row of the log in JSON values; a missing feature is null."""
    features = [None if np.isnan(value) else float(value) for value in row["features"]]
    times = {name: value.isoformat() for name, value in row.items() if isinstance(value, datetime)}
    stood_in = np.frombuffer(row["scores"], dtype="<f8").tolist()
    return {**row, **times, "features": features, "scores": stood_in}


def decide_again(decider: Decider, rows: Sequence[Row], campaign_id: str | None) -> list[Decision]:
    """Take decisions of one campaign again; what they rest on is the rows', what follows from it is computed."""
    file = _file(decider, rows)
    worth = decider.weigh(file.members, campaign_id)
    return [
        _again(decider, row, file.rows(slice(place, place + 1)), worth.rows(slice(place, place + 1)))
        for place, row in enumerate(rows)
    ]


def grounds_again(decider: Decider, row: Row) -> tuple[Members, Worth, Occasion, Floats]:
    """Put together again what a decision rested on: the member, what offers were worth, the occasion, and the draw."""
    members = members_again(decider, [row])
    occasion = occasion_again(decider, row)
    return members, decider.weigh(members, row["campaign_id"]), occasion, np.array([row["draw"]])


def members_again(decider: Decider, rows: Sequence[Row]) -> Members:
    """Put together again what was known of members; their features are those of the release that decided."""
    number, arm = decider.drawn([row["member_id"] for row in rows])
    return Members(
        X=np.array([row["features"] for row in rows], dtype=np.float32),
        fallback=np.array([FALLBACKS.index(row["fallback_reason"]) for row in rows], dtype=np.int8),
        number=number,
        arm=arm,
        facts={name: fact_column(name, [row["facts"][name] for row in rows]) for name in decider.facts},
        standing=_standing(decider, [row["standing"] for row in rows]),
        stand_in=_stand_in(decider, rows),
    )


def occasion_again(decider: Decider, row: Row) -> Occasion:
    """Put together again when, for what, among which offers and out of what was decided."""
    asked = None if row["asked"] is None else tuple(row["asked"])
    return Occasion(row["decided_at"], row["campaign_id"], asked, _purse(decider, row))


def decider_of(home: Home, row: Row) -> Decider:
    """Load the release and the catalogue that a decision was taken by.

    Raises
    ------
    NotFoundError, CorruptError
        If one is gone or is not what it was.
    """
    return _decider(home, row["release_id"], row["catalogue_id"])


def _again(decider: Decider, row: Row, file: File, worth: Worth) -> Decision:
    occasion, uniform = occasion_again(decider, row), np.array([row["draw"]])
    request = Request(occasion, uniform, (row["context"],), (row["idempotency_key"],), partial(str, row["decision_id"]))
    choice = decider.choose(file.members, worth, occasion=occasion, uniform=uniform)
    (one,) = record(decider, file, worth=worth, choice=choice, request=request)
    return one


def _line(row: Row, place: int, programme: Programme) -> tuple[str, ...]:
    """Show one treatment; of control nothing comes and it costs nothing."""
    amounts = [row[name][place - 1 : place] if place else [0] for name in ("uplift", "cost", "net_value")]
    refusal = row["refusals"][place - 1 : place] if place else []
    treatment = row["treatments"][place]
    return (
        f"{treatment} (drawn)" if treatment == row["treatment"] else treatment,
        f"{row['probabilities'][place]:.4f}",
        *(programme.money(amount[0]) if amount else "" for amount in amounts),
        *(refusal or [""]),
    )


def _compare(row: Row, again: Decision) -> Replayed:
    """Compare the encoded rows; batches leave the reasons out, so that only those that are there count."""
    logged = encode(DECISION, {**row, "features": row["features"].tobytes()})
    again = again if row["reasons"] else replace(again, reasons=())
    pairs = zip(DECISION, logged, encode(DECISION, vars(again)), strict=True)
    return Replayed(row["decision_id"], tuple(name for name, before, now in pairs if before != now))


def _source(row: Row) -> tuple[str, str, str]:
    return row["release_id"], row["catalogue_id"], row["campaign_id"] or ""


def _decider(home: Home, release_id: str, catalogue_id: str) -> Decider:
    catalogue = catalogue_from_json(read_catalogue_body(home.decisions, catalogue_id))
    if not (home.releases / release_id).exists():
        bring(home, release_id)
    return Decider(open_release(home.releases, release_id), catalogue)


def _file(decider: Decider, rows: Sequence[Row]) -> File:
    members = members_again(decider, rows)
    told = ([row[name] for row in rows] for name in ("segment", "lifecycle_stage", "event_timestamp"))
    member_ids = tuple(row["member_id"] for row in rows)
    return File(member_ids, members, reasons_of(decider, members), *map(tuple, told))


def _stand_in(decider: Decider, rows: Sequence[Row]) -> StandIn:
    width = 2 + len(OF_OFFERS) * len(decider.release.offer_ids)
    scores = [np.frombuffer(row["scores"], dtype="<f8") if row["scores"] else np.full(width, np.nan) for row in rows]
    return StandIn(np.array([SOURCES.index(row["source"]) for row in rows], dtype=np.int8), np.array(scores))


def _standing(decider: Decider, seen: Sequence[Row]) -> Standing:
    never = [None] * len(decider.release.offer_ids)
    return Standing(
        since_offer=_infinite([one.get("since_offer", never) for one in seen]).reshape(len(seen), len(never)),
        since_any=_infinite([one.get("since_any") for one in seen]),
        in_period=np.array([one.get("in_period", 0) for one in seen], dtype=np.int64),
    )


def _purse(decider: Decider, row: Row) -> Purse:
    seen = row["standing"]
    return Purse(
        budget=seen.get("budget", np.inf),
        stock=_infinite(seen.get("stock", [None] * len(decider.release.offer_ids))),
        price=row["price"],
        stock_prices=np.array(row["stock_prices"], dtype=np.float64),
        apart=seen.get("apart", False),
    )


def _infinite(values: Any) -> np.ndarray[Any, Any]:  # noqa: ANN401 (lists of numbers, or of such lists)
    numbers = np.array(values, dtype=np.float64)
    return np.where(np.isnan(numbers), np.inf, numbers)
