"""What the shadow would have done, beside what the champion did: agreement, value, scores and time.

Both took the same draw for the same member, so that where they differ they differ by what they know, not by chance. No
outcome judges them here: each release expects something of its own policy and of the other's, and both are shown. Which
is right is found out by `holdfast evaluate`, and by promoting it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from features.errors import NotFoundError
from features.home import Home
from features.programme import Programme, read_programme
from features.shadow import ShadowFile, ShadowRow
from features.sheet import Sheet
from training.metrics import Estimate, bootstrap
from training.releases.names import resolve
from training.releases.shadow import shadow_id

Floats = NDArray[np.float64]

FEWEST: Final = 100  # members: of fewer nothing is said
QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Spread:
    """Hold a number's quantiles among decisions, by the champion and by the shadow."""

    name: str
    champion: tuple[float, ...]
    shadow: tuple[float, ...]


@dataclass(frozen=True)
class Compared:
    """Hold how two releases differ on the same decisions; intervals are of 95 %, by member."""

    agreement: Estimate  # share that got the same treatment
    gain_by_champion: Estimate  # what the shadow's policy earns more a decision, minor units, as the champion expects
    gain_by_shadow: Estimate  # likewise, as the shadow expects
    moved: tuple[tuple[str, str, int], ...]  # from a treatment to another, how often, the most frequent first
    spreads: tuple[Spread, ...]
    milliseconds: float  # of scoring, a member
    shadow_milliseconds: float


@dataclass(frozen=True)
class ShadowVerdict:
    """Conclude from what a shadow was shown."""

    shadow: str
    champion: str  # the last one it stood beside; others are left out
    decisions: int
    members: int
    compared: Compared | None  # None: too few members


def compare_shadow(home: Home, which: str = "") -> ShadowVerdict:
    """Compare a release that is or was the shadow with the champion it last stood beside.

    Raises
    ------
    NotFoundError
        If there is no shadow and none is named, or nothing was decided beside it.
    """
    release_id = resolve(home, which) if which else shadow_id(home)
    if release_id is None:
        raise NotFoundError("there is no shadow; `holdfast shadow RELEASE` lets one decide beside the champion")
    if not home.shadow.exists():
        raise NotFoundError("no shadow has decided anything yet; is `holdfast serve` running, and asked?")
    with ShadowFile(home.shadow) as file:
        rows = file.of_shadow(release_id)
    if not rows:
        raise NotFoundError(f"release {release_id} has decided nothing yet; /v1/release says whether it was refused")
    last = [row for row in rows if row.champion == rows[-1].champion]
    members = len({row.member_id for row in last})
    rng = np.random.default_rng(read_programme(home.settings).seed)
    compared = compare(last, rng) if members >= FEWEST else None
    return ShadowVerdict(release_id, rows[-1].champion, len(last), members, compared)


def compare(rows: Sequence[ShadowRow], rng: np.random.Generator) -> Compared:
    """Compare two releases on the same decisions."""
    same = np.array([row.treatment == row.shadow_treatment for row in rows], dtype=np.float64)
    by_champion = _column(rows, "shadow_net_value_by_champion") - _column(rows, "net_value")
    by_shadow = _column(rows, "shadow_net_value") - _column(rows, "net_value_by_shadow")
    members = np.array([row.member_id for row in rows])
    moves = Counter((row.treatment, row.shadow_treatment) for row in rows if row.treatment != row.shadow_treatment)
    return Compared(
        agreement=_mean(same, members, rng),
        gain_by_champion=_mean(by_champion, members, rng),
        gain_by_shadow=_mean(by_shadow, members, rng),
        moved=tuple((*move, count) for move, count in moves.most_common(10)),
        spreads=(
            _spread(rows, "churn probability", "churn_probability", "shadow_churn_probability"),
            _spread(rows, "expected net value", "net_value", "shadow_net_value"),
        ),
        milliseconds=float(np.median(_column(rows, "seconds"))) * 1_000,
        shadow_milliseconds=float(np.median(_column(rows, "shadow_seconds"))) * 1_000,
    )


def shadow_sheets(found: ShadowVerdict, programme: Programme) -> list[Sheet]:
    """Lay out how a shadow compares."""
    title = f"Shadow {found.shadow[:12]} beside champion {found.champion[:12]}"
    seen = ("decisions, members", f"{found.decisions:,}, {found.members:,}")
    if found.compared is None:
        return [Sheet(title, ("", ""), (seen,), (f"of fewer than {FEWEST} members nothing is said",))]
    one = found.compared
    rows = (
        seen,
        ("same treatment", f"{one.agreement.value:.1%} [{one.agreement.lower:.1%}, {one.agreement.upper:.1%}]"),
        ("its policy earns more a decision, by the champion's numbers", _money(one.gain_by_champion, programme)),
        ("likewise, by its own numbers", _money(one.gain_by_shadow, programme)),
        (
            "milliseconds to score a member, champion and shadow",
            f"{one.milliseconds:.3f}, {one.shadow_milliseconds:.3f}",
        ),
    )
    notes = ("Expected, not found: each release judges both policies. 95 % intervals by member.",)
    header = ("", *(f"{share:.0%}" for share in QUANTILES))
    spread = [
        (f"{one.name}, {who}", *(_shown(value, one.name, programme) for value in values))
        for one in one.spreads
        for who, values in (("champion", one.champion), ("shadow", one.shadow))
    ]
    moved = tuple((f"{before} -> {after}", f"{count:,}") for before, after, count in one.moved)
    return [
        Sheet(title, ("", ""), rows, notes),
        Sheet("Scores, by quantile", header, tuple(spread)),
        *([Sheet("Where they differ", ("champion -> shadow", "decisions"), moved)] if moved else []),
    ]


def _column(rows: Sequence[ShadowRow], name: str) -> Floats:
    return np.array([getattr(row, name) for row in rows], dtype=np.float64)


def _mean(values: Floats, members: NDArray[np.str_], rng: np.random.Generator) -> Estimate:
    def mean(one: Floats, _: Floats, *, weight: Floats | None = None) -> float:
        return float(np.average(one, weights=weight))

    return bootstrap(mean, values, values, clusters=members, rng=rng)


def _spread(rows: Sequence[ShadowRow], name: str, champion: str, shadow: str) -> Spread:
    return Spread(name, *(tuple(np.quantile(_column(rows, one), QUANTILES).tolist()) for one in (champion, shadow)))


def _shown(value: float, name: str, programme: Programme) -> str:
    return programme.money(value) if "value" in name else f"{value:.3f}"


def _money(found: Estimate, programme: Programme) -> str:
    return f"{programme.money(found.value)} [{programme.money(found.lower)}, {programme.money(found.upper)}]"
