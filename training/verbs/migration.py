"""Beyond one machine: what a home keeps moves to the servers that its settings name."""

from enum import StrEnum
from typing import Annotated

import typer

from features.home import Home
from features.verbs.terminal import DEFAULT_HOME, AsJson, Where, clock, out, show, working


class Profile(StrEnum):
    """Where parts are kept: local, files of this home; cluster, the servers under [engine] in holdfast.toml."""

    local = "local"
    cluster = "cluster"


def migrate(
    source: Annotated[Profile, typer.Argument(help="From: local, this home's own files; or cluster.")],
    target: Annotated[Profile, typer.Argument(help=r"To: cluster, the servers under \[engine]; or local.")],
    home: Where = DEFAULT_HOME,
    *,
    json: AsJson = False,
) -> None:
    """Copy registry, online store, runs, studies and decisions, and hold the two side by side; exit 1 if they differ.

    It may be killed and run again, and refuses a target that holds something else. Stop the service first.
    """
    from features.migration.move import between
    from features.migration.tally import comparison_sheet
    from features.programme import read_programme
    from training.migration.migration import migrate as move_all

    move = between(Home(home), read_programme(Home(home).settings).engine, source.value, target.value)
    with working() as progress:
        compared = move_all(move, clock=clock, progress=progress)
    if json:
        out.print_json(data=[one.plain() for one in compared])
    else:
        show(comparison_sheet(compared))
    raise typer.Exit(0 if all(one.equal for one in compared) else 1)
