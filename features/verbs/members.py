"""Members' rights: what is held about one of them, and its erasure."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from features.errors import ContractError
from features.home import Home
from features.verbs.terminal import DEFAULT_HOME, AsJson, Where, clock, out, show

member = typer.Typer(name="member", help="What is held about a member: show it, erase it.", no_args_is_help=True)


@member.command("export")
def member_export(
    member_id: Annotated[str, typer.Argument(help="As the company's tables have it.")], home: Where = DEFAULT_HOME
) -> None:
    """Print everything that is held about a member, as JSON lines; `held_in` says where."""
    from features.privacy.export import export_lines
    from features.store import open_store

    for line in export_lines(Home(home), member_id, open_store(Home(home))):
        sys.stdout.write(line)


@member.command("erase")
def member_erase(
    member_id: Annotated[str, typer.Argument(help="As the company's tables have it.", show_default=False)] = "",
    home: Where = DEFAULT_HOME,
    *,
    file: Annotated[Path | None, typer.Option(help="Many at once: CSV or Parquet with a column member_id.")] = None,
    json: AsJson = False,
) -> None:
    """Erase members everywhere, also beside a running service, and print the receipt."""
    from features.decisions import open_log
    from features.privacy.erasure import erase, ids_of, receipt_sheet
    from features.store import open_store

    if bool(member_id) == bool(file):
        raise ContractError("one of a member's id and --file was wanted: holdfast member erase ID")
    ids = ids_of(file) if file else (member_id,)
    with open_log(Home(home)) as log:
        receipt = erase(Home(home), ids, log=log, store=open_store(Home(home)), clock=clock)
    if json:
        out.print_json(data=asdict(receipt))
    else:
        show(receipt_sheet(receipt))
