"""What a moved column puts at stake: whose decisions hang on it, and how much margin a week.

The members of the current window are decided twice: as they are, and with the column put back to where the reference
has values of the same rank. Where the move is a fault of the data, members get what suits the moved values instead of
what suits them, and the difference is lost every week. Where it is real, nothing is lost yet, and the same figure says
how much the release's answer hangs on a column whose like it has not learned from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.log.standing import nobody_contacted
from features.rules import known_facts
from monitoring.distributions import Numbers, numbers_of
from monitoring.reference import Reference
from monitoring.verdict import Finding
from monitoring.windows import floats
from serving.decide import Decider, Members, Occasion, Purse, Worth
from training.policy import MODEL, greedy

Matrix = NDArray[np.float32]
Indices = NDArray[np.intp]

MOST: Final = 50_000  # members decided twice for each column; more are drawn from


@dataclass(frozen=True)
class Stake:
    """Say how many of the members decided on get another treatment, and what that costs a week, in minor units."""

    changed: int
    decided: int
    margin_a_week: int


class Stakes:
    """Price columns for one release and the members of one moment.

    Parameters
    ----------
    rows : those members, with every feature of the release and every fact that rules read
    decisions_a_week : of all of them together
    """

    def __init__(
        self, decider: Decider, rows: pd.DataFrame, *, now: datetime, decisions_a_week: float, rng: np.random.Generator
    ) -> None:
        self._decider, self._now, self._rng = decider, now, rng
        self._members = len(rows)
        self._rows = rows if len(rows) <= MOST else rows.iloc[np.sort(rng.choice(len(rows), MOST, replace=False))]
        self._a_week = decisions_a_week
        self._names = decider.release.feature_names
        self._X = _matrix(self._rows, self._names)
        self._worth = self._weigh(self._X)
        self._chosen = self._choose(self._X, self._worth)

    def attach(self, findings: Sequence[Finding], reference: Reference) -> tuple[Finding, ...]:
        """Say of each finding what is at stake; of a column that no model reads, nothing is."""
        priced: dict[str, Stake] = {}
        for column in {finding.column for finding in findings}:
            before = reference.distributions.get(column)
            if column in self._names and isinstance(before, Numbers):
                priced[column] = self.price(column, before)
        return tuple(
            replace(finding, decisions=stake.changed, decided=stake.decided, margin_a_week=stake.margin_a_week)
            if (stake := priced.get(finding.column))
            else finding
            for finding in findings
        )

    def price(self, column: str, before: Numbers) -> Stake:
        """Decide with the column put back, and compare."""
        X = self._X.copy()
        place = self._names.index(column)
        X[:, place] = restored(floats_of(self._rows, column), before, self._rng)
        worth = self._weigh(X)
        wanted = self._choose(X, worth)
        net = np.column_stack([np.zeros(len(X)), worth.benefit - worth.cost])
        return stake_of(net, wanted, self._chosen, members=self._members, decisions_a_week=self._a_week)

    def _weigh(self, X: Matrix) -> Worth:
        return self._decider.weigh(self._those(X), None)

    def _choose(self, X: Matrix, worth: Worth) -> Indices:
        offers = len(self._decider.release.offer_ids)
        unlimited = Purse(np.inf, np.full(offers, np.inf), 0.0, np.zeros(offers))
        refusals = self._decider.refusals(self._those(X), worth, Occasion(self._now, None, None, unlimited))
        sent = greedy(worth.benefit - worth.cost, eligible=refusals == 0, bar=worth.bar)
        return np.asarray(np.argmax(sent, axis=1))

    def _those(self, X: Matrix) -> Members:
        n = len(X)
        facts = {name: _fact(self._rows, name) for name in self._decider.facts}
        standing = nobody_contacted(n, len(self._decider.release.offer_ids))
        alike = np.zeros(n)
        return Members(X, alike.astype(np.int8), alike, np.full(n, MODEL, dtype=np.int8), facts, standing)


def stake_of(
    net: NDArray[np.float64], wanted: Indices, chosen: Indices, *, members: int, decisions_a_week: float
) -> Stake:
    """Say what it costs that members get the treatment that was chosen, and not the one that was wanted.

    Parameters
    ----------
    net : (n, 1 + n_offers) what each treatment is worth after costs, control first, minor units
    wanted, chosen : (n,) treatments by their number; what was chosen by mistake and is worth more counts as no gain
    members : how many there are, of whom the rows are a sample

    >>> net = np.array([[0.0, 50.0], [0.0, -20.0]])
    >>> stake_of(net, np.array([1, 0]), np.array([0, 0]), members=2, decisions_a_week=10.0)
    Stake(changed=1, decided=2, margin_a_week=250)
    """
    row = np.arange(len(net))
    lost = np.maximum(net[row, wanted] - net[row, chosen], 0.0)
    scale = members / max(len(net), 1)
    margin = float(lost.mean()) * decisions_a_week if len(net) else 0.0
    return Stake(round(float((wanted != chosen).sum()) * scale), members, round(margin))


def restored(current: NDArray[np.float64], before: Numbers, rng: np.random.Generator) -> NDArray[np.float64]:
    """Put a column back: to the reference's value of the same rank, missing as often as it was there.

    Members of equal value share their ranks by lot, so that a flag whose share moved goes back as well. Who is missing
    more than was gets a value drawn from the reference.

    >>> from monitoring.distributions import numbers_of
    >>> restored(np.array([30.0, 10.0, 20.0]), numbers_of(np.array([1.0, 2.0, 3.0])), np.random.default_rng(0))
    array([3., 1., 2.])
    """
    now = numbers_of(current)
    values = np.array(current)
    known = ~np.isnan(current)
    if known.any() and before.known:
        last = now.rows_up_to(current[known])
        alike = now.counts[np.searchsorted(now.points, current[known])]
        values[known] = before.quantiles((rng.integers(last - alike, last) + 1) / now.known)
    gone = np.flatnonzero(~known)
    if len(gone) and before.known:
        back = gone[rng.random(len(gone)) >= before.missing_share / max(now.missing_share, before.missing_share, 1e-12)]
        values[back] = before.quantiles(rng.random(len(back)))
    return values


def floats_of(rows: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """Take a column as numbers; one that is gone is missing throughout."""
    return floats(rows[column]) if column in rows else np.full(len(rows), np.nan)


def _matrix(rows: pd.DataFrame, names: Sequence[str]) -> Matrix:
    return np.ascontiguousarray(np.column_stack([floats_of(rows, name) for name in names]), dtype=np.float32)


def _fact(rows: pd.DataFrame, name: str) -> NDArray[Any]:
    if known_facts().get(name) == "number":
        return floats_of(rows, name)
    words: NDArray[Any] = (
        rows[name].astype(object).to_numpy(copy=True) if name in rows else np.full(len(rows), None, dtype=object)
    )
    words[np.asarray(pd.isna(words))] = None
    return words
