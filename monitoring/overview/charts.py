"""Small charts as SVG: what a table says, for the eye. Each is told in words by its title, and by a table beside it.

Colours are classes of the style sheet, so that light, dark and print each have their own; sizes are attributes, for the
page allows no style but its sheet's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import floor, log10
from typing import Final

from markupsafe import Markup, escape

WIDTH: Final = 560.0
HEIGHT: Final = 220.0
LEFT, RIGHT, TOP, BOTTOM = 8.0, 8.0, 12.0, 26.0
STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Scale:
    """Map values onto pixels, linearly."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Give the pixel of a value.

        >>> Scale(0, 10, 100, 0)(2.5)
        75.0
        """
        span = self.high - self.low or 1.0
        return round(self.start + (value - self.low) / span * (self.end - self.start), 2)


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Choose round numbers between two values.

    >>> ticks(0, 97)
    [0.0, 25.0, 50.0, 75.0]
    """
    span = high - low
    if span <= 0:
        return [low]
    unit = 10.0 ** floor(log10(span / wanted))
    step = next(unit * one for one in STEPS if unit * one * wanted >= span * 0.999)
    first = -(-low // step)
    return [round((first + place) * step, 10) for place in range(int((high - first * step) // step) + 1)]


def stacked(rows: Sequence[Sequence[float]], *, title: str, labels: tuple[str, str], classes: Sequence[str]) -> Markup:
    """Draw shares of a whole over time, a bar per moment, the first class at the bottom."""
    x = Scale(0, len(rows), LEFT, WIDTH - RIGHT)
    marks = []
    for number, row in enumerate(rows):
        whole, y = sum(row) or 1.0, Scale(0, 1, HEIGHT - BOTTOM, TOP)
        tops = list(accumulate(row))
        for value, top, name in zip(row, tops, classes, strict=True):
            low, high = y((top - value) / whole), y(top / whole)
            marks.append(_rect(x(number) + 1, high, x(number + 1) - x(number) - 2, low - high, name))
    return _svg(title, [*marks, *_ends(labels)])


def columns(values: Sequence[float], names: Sequence[str], shown: Sequence[str], *, title: str) -> Markup:
    """Draw a column per name with its value above."""
    x, y = Scale(0, len(values), LEFT, WIDTH - RIGHT), Scale(0, max([*values, 1e-9]), HEIGHT - BOTTOM, TOP + 14)
    marks = []
    for place, (value, name, text) in enumerate(zip(values, names, shown, strict=True)):
        left, width = x(place) + 3, x(1) - x(0) - 6
        marks.append(_rect(left, y(value), width, y(0) - y(value), "mark"))
        marks.append(_text(left + width / 2, y(value) - 5, text, "value", "middle"))
        marks.append(_text(left + width / 2, HEIGHT - 8, name, "tick", "middle"))
    return _svg(title, marks)


def line(
    points: Sequence[tuple[float, float]],
    *,
    title: str,
    x_ticks: Sequence[tuple[float, str]],
    y_ticks: Sequence[tuple[float, str]],
) -> Markup:
    """Draw a rising line above its area, with marked ticks on both axes."""
    left = 74.0
    x = Scale(points[0][0], points[-1][0], left, WIDTH - 30)
    y = Scale(0.0, max([y for _, y in points] + [tick for tick, _ in y_ticks]) or 1.0, HEIGHT - BOTTOM, TOP)
    marks = [f'<line class="grid" x1="{left}" x2="{WIDTH}" y1="{y(at)}" y2="{y(at)}"/>' for at, _ in y_ticks]
    marks += [_text(left - 8, y(at) + 4, text, "tick", "end") for at, text in y_ticks]
    marks += [_text(x(at), HEIGHT - 6, text, "tick", "middle") for at, text in x_ticks]
    path = " ".join(f"{x(px)},{y(py)}" for px, py in points)
    marks.append(f'<polygon class="area" points="{x(points[0][0])},{y(0)} {path} {x(points[-1][0])},{y(0)}"/>')
    marks.append(f'<polyline class="line" points="{path}"/>')
    return _svg(title, marks)


def interval(
    found: tuple[float, float, float], *, span: tuple[float, float], title: str, promised: float | None = None
) -> Markup:
    """Draw an estimate as a dot in its interval, what was promised as a diamond, and nothing as a line at 0."""
    width, middle = 220.0, 14.0
    x = Scale(*span, 8, width - 8)
    value, lower, upper = (x(min(max(one, span[0]), span[1])) for one in found)
    marks = [f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="2" y2="26"/>']
    marks.append(f'<line class="whisker" x1="{lower}" x2="{upper}" y1="{middle}" y2="{middle}"/>')
    marks.append(f'<circle class="dot" cx="{value}" cy="{middle}" r="5"/>')
    if promised is not None:
        at = x(min(max(promised, span[0]), span[1]))
        corners = f"{at},{middle - 7} {at + 6},{middle} {at},{middle + 7} {at - 6},{middle}"
        marks.append(f'<polygon class="promise" points="{corners}"/>')
    return _svg(title, marks, size=(width, 28.0), name="interval")


def spark(values: Sequence[float | None], *, title: str) -> Markup:
    """Draw a figure's course without axes, and its last value as a dot."""
    known = [(place, value) for place, value in enumerate(values) if value is not None]
    if not known:
        return Markup()
    x = Scale(0, max(len(values) - 1, 1), 4, 116)
    low, high = min(v for _, v in known), max(v for _, v in known)
    y = Scale(low, high, 24, 4) if high > low else Scale(low - 1, high + 1, 24, 4)
    marks = [f'<polyline class="line" points="{" ".join(f"{x(p)},{y(v)}" for p, v in known)}"/>']
    marks.append(f'<circle class="dot" cx="{x(known[-1][0])}" cy="{y(known[-1][1])}" r="3"/>')
    return _svg(title, marks, size=(120.0, 28.0), name="spark")


def _svg(
    title: str, marks: Sequence[str], *, size: tuple[float, float] = (WIDTH, HEIGHT), name: str = "chart"
) -> Markup:
    return Markup(  # noqa: S704 (every text in it was escaped)
        f'<svg class="{name}" viewBox="0 0 {size[0]:g} {size[1]:g}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(marks)}</svg>"
    )


def _rect(x: float, y: float, width: float, height: float, name: str) -> str:
    return f'<rect class="{name}" x="{x:g}" y="{y:g}" width="{max(width, 0):g}" height="{max(height, 0):g}"/>'


def _text(x: float, y: float, text: str, name: str, anchor: str) -> str:
    return f'<text class="{name}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def _ends(labels: tuple[str, str]) -> list[str]:
    return [
        _text(LEFT, HEIGHT - 6, labels[0], "tick", "start"),
        _text(WIDTH - RIGHT, HEIGHT - 6, labels[1], "tick", "end"),
    ]
