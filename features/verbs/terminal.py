"""What verbs share: where they print, the options that most of them take, and the clock."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from features.sheet import Sheet

WIDE: Final = 120  # columns where there is no terminal to ask: a log, a pipe
out: Final = Console(width=None if sys.stdout.isatty() else WIDE)
err: Final = Console(stderr=True)

Where = Annotated[Path, typer.Option("--home", envvar="HOLDFAST_HOME", help="The one folder everything is kept in.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")]
DEFAULT_HOME: Final = Path(".holdfast")


@contextmanager
def working() -> Iterator[Callable[[str, int, int], None]]:
    """Show on the error stream what is being done and how far it is; a pipe sees nothing of it.

    A step that begins ends those before it; one of which no more is known than that it goes on has no figures.
    """
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def progress(step: str, done: int, of: int) -> None:
            if step not in tasks:
                for earlier in tasks.values():
                    bars.update(earlier, total=1, completed=1, figures="")
                tasks[step] = bars.add_task(step, figures="")
            figures = f"{done:,}/{of:,}" if of > 1 else ""
            bars.update(tasks[step], total=of if of > 1 or done else None, completed=done, figures=figures)

        yield progress


def show(sheet: "Sheet") -> None:
    """Print a table."""
    from features.layout import lay_out

    out.print()
    out.print(lay_out(sheet, out.width))


def say(line: str) -> None:
    """Print a line as it stands: brackets in it are no markup, and it is cut nowhere."""
    out.print(escape(line), highlight=False, soft_wrap=True)


def clock() -> datetime:
    """Read the clock; the layers are told what it says."""
    return datetime.now(UTC)  # noqa: TID251 (the front door's)
