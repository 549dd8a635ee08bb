"""What a worker of Spark does with one part of a batch: asked by a message, it answers in arrays.

A part is read, weighed and decided as on one machine, by the same policy. What is told back is sums and samples: it
does not grow with the members.
"""

import training.lean  # noqa: F401  (before XGBoost itself)

# isort: split

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.decisions import Batch
from serving.batch.errand import Errand, open_errand
from serving.batch.local import write_decided
from serving.batch.part import Decided
from serving.batch.plan import Plan
from serving.batch.turns import seen_by
from serving.decide import Occasion, Purse
from training.shadow_prices import Audience

Answer = Mapping[str, NDArray[Any]]
Box = tuple[Sequence[float], Sequence[float]]


def ask(work: str, folder: Path, part: int, **asked: Any) -> str:  # noqa: ANN401 (JSON values)
    """Write a message."""
    return json.dumps({"work": work, "folder": str(folder.resolve()), "part": part, "asked": asked})


def answer(message: str) -> Answer:
    """Do what a message asks for."""
    said = json.loads(message)
    return _WORK[said["work"]](_errand(said["folder"]), said["part"], **said["asked"])


def purse_json(purse: Purse) -> list[Any]:
    """Give a purse as JSON values, from which a worker makes an equal one."""
    return [purse.budget, purse.stock.tolist(), purse.price, purse.stock_prices.tolist()]


@lru_cache(1)
def _errand(folder: str) -> Errand:
    return open_errand(Path(folder))


def _weigh(errand: Errand, part: int, *, purse: list[Any]) -> Answer:
    errand.weigh(part, _purse(purse))
    return {}


def _take(errand: Errand, part: int, *, places: list[int]) -> Answer:
    """Give the claims of some members."""
    return {name: column[places] for name, column in vars(errand.claims(part)).items()}


def _near(errand: Errand, part: int, *, stock: list[float] | None, boxes: list[Box]) -> Answer:
    """Sum what those use who were undecided in all boxes but the last, and count who are in it as well."""
    *before, (low, high) = boxes
    used, others = _undecided(errand, part, stock, before).near(np.array(low), np.array(high))
    return {"used": used, "others": np.array(len(others))}


def _want(
    errand: Errand, part: int, *, stock: list[float] | None, boxes: list[Box], places: list[int] | None
) -> Answer:
    """Say what some members, or all, would want who are undecided in all boxes."""
    members = _undecided(errand, part, stock, boxes)
    return vars(members if places is None else members.take(np.array(places, dtype=np.intp)))


def _foresee(errand: Errand, part: int, *, purse: list[Any], batch: dict[str, Any]) -> Answer:
    """Say what a part would use of budget and stock."""
    return {"use": _use(_decided(errand, part, _purse(purse), _batch(batch))[0], errand.plan)}


def _decide(errand: Errand, part: int, *, purse: list[Any], batch: dict[str, Any]) -> Answer:
    """Decide a part and write it; say what it uses, what was found in it and on what that rests."""
    plan, of = errand.plan, _batch(batch)
    decided, occasion = _decided(errand, part, _purse(purse), of)
    seen = seen_by(plan, occasion, decided.choice, decided.worth, member_ids=(), moment=None)
    spending = [[offer_id, *used] for (_, offer_id), used in decided.spending(plan.decider, of.campaign_id).items()]
    told = {
        "part": asdict(write_decided(plan, of, part, decided)),
        "spending": spending,
        "seen": None if seen is None else {"spent": seen.spent, "contacted": seen.contacted},
    }
    return {"use": _use(decided, plan), "told": np.array(json.dumps(told))}


def _decided(errand: Errand, part: int, purse: Purse, batch: Batch) -> tuple[Decided, Occasion]:
    weighed = errand.weighed(part)
    occasion, uniform = Occasion(batch.decided_at, batch.campaign_id, None, purse), weighed.uniform(batch.batch_id)
    choice = errand.plan.decider.choose(weighed.members, weighed.worth, occasion=occasion, uniform=uniform)
    return Decided(weighed.rows, weighed.members, weighed.worth, choice, uniform), occasion


def _undecided(errand: Errand, part: int, stock: list[float] | None, boxes: Sequence[Box]) -> Audience:
    members = errand.claims(part).demand(None if stock is None else np.array(stock))
    for low, high in boxes:
        _, members = members.near(np.array(low), np.array(high))
    return members


def _use(decided: Decided, plan: Plan) -> NDArray[np.float64]:
    """Give what is spent, and the contacts with each offer, `(1 + n_offers,)`."""
    contacts = np.bincount(decided.choice.chosen, minlength=len(plan.decider.treatments))[1:]
    return np.concatenate([[decided.choice.spent.sum()], contacts.astype(np.float64)])


def _purse(said: list[Any]) -> Purse:
    budget, stock, price, stock_prices = said
    return Purse(budget, np.array(stock, dtype=np.float64), price, np.array(stock_prices, dtype=np.float64))


def _batch(said: dict[str, Any]) -> Batch:
    return Batch(**said | {"decided_at": datetime.fromisoformat(said["decided_at"])})


_WORK: Final[Mapping[str, Callable[..., Answer]]] = {
    "weigh": _weigh,
    "take": _take,
    "near": _near,
    "want": _want,
    "foresee": _foresee,
    "decide": _decide,
}
