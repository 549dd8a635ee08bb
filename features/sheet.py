"""A table of text: what every layer hands to the front door, which prints it; MLflow and pages show the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Group

GAP: Final = 2  # characters between columns
NARROW: Final = 14  # characters of a column's name that stay in a line, however short its figures are
Progress = Callable[[str, int, int], None]  # a step's name, how much of it is done, of how much


def unseen(_step: str, _done: int, _of: int) -> None:
    """Show no progress to anybody."""


@dataclass(frozen=True)
class Sheet:
    """Hold one table; the first column names the row."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """Write it as Markdown."""
        lines = [f"| {' | '.join(row)} |" for row in (self.header, ("---",) * len(self.header), *self.rows)]
        return "\n\n".join([f"## {self.title}", "\n".join(lines), "\n".join(f"- {note}" for note in self.notes)])

    def _repr_markdown_(self) -> str:
        """Show it in a notebook."""
        return self.markdown()

    def layout(self, width: int) -> "Group":
        """Lay it out for a terminal of so many columns; where it is too narrow, intervals go below their estimates."""
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        figures = [_are_figures(self.rows, column) for column in range(len(self.header))]
        rows = self.rows if _least(self.rows, figures) <= width else [_stacked(row) for row in self.rows]
        whole = _least(rows, figures) <= width  # where not even that fits, figures are broken rather than cut
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
        for column, (name, are) in enumerate(zip(self.header, figures, strict=True)):
            shown = Text(_narrowed(name, rows, column) if are else name)
            table.add_column(shown, justify="right" if are else "left", no_wrap=are and whole, overflow="fold")
        for row in rows:
            table.add_row(*[Text(cell) for cell in row])
        return Group(Text(self.title, style="bold"), table, *[Text(note, style="dim") for note in self.notes])


def _are_figures(rows: Sequence[Sequence[str]], column: int) -> bool:
    return column > 0 and any(row[column][:1].isdigit() or row[column][:1] in {"+", "-"} for row in rows)


def _least(rows: Sequence[Sequence[str]], figures: Sequence[bool]) -> int:
    """Give how many columns of a terminal are needed: those of every figure, and of the longest word beside them."""
    widths = [_widest(rows, column, "\n" if are else None) for column, are in enumerate(figures)]
    return sum(widths) + GAP * len(widths)


def _widest(rows: Sequence[Sequence[str]], column: int, mark: str | None) -> int:
    return max((len(piece) for row in rows for piece in row[column].split(mark)), default=0)


def _stacked(row: Sequence[str]) -> tuple[str, ...]:
    return tuple(cell.replace(" [", "\n[") for cell in row)


def _narrowed(name: str, rows: Sequence[Sequence[str]], column: int) -> str:
    """Break a column's name into lines no longer than its figures: the rows' own names need the room."""
    lines = wrap(name, max(_widest(rows, column, "\n"), NARROW), break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)
