"""Let it serve: releases, what they learned, and which of them decides."""

import getpass
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape

from features.home import Home
from features.verbs.terminal import DEFAULT_HOME, AsJson, Where, clock, err, out, say, show

WHICH: Final = "An id, a name given by train --challenger, champion, or challenger: the one trained last."


def evaluate(
    release: Annotated[str, typer.Argument(help=WHICH)] = "challenger",
    other: Annotated[str, typer.Argument(help="A second one: both side by side, with paired differences.")] = "",
    home: Where = DEFAULT_HOME,
    pictures: Annotated[Path | None, typer.Option(help="Write its pictures, as PNG, into this folder.")] = None,
    *,
    json: AsJson = False,
) -> None:
    """Show what a release learned, how good that is, and against what; or set two side by side."""
    from training.model_card import comparison_sheet, sheets
    from training.releases.ledger import keep_up
    from training.releases.manifest import plain, read_manifest
    from training.releases.names import resolve

    place = Home(home)
    keep_up(place)
    manifest = read_manifest(place.releases / resolve(place, release))
    if pictures:
        from training.registry import save_pictures

        for path in save_pictures(place, manifest.release_id, pictures):
            err.print(escape(str(path)), highlight=False, soft_wrap=True)
    if not other:
        if json:
            out.print_json(data=manifest.evidence)
            return
        for sheet in sheets(manifest):
            show(sheet)
        return
    from features.programme import Programme
    from training.judging.comparison import compare_releases

    compared = compare_releases(place, manifest.release_id, resolve(place, other))
    if json:
        out.print_json(data=plain(compared))
    else:
        show(comparison_sheet(compared, Programme.model_validate(manifest.programme)))


def promote(
    release: Annotated[str, typer.Argument(help=WHICH)] = "challenger",
    home: Where = DEFAULT_HOME,
    *,
    json: AsJson = False,
) -> None:
    """Let the gate judge a release and, if it passes, make it champion; exit 1 if it is refused."""
    from training.model_card import verdict_lines
    from training.pipeline import promote_release
    from training.releases.ledger import champion_id, keep_up

    keep_up(Home(home))
    before = champion_id(Home(home))
    verdict, release_id = promote_release(Home(home), release, who=getpass.getuser(), now=clock())
    serves = verdict.promote or release_id == before
    if json:
        out.print_json(data={"release_id": release_id, "changed": release_id != before and serves, **asdict(verdict)})
    else:
        for line in verdict_lines(verdict, release_id, before=before):
            say(line)
        mended = "docs/promoting.md says what mends each reason against it"
        say(f"next: {'holdfast serve' if serves else mended}")
    raise typer.Exit(0 if serves else 1)


def rollback(home: Where = DEFAULT_HOME) -> None:
    """Go back to the champion before."""
    from training.releases import ledger

    say(f"{ledger.rollback(Home(home), who=getpass.getuser(), now=clock())} is champion again")


def shadow(
    release: Annotated[str, typer.Argument(help=WHICH)] = "challenger",
    home: Where = DEFAULT_HOME,
    *,
    end: Annotated[bool, typer.Option("--end", help="Let none decide beside the champion any more.")] = False,
) -> None:
    """Let a release decide beside the champion on live requests, obeyed by nobody; holdfast monitor shadow compares."""
    from training.releases.ledger import keep_up
    from training.releases.names import resolve
    from training.releases.shadow import begin_shadow, end_shadow

    place = Home(home)
    keep_up(place)
    if end:
        say("there is no shadow any more" if end_shadow(place) else "there was no shadow")
        return
    release_id = resolve(place, release)
    begin_shadow(place, release_id, who=getpass.getuser(), now=clock())
    say(f"{release_id} decides beside the champion within seconds; next: holdfast monitor shadow")


def releases(home: Where = DEFAULT_HOME) -> None:
    """List the releases and every change of champion."""
    from training.model_card import ledger_sheet, releases_sheet
    from training.releases.ledger import keep_up

    keep_up(Home(home))
    show(releases_sheet(Home(home)))
    show(ledger_sheet(Home(home)))
