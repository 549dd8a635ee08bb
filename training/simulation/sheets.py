"""What a flight came to, as tables, as JSON and as a picture of money."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from io import BytesIO
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.sheet import Sheet
from features.world.company import world_programme
from training.sheets.pictures import METADATA
from training.simulation.loop import CEILING, LOOP, NO_CONTACT, ORACLE, Flight, Round

Floats = NDArray[np.float64]

WIDE = (11.0, 4.6)  # inches
MARKERS = "os^vD<>P*X"


def rounds_sheet(rows: Sequence[Round], flight: Flight) -> Sheet:
    """Show round by round what the loop earned, beside the best fixed offer and the oracle on the same members."""
    money = _minor(flight)
    own = [row for row in rows if row.policy == LOOP]
    lines = tuple(
        (
            str(row.number),
            f"{row.rows:,}",
            f"{row.contacted:.0%}",
            money(row.spend / row.decisions),
            money(row.gain),
            money(row.learned_gain),
            money(row.best_fixed_gain),
            money(row.oracle_gain),
            _percent(row.share),
            "promoted" if row.promoted else "kept",
        )
        for row in own
    )
    header = (
        "round",
        "log after",
        "contacted",
        "spent",
        "served",
        "learned",
        "fixed",
        "oracle",
        "share",
        "challenger",
    )
    currency = world_programme(flight.world).currency
    notes = (
        f"{currency} a decision, expected by the stated truth; what policies gain is over no contact.",
        "served: with hold-out, random arm and exploration; learned: without them, by what was known before the round.",
        "share: of the oracle's lead over the best fixed offer, for the same members.",
    )
    return Sheet(f"The loop in {_titled(flight)}", header, lines, notes)


def closing_sheet(rows: Sequence[Round], flight: Flight) -> Sheet:
    """Show what every policy came to after the last round."""
    money, last = _minor(flight), max(row.number for row in rows)
    nothing, shown = _total(rows, NO_CONTACT), _of(rows, CEILING)[-1].share
    lines = []
    for name in dict.fromkeys(row.policy for row in rows):
        own = _of(rows, name)
        of_ceiling = own[-1].share / shown if shown > 0 else float("nan")
        lines.append(
            (
                name,
                money(_total(rows, name) - nothing),
                money(sum(row.regret for row in own)),
                money(own[-1].gain),
                _percent(own[-1].share),
                _percent(of_ceiling),
                f"{own[-1].contacted:.0%}",
            )
        )
    header = (
        "",
        "profit",
        "regret",
        "a decision",
        "share",
        "of features",
        "contacted",
    )
    currency = world_programme(flight.world).currency
    notes = (
        f"{currency}, expected by the stated truth; every policy lives its own waves, by the same chance.",
        "profit: of all rounds, over no contact; a decision: the same in the last round.",
        "regret: what the oracle would have earned more with the same members.",
        f"share: of the lead of the {ORACLE} over the best fixed offer, in the last round.",
        "of features: the oracle knows traits that no table shows, this is of the lead that features can show.",
    )
    return Sheet(f"After {last} rounds", header, tuple(lines), notes)


def flight_json(rows: Sequence[Round], flight: Flight) -> dict[str, Any]:
    """Give all of it as JSON values; a share that means nothing is null."""
    shares = [None if np.isnan(row.share) else row.share for row in rows]
    found = [asdict(row) | {"regret": row.regret, "share": share} for row, share in zip(rows, shares, strict=True)]
    world = {
        "members": flight.world.members,
        "shape": flight.world.shape,
        "offers": [asdict(o) for o in flight.world.offers],
    }
    return {"world": world, "rounds": found}


def flight_picture(rows: Sequence[Round], flight: Flight) -> bytes:
    """Draw cumulative profit over no contact and cumulative regret, as PNG; policies differ in colour and in marker."""
    from matplotlib import style
    from matplotlib.figure import Figure

    scale, currency = 10 ** world_programme(flight.world).currency_digits, world_programme(flight.world).currency
    figure = Figure(figsize=WIDE, layout="constrained")
    profit, regret = figure.subplots(1, 2)
    nothing = np.array([row.profit for row in _of(rows, NO_CONTACT)])
    colours = cycle(style.library["tableau-colorblind10"]["axes.prop_cycle"].by_key()["color"])
    for name, colour, marker in zip(dict.fromkeys(row.policy for row in rows), colours, cycle(MARKERS), strict=False):
        own = _of(rows, name)
        drawn: dict[str, Any] = {"label": name, "color": colour, "marker": marker, "markersize": 5}
        drawn |= {"linewidth": 3, "color": "black"} if name == LOOP else {}
        drawn |= {"linestyle": "--", "color": "black"} if name in {ORACLE, CEILING} else {}
        number = [row.number for row in own]
        profit.plot(number, np.cumsum([row.profit for row in own] - nothing) / scale, **drawn)
        regret.plot(number, np.cumsum([row.regret for row in own]) / scale, **drawn)
    profit.set(title="cumulative profit over no contact", xlabel="round", ylabel=currency)
    regret.set(title="cumulative regret to the oracle", xlabel="round", ylabel=currency)
    for axes in (profit, regret):
        axes.grid(alpha=0.3)
        axes.set_xticks([row.number for row in _of(rows, LOOP)])
    figure.legend(*profit.get_legend_handles_labels(), loc="outside right center", fontsize="small")
    png = BytesIO()
    figure.savefig(png, format="png", metadata=METADATA)
    return png.getvalue()


def _of(rows: Sequence[Round], policy: str) -> list[Round]:
    return [row for row in rows if row.policy == policy]


def _total(rows: Sequence[Round], policy: str) -> float:
    return sum(row.profit for row in _of(rows, policy))


def _minor(flight: Flight) -> Callable[[float], str]:
    scale = 10 ** world_programme(flight.world).currency_digits
    return lambda amount: f"{amount / scale:,.2f}"


def _percent(share: float) -> str:
    return "no lead" if np.isnan(share) else f"{share:.0%}"


def _titled(flight: Flight) -> str:
    return f"a synthetic world ({flight.world.members:,} members, {flight.world.shape})"
