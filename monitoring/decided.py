"""Are decisions what they should be? Frequencies against propensities, the offer mix, fallbacks, and skew.

Frequencies: of a treatment drawn with logged probabilities p the count has mean Σp and variance Σp(1 - p) given all
that decisions rested on (nearly normal by Lindeberg's theorem), whoever was decided on. A count too far from it means
that what was logged is not what was drawn, and every estimate that weighs by propensities is wrong.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.home import Home
from features.saying import Saying, saying
from features.schema import CONTROL
from features.snapshots import built
from monitoring.verdict import Finding

Row = Mapping[str, Any]
Floats = NDArray[np.float64]

RATE: Final = 0.002  # of false alarms of all these checks together, beside those of the columns
FEWEST: Final = 200  # decisions: of fewer no share is told from chance
SMALLEST: Final = 0.03  # a share that moved by less is too small to matter
SKEWED: Final = 2_000  # decisions whose features are compared, at most


@dataclass(frozen=True)
class Mix:
    """Hold shares of members by what became of them, each counted once."""

    shares: dict[str, float]
    members: int


def judge_decisions(before: Sequence[Row], now: Sequence[Row], *, floor: float) -> list[Finding]:
    """Judge the decisions of a window beside those of the window before it.

    Parameters
    ----------
    before, now : rows of the log, as `features.decisions.read_decisions` gives them, of one release
    floor : the smallest probability that exploration gives what is possible; 0 where there is no exploration
    """
    found = frequencies(now)
    found += below_floor(now, floor)
    if min(len(before), len(now)) >= FEWEST:
        found += moved(_mix(before, "treatment"), _mix(now, "treatment"), "mix")
        found += moved(_mix(before, "fallback_reason"), _mix(now, "fallback_reason"), "fallbacks")
    return found


def frequencies(rows: Sequence[Row]) -> list[Finding]:
    """Compare how often each treatment was drawn with the sum of its logged probabilities."""
    drawn = [row for row in rows if max(row["probabilities"]) < 1]
    mean: Counter[str] = Counter()
    variance: Counter[str] = Counter()
    for row in drawn:
        for treatment, p in zip(row["treatments"], row["probabilities"], strict=True):
            mean[treatment] += p
            variance[treatment] += p * (1 - p)
    came = Counter(row["treatment"] for row in drawn)
    limit = _normal(RATE / 2 / max(len(mean), 1))
    return [
        Finding(
            "",
            "frequencies",
            saying(
                "{treatment} was drawn {came} times where its propensities add up to {mean}",
                treatment=_treatment(treatment),
                came=f"{came[treatment]:,}",
                mean=f"{mean[treatment]:,.1f}",
            ),
            statistic=abs(came[treatment] - mean[treatment]) / variance[treatment] ** 0.5,
            threshold=limit,
        )
        for treatment in sorted(mean)
        if variance[treatment] >= 1 and abs(came[treatment] - mean[treatment]) > limit * variance[treatment] ** 0.5
    ]


def below_floor(rows: Sequence[Row], floor: float) -> list[Finding]:
    """Find decisions in which something possible had less than exploration promises: nothing is learned about it."""
    low = [least for row in rows if row["outcome"] == "model" and (least := _least(row)) < floor * (1 - 1e-9)]
    if not low:
        return []
    words = "in {low} of {rows} decisions something possible had less than the floor of exploration"
    told = saying(words, low=f"{len(low):,}", rows=f"{len(rows):,}")
    return [Finding("", "floor", told, statistic=min(low), threshold=floor)]


def moved(before: Mix, now: Mix, kind: str) -> list[Finding]:
    """Find shares of members that differ by more than chance allows, and by enough to matter."""
    names = sorted({*before.shares, *now.shares})
    limit = _normal(RATE / 2 / (2 * max(len(names), 1)))
    found = []
    for name in names:
        p, q = before.shares.get(name, 0.0), now.shares.get(name, 0.0)
        pooled = (p * before.members + q * now.members) / (before.members + now.members)
        error = (pooled * (1 - pooled) * (1 / before.members + 1 / now.members)) ** 0.5
        reach = max(limit * error, SMALLEST)
        if abs(q - p) > reach:
            what = _treatment(name) if kind == "mix" else saying("the fallback {reason}", reason=name)
            words = "{what} went to {now} of members; {before} in the weeks before"
            told = saying(words, what=what, now=f"{q:.1%}", before=f"{p:.1%}")
            found.append(Finding("", "mix" if kind == "mix" else "fallbacks", told, abs(q - p), reach))
    return found


def skew(home: Home, rows: Sequence[Row], feature_names: Sequence[str], rng: np.random.Generator) -> list[Finding]:
    """Compare the features that decisions were taken by with those that training would read for the same moment.

    Only decisions on a snapshot that still stands can be compared; `holdfast features check` compares those on what
    came live.
    """
    snapshots = {as_of: home.snapshot(as_of) for as_of in built(home)}
    rows = [row for row in rows if row["event_timestamp"] in snapshots and len(row["features"])]
    if len(rows) > SKEWED:
        rows = [rows[number] for number in np.sort(rng.choice(len(rows), SKEWED, replace=False))]
    differing: Counter[str] = Counter()
    for as_of in {row["event_timestamp"] for row in rows}:
        of_this = [row for row in rows if row["event_timestamp"] == as_of]
        differing += _differing(pd.read_parquet(snapshots[as_of], columns=["member_id", *feature_names]), of_this)
    return [
        Finding(
            name,
            "skew",
            saying(
                "{name} was another in {count} of {rows} decisions than training reads for the same member and moment",
                name=name,
                count=f"{count:,}",
                rows=f"{len(rows):,}",
            ),
            statistic=float(count),
            threshold=0.0,
        )
        for name, count in sorted(differing.items())
    ]


def _differing(snapshot: pd.DataFrame, rows: Sequence[Row]) -> Counter[str]:
    place = pd.Index(snapshot.pop("member_id")).get_indexer([row["member_id"] for row in rows])
    trained = snapshot.to_numpy(dtype=np.float32)[place]
    served = np.array([row["features"] for row in rows], dtype=np.float32)
    same = (trained == served) | (np.isnan(trained) & np.isnan(served))
    wrong = (~same | (place < 0)[:, None]).sum(axis=0)
    return Counter({name: int(count) for name, count in zip(snapshot.columns, wrong, strict=True) if count})


def window(rows: Sequence[Row], since: datetime, until: datetime | None, release_id: str) -> list[Row]:
    """Give a release's decisions of some time, or since then."""
    of_release = [row for row in rows if row["release_id"] == release_id and row["decided_at"] >= since]
    return of_release if until is None else [row for row in of_release if row["decided_at"] < until]


def _treatment(name: str) -> str | Saying:
    return saying("control") if name == CONTROL else name


def _least(row: Row) -> float:
    """Give the smallest probability among what was possible; nothing beside what is mandatory is."""
    possible = [p for p, refusal in zip(row["probabilities"][1:], row["refusals"], strict=True) if not refusal]
    return float(min([row["probabilities"][0], *possible]))


def _mix(rows: Sequence[Row], name: str) -> Mix:
    """Count each member once, by the first decision: several of one are alike."""
    first: dict[str, str] = {}
    for row in rows:
        if row["outcome"] != "hold_out":
            first.setdefault(row["member_id"], row[name] or "none")
    counted = Counter(first.values())
    if name == "fallback_reason":
        del counted["none"]
    return Mix({word: count / max(len(first), 1) for word, count in counted.items()}, max(len(first), 1))


def _normal(rate: float) -> float:
    return NormalDist().inv_cdf(1 - rate / 2)
