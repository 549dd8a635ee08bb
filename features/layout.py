"""How a table of text fits a terminal: where it is too narrow it gets another shape, and nothing of it is cut.

First intervals go below their estimates; then rows become columns, as many beside each other as there is room.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from textwrap import wrap
from typing import TYPE_CHECKING, Final

from features.sheet import Row, Sheet

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

GAP: Final = 2  # characters between columns
NARROW: Final = 14  # characters of a column's name that stay in a line, however short its figures are
LONGEST: Final = 28  # characters of a word; what is longer is a path, and may be broken


@dataclass(frozen=True)
class _Column:
    """Hold a column: figures are kept whole, words may go over lines."""

    name: str
    cells: Row
    figures: bool

    @cached_property
    def heading(self) -> str:
        """Its name, above figures in lines no longer than these: the rows' own names need the room."""
        if not self.figures:
            return self.name
        longest = max(map(len, self.lines), default=0)
        return "\n".join(wrap(self.name, max(longest, NARROW), break_long_words=False, break_on_hyphens=False))

    @cached_property
    def lines(self) -> list[str]:
        """The lines of all cells."""
        return [line for cell in self.cells for line in cell.splitlines()]

    @cached_property
    def whole(self) -> int:
        """How wide it is if no line is broken."""
        return max(map(len, [*self.heading.splitlines(), *self.lines]), default=0)

    @cached_property
    def least(self) -> int:
        """How wide it has to be: as its longest figure is, or its longest word."""
        if self.figures:
            return self.whole
        return min(max(map(len, " ".join([self.name, *self.cells]).split()), default=0), LONGEST)

    def stacked(self) -> "_Column":
        """Break figures where they may be: before an interval, and where they are several words."""
        return _Column(self.name, tuple(map(_stacked, self.cells)), self.figures) if self.figures else self


def lay_out(sheet: Sheet, width: int) -> "Group":
    """Lay a sheet out for a terminal of so many columns."""
    from rich.console import Group
    from rich.text import Text

    tables = [_table(columns, width) for columns in _shapes(sheet.header, sheet.rows, width)]
    return Group(Text(sheet.title, style="bold"), *tables, *[Text(note, style="dim") for note in sheet.notes])


def _shapes(header: Row, rows: Sequence[Row], width: int) -> Iterator[list[_Column]]:
    """Give the columns of one table, or of several where rows become columns."""
    plain = _columns(header, rows)
    stacked = [column.stacked() for column in plain]
    figures = sum(column.figures for column in plain)
    if _least(plain) <= width:
        yield plain
    elif _least(stacked) <= width or 2 * figures < len(header):  # what is mostly words may be broken
        yield stacked
    else:
        yield from _turned(header, rows, width)


def _turned(header: Row, rows: Sequence[Row], width: int) -> Iterator[list[_Column]]:
    """Make rows columns, in as few tables as there is room for; each has one at least."""
    beside: list[Row] = []
    for row in rows:
        if beside and _least(_sideways(header, [*beside, row])) > width:
            yield _sideways(header, beside)
            beside = []
        beside.append(row)
    if beside:
        yield _sideways(header, beside)


def _sideways(header: Row, rows: Sequence[Row]) -> list[_Column]:
    first, *others = zip(header, *rows, strict=True)
    return _columns(first, others)


def _columns(header: Row, rows: Sequence[Row]) -> list[_Column]:
    cells = [tuple(row[number] for row in rows) for number in range(len(header))]
    return [
        _Column(name, own, number > 0 and _are_figures(own))
        for number, (name, own) in enumerate(zip(header, cells, strict=True))
    ]


def _are_figures(cells: Row) -> bool:
    return any(cell[:1].isdigit() or cell[:1] in {"+", "-"} for cell in cells)


def _stacked(cell: str) -> str:
    lines = cell.replace(" [", "\n[").splitlines()
    return "\n".join(part for line in lines for part in ([line] if line[:1] == "[" else wrap(line, NARROW)))


def _least(columns: Sequence[_Column]) -> int:
    """Give how many columns of a terminal a table needs."""
    return sum(column.least + GAP for column in columns)


def _widths(columns: Sequence[_Column], width: int) -> Sequence[int | None]:
    """Give each column what it needs, and share what is left among the words; `None` where it is too much."""
    left = width - _least(columns)
    if left < 0:
        return [None for _ in columns]
    widths = [column.least for column in columns]
    lacking = {number: column.whole - column.least for number, column in enumerate(columns) if not column.figures}
    for number in sorted(lacking, key=lacking.__getitem__):
        more = min(lacking.pop(number), left // (len(lacking) + 1))
        widths[number] += more
        left -= more
    return widths


def _table(columns: Sequence[_Column], width: int) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    for column, room in zip(columns, _widths(columns, width), strict=True):
        table.add_column(
            Text(column.heading), justify="right" if column.figures else "left", width=room, overflow="fold"
        )
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(Text, row))
    return table
