"""How an estimate is written in a cell: value and 95 % interval, as a number, as a difference, or as money."""

from typing import Any

from features.programme import Programme

Figures = dict[str, Any]  # an Estimate as JSON: value, lower, upper, n


def plain(figures: Figures) -> str:
    """Write a number.

    >>> plain({"value": 0.81, "lower": 0.8, "upper": 0.82, "n": 9})
    '0.810 [0.800, 0.820]'
    """
    return f"{figures['value']:.3f} [{figures['lower']:.3f}, {figures['upper']:.3f}]"


def signed(figures: Figures) -> str:
    """Write a difference.

    >>> signed({"value": 0.01, "lower": -0.01, "upper": 0.03, "n": 9})
    '+0.0100 [-0.0100, +0.0300]'
    """
    return f"{figures['value']:+.4f} [{figures['lower']:+.4f}, {figures['upper']:+.4f}]"


def money(figures: Figures, programme: Programme, *, signed: bool = False) -> str:
    """Write an amount in minor units in the programme's currency.

    >>> money({"value": 120.0, "lower": -5.0, "upper": 245.0, "n": 9}, Programme(), signed=True)
    '+1.20 [-0.05, +2.45]'
    """
    digits = programme.currency_digits
    form = f"{'+' if signed else ''},.{digits}f"
    value, lower, upper = (format(figures[name] / 10**digits, form) for name in ("value", "lower", "upper"))
    return f"{value} [{lower}, {upper}]"
