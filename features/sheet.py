"""A table of text: what every layer hands to the front door, which prints it; MLflow and pages show the same."""

from collections.abc import Callable
from dataclasses import dataclass

Row = tuple[str, ...]
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
