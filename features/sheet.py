"""A table of text: what every layer hands to the front door, which prints it; MLflow and pages show the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

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

    def table(self) -> "Table":
        """Lay it out for a terminal."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(self.title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for number, name in enumerate(self.header):
            figures = number > 0 and _figures(self.rows, number)
            table.add_column(Text(name), justify="right" if figures else "left", no_wrap=figures)
        for row in self.rows:
            table.add_row(*[Text(cell) for cell in row])
        table.caption = Text("\n".join(self.notes), style="dim", justify="left")
        table.caption_justify = "left"
        return table


def _figures(rows: Sequence[Sequence[str]], column: int) -> bool:
    return any(row[column][:1].isdigit() or row[column][:1] in {"+", "-"} for row in rows)
