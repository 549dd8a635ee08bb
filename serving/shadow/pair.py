"""The champion and a shadow, side by side: what the shadow makes of decisions that the champion took.

All that a decision rested on stands in the log: the member's features as they were, the draw, the moment, and what was
left of stock and budget. So nobody is asked again, and each decision is by itself what the shadow would have drawn.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import ContractError
from features.offers import Catalogue
from features.shadow import ShadowRow
from serving.decide import Choice, Decider, Worth
from serving.replay import Row, members_again, occasion_again
from training.artifacts import Release, Scores

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """Hold a champion, and the shadow with the catalogue that the champion decided by."""

    champion: Release
    shadow: Decider

    @property
    def places(self) -> list[int]:
        """Where the shadow's features stand among the champion's."""
        return [self.champion.feature_names.index(name) for name in self.shadow.release.feature_names]


def pair_of(champion: Release, shadow: Release, catalogue: Catalogue) -> Pair:
    """Let a shadow stand beside a champion.

    Raises
    ------
    ContractError
        If it wants to know what the champion is not told, or has other offers.
    """
    lacking = sorted({*shadow.feature_names} - {*champion.feature_names})
    if lacking:
        raise ContractError(f"a shadow sees what the champion is decided by, which lacks {', '.join(lacking)}")
    if shadow.offer_ids != champion.offer_ids:
        raise ContractError("a shadow has to have the champion's offers; train it on the same table of offers")
    return Pair(champion, Decider(shadow, catalogue))


def decide_beside(pair: Pair, rows: Sequence[Row]) -> list[ShadowRow]:
    """Say what the shadow would have decided; both are timed on the same members.

    Parameters
    ----------
    rows : decisions of the champion, by that catalogue, whose numbers were the models' own
    """
    rows, decider = sorted(rows, key=_about), pair.shadow
    members = members_again(decider, rows)
    started = time.perf_counter()
    pair.champion.score(members.X)
    between = time.perf_counter()
    members = replace(members, X=np.ascontiguousarray(members.X[:, pair.places]), stand_in=None)
    scores = decider.score(members)
    took = [(after - before) / len(rows) for before, after in ((started, between), (between, time.perf_counter()))]
    found, draws = list[ShadowRow](), np.array([row["draw"] for row in rows])
    for part, worth in _parties(decider, rows, scores):
        occasion = occasion_again(decider, rows[part.start])
        choice = decider.choose(members.rows(part), worth, occasion=occasion, uniform=draws[part])
        found += _rows(decider, rows[part], worth, choice, took)
    return found


def _parties(decider: Decider, rows: Sequence[Row], scores: Scores | None) -> Iterator[tuple[slice, Worth]]:
    """Put together what was decided in one pass: about the same, at the same moment, out of the same."""
    worths, own, done = dict[str | None, Worth](), np.ones(len(rows), dtype=np.bool_), 0
    for _, alike in groupby(rows, key=_about):
        party = [*alike]
        campaign_id, part = party[0]["campaign_id"], slice(done, done + len(party))
        if campaign_id not in worths:
            worths[campaign_id] = decider.worth(scores, own, campaign_id)
        yield part, worths[campaign_id].rows(part)
        done = part.stop


def _about(row: Row) -> tuple[str, ...]:
    """Name what decisions have to agree in to be decided in one pass; of what may run out, each has its own turn."""
    seen = row["standing"]
    turn = row["decision_id"] if "budget" in seen or "stock" in seen else seen.get("apart", False)
    shared = (row[name] for name in ("decided_at", "campaign_id", "asked", "price", "stock_prices"))
    return tuple(map(str, (*shared, turn)))


def _rows(decider: Decider, rows: Sequence[Row], worth: Worth, choice: Choice, took: list[float]) -> list[ShadowRow]:
    given = np.array([decider.treatments.index(row["treatment"]) for row in rows])
    before = np.array([row["probabilities"] for row in rows])
    expected = np.array([row["net_value"] for row in rows], dtype=np.float64)
    numbers = {
        "shadow_propensity": choice.probabilities[np.arange(len(rows)), given],
        "shadow_churn_probability": worth.churn_probability,
        "net_value": _policy_values(before, expected),
        "net_value_by_shadow": _policy_values(before, choice.net_value),
        "shadow_net_value": _policy_values(choice.probabilities, choice.net_value),
        "shadow_net_value_by_champion": _policy_values(choice.probabilities, expected),
    }
    columns: dict[str, list[Any]] = {name: column.tolist() for name, column in numbers.items()}
    return [
        ShadowRow(
            **{name: row[name] for name in ("decision_id", "member_id", "decided_at", "campaign_id", "treatment")},
            champion=row["release_id"],
            shadow=decider.release.release_id,
            shadow_treatment=decider.treatments[int(choice.chosen[place])],
            propensity=row["propensity"],
            churn_probability=row["churn_probability"],
            seconds=took[0],
            shadow_seconds=took[1],
            **{name: column[place] for name, column in columns.items()},
        )
        for place, row in enumerate(rows)
    ]


def _policy_values(probabilities: Floats, net_value: Floats) -> Floats:
    """Expect what a policy earns of each member, `(n_members,)`: control earns nothing and costs nothing."""
    return np.asarray((probabilities[:, 1:] * net_value).sum(axis=1))
