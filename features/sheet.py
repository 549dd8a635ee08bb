"""A table of text: what every layer hands to the front door, which prints it; MLflow and pages show the same."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

Row = tuple[str, ...]
Rows = Sequence[Row]
GAP: Final = 2  # characters between columns
NARROW: Final = 14  # characters of a column's name that stay in a line, however short its figures are
LONGEST: Final = 28  # characters of a word; what is longer is a path, and may be broken
Progress = Callable[[str, int, int], None]  # a step's name, how much of it is done, of how much


def unseen(_step: str, _done: int, _of: int) -> None:
    """Show no progress to anybody."""


@dataclass(frozen=True)
class Sheet:
    """Hold one table; the first column names the row."""

    title: str
    header: Row
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """Write it as Markdown."""
        lines = [f"| {' | '.join(row)} |" for row in (self.header, ("---",) * len(self.header), *self.rows)]
        return "\n\n".join([f"## {self.title}", "\n".join(lines), "\n".join(f"- {note}" for note in self.notes)])

    def _repr_markdown_(self) -> str:
        """Show it in a notebook."""
        return self.markdown()

    def layout(self, width: int) -> "Group":
        """Lay it out for a terminal of so many columns: where it is too narrow, in another shape rather than cut.

        First intervals go below their estimates; then rows become columns, as many beside each other as there is room.
        """
        from rich.console import Group
        from rich.text import Text

        tables = [_table(header, rows, width) for header, rows in _shapes(self.header, self.rows, width)]
        return Group(Text(self.title, style="bold"), *tables, *[Text(note, style="dim") for note in self.notes])


def _shapes(header: Row, rows: Rows, width: int) -> Iterator[tuple[Row, Rows]]:
    figures = [_are_figures(rows, column) for column in range(len(header))]
    stacked = [tuple(_stacked(cell) if are else cell for cell, are in zip(row, figures, strict=True)) for row in rows]
    for shape in (rows, stacked):
        if _least(header, shape) <= width:
            yield header, shape
            return
    if 2 * sum(figures) < len(header):  # mostly words, which may be broken
        yield header, stacked
        return
    left = list(rows)
    while left:
        many = 1
        while many < len(left) and _least(*_turned(header, left[: many + 1])) <= width:
            many += 1
        yield _turned(header, left[:many])
        left = left[many:]


def _stacked(cell: str) -> str:
    lines = cell.replace(" [", "\n[").splitlines()
    return "\n".join(part for line in lines for part in ([line] if line[:1] == "[" else wrap(line, NARROW)))


def _turned(header: Row, rows: Rows) -> tuple[Row, Rows]:
    first, *others = zip(header, *rows, strict=True)
    return first, others


def _table(header: Row, rows: Rows, width: int) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    for column, (name, room) in enumerate(zip(header, _widths(header, rows, width), strict=True)):
        figures = _are_figures(rows, column)
        shown = Text("\n".join(_narrowed(name, rows, column)) if figures else name)
        table.add_column(shown, justify="right" if figures else "left", width=room, overflow="fold")
    for row in rows:
        table.add_row(*[Text(cell) for cell in row])
    return table


def _are_figures(rows: Rows, column: int) -> bool:
    return column > 0 and any(row[column][:1].isdigit() or row[column][:1] in {"+", "-"} for row in rows)


def _widths(header: Row, rows: Rows, width: int) -> Sequence[int | None]:
    """Give each column what it needs, and share what is left among the words; `None` where it is too much."""
    left = width - _least(header, rows)
    if left < 0:
        return [None for _ in header]
    widths = [_narrowest(header, rows, column) for column in range(len(header))]
    words = [column for column in range(len(header)) if not _are_figures(rows, column)]
    lacking = {column: max(map(len, [header[column], *_lines(rows, column)])) - widths[column] for column in words}
    for column in sorted(words, key=lacking.__getitem__):
        more = min(lacking.pop(column), left // (len(lacking) + 1))
        widths[column] += more
        left -= more
    return widths


def _least(header: Row, rows: Rows) -> int:
    """Give how many columns of a terminal are needed."""
    return sum(_narrowest(header, rows, column) + GAP for column in range(len(header)))


def _narrowest(header: Row, rows: Rows, column: int) -> int:
    """Give the width of the longest figure, or in a column of words that of the longest word that is not broken."""
    if _are_figures(rows, column):
        return max(map(len, [*_narrowed(header[column], rows, column), *_lines(rows, column)]), default=0)
    words = " ".join([header[column], *(row[column] for row in rows)]).split()
    return min(max(map(len, words), default=0), LONGEST)


def _lines(rows: Rows, column: int) -> list[str]:
    return [line for row in rows for line in row[column].splitlines()]


def _narrowed(name: str, rows: Rows, column: int) -> list[str]:
    """Break a column's name into lines no longer than its figures: the rows' own names need the room."""
    widest = max(map(len, _lines(rows, column)), default=0)
    return wrap(name, max(widest, NARROW), break_long_words=False, break_on_hyphens=False)
