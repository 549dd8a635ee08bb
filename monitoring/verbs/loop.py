"""What needs every layer: the whole loop, its examination, a training that is watched from then on, and retention."""

from dataclasses import asdict
from typing import Annotated

import typer

from features.home import Home
from features.verbs.terminal import DEFAULT_HOME, AsJson, Where, clock, out, say, show, working


def demo(
    home: Where = DEFAULT_HOME,
    *,
    serve: Annotated[bool, typer.Option("--serve", help="Leave the service answering at the end.")] = False,
    port: Annotated[int, typer.Option(help="Where it answers then.")] = 3000,
) -> None:
    """Run the whole loop on a retailer's year: ingest, features, train, promote, decide over HTTP, watch."""
    from monitoring.demo import run_demo

    run_demo(Home(home), console=out, working=working, now=clock, port=port if serve else None)


def doctor(home: Where = DEFAULT_HOME, *, json: AsJson = False) -> None:
    r"""Try what \[engine] names, the champion and the machine, and say how to mend what is ill; exit 1 if one is."""
    from monitoring.doctor.examination import examine
    from monitoring.doctor.finding import findings_sheet

    findings = examine(Home(home), clock=clock)
    if json:
        out.print_json(data=[asdict(one) | {"well": one.well} for one in findings])
    else:
        show(findings_sheet(findings))
    raise typer.Exit(0 if all(one.well for one in findings) else 1)


def train(
    home: Where = DEFAULT_HOME,
    trials: Annotated[int, typer.Option(min=1, help="How many parameter sets to try.")] = 20,
    as_of: Annotated[str, typer.Option(help="Learn only from what was known until this date.")] = "",
    challenger: Annotated[str, typer.Option(help="What to call the release, beside its id.")] = "",
) -> None:
    """Tune, train and judge churn, value and uplift, and write a release that `promote` may put to work."""
    from features.programme import read_programme
    from monitoring.watch import reference_of
    from training.artifacts import open_release
    from training.model_card import sheets
    from training.pipeline import train as train_release
    from training.preparation import Settings, parse_as_of

    settings = Settings(trials=trials, as_of=parse_as_of(as_of, read_programme(Home(home).settings)))
    with working() as progress:
        manifest, fresh = train_release(Home(home), settings=settings, progress=progress, name=challenger)
        # while what it learned from still stands
        reference_of(Home(home), open_release(Home(home).releases, manifest.release_id), progress=progress)
    for sheet in sheets(manifest):
        show(sheet)
    say(f"release {manifest.release_id} {'is written' if fresh else 'stands: nothing changed'}; next: holdfast promote")


def retention(
    home: Where = DEFAULT_HOME,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would go; change nothing.")] = False,
    json: AsJson = False,
) -> None:
    r"""Let go of what is older than \[retention] in holdfast.toml says, beside a running service too; run it daily."""
    from datetime import timedelta

    from features.decisions import open_log
    from features.privacy.retention import PLACES, Ends, find_overdue, let_go, retention_sheet
    from features.programme import read_programme
    from monitoring.outbox import Outbox

    place, now = Home(home), clock()
    programme = read_programme(place.settings)
    ends = Ends(programme.replay_from or now, now, programme.retention)
    if dry_run:
        counts = find_overdue(place, ends)
    else:
        with open_log(place) as log:
            counts = let_go(place, ends, log=log)
    if place.alerts.exists():
        with Outbox(place.alerts) as outbox:
            before = now - timedelta(days=programme.retention.alerts)
            counts["alerts"] = outbox.let_go(before=before, rehearse=dry_run)
    if json:
        out.print_json(data={"dry_run": dry_run, "gone": {place: counts.get(place, 0) for place in PLACES}})
    else:
        show(retention_sheet(counts, programme.retention, rehearsed=dry_run))
