"""Is it still true? Each verb gives a verdict, tells whom it concerns, and exits with it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from features.errors import ContractError
from features.home import Home
from features.verbs.terminal import DEFAULT_HOME, AsJson, Where, clock, err, out, say, show, working
from training.verbs.releases import WHICH

if TYPE_CHECKING:
    from features.programme import Programme
    from monitoring.verdict import Concluded

Tell = Annotated[bool, typer.Option("--alert/--quiet", help=r"Tell whom \[alerts] in holdfast.toml names.")]

monitor = typer.Typer(
    name="monitor", help="Is it still true? A verdict, and an exit code that says it.", no_args_is_help=True
)


@monitor.command("drift")
def monitor_drift(
    home: Where = DEFAULT_HOME,
    weeks: Annotated[int, typer.Option(min=1, help="How many of the last weekly snapshots are compared.")] = 4,
    *,
    alert: Tell = True,
    json: AsJson = False,
) -> None:
    """Compare the last weeks with what the champion learned from; exit 0: no drift, 1: drift, 3: too little data."""
    from features.programme import read_programme
    from monitoring.report import verdict_table
    from monitoring.watch import watch_drift

    programme = read_programme(Home(home).settings)
    with working() as progress:
        now = programme.replay_from or clock()
        verdict, report = watch_drift(Home(home), weeks=weeks, now=now, progress=progress)
    if json:
        out.print_json(data=verdict.to_json())
    else:
        out.print(verdict_table(verdict, programme))
        say(f"the report: {report}")
    if alert:
        _tell(Home(home), verdict, "drift", programme)
    _cure(Home(home), verdict, programme, alert=alert)
    raise typer.Exit(verdict.exit_code)


@monitor.command("performance")
def monitor_performance(home: Where = DEFAULT_HOME, *, alert: Tell = True, json: AsJson = False) -> None:
    """Hold past scores and campaigns against what followed, once it is known; exit 0: as said, 1: not, 3: too early."""
    from features.programme import read_programme
    from monitoring.performance import performance_sheets
    from monitoring.verdict import EXIT_CODES
    from monitoring.watch import watch_performance
    from training.releases.manifest import plain

    programme = read_programme(Home(home).settings)
    with working() as progress:
        found = watch_performance(Home(home), now=clock(), progress=progress)
    if json:
        out.print_json(data=plain(found.to_json()), default=str)
    else:
        for sheet in performance_sheets(found, programme):
            show(sheet)
        say(found.sentence)
    if alert:
        _tell(Home(home), found, "performance", programme)
    _cure(Home(home), found, programme, alert=alert)
    raise typer.Exit(EXIT_CODES[found.status])


@monitor.command("triggers")
def monitor_triggers(
    home: Where = DEFAULT_HOME,
    folder: Annotated[Path, typer.Option("--out", help="The folder that audiences are written to, as CSV.")] = Path(),
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count whom actions would reach; decide nothing.")] = False,
    alert: Tell = True,
    json: AsJson = False,
) -> None:
    r"""Act where a figure stays beyond what \[triggers] allows; exit 0: none is, 1: one is, 3: too little data."""
    from features.programme import read_programme
    from monitoring.triggers import pull_triggers, triggers_sheet
    from monitoring.verdict import EXIT_CODES

    programme = read_programme(Home(home).settings)
    now = programme.replay_from or clock()
    with working() as progress:
        pulls = pull_triggers(Home(home), programme, out=folder, now=now, rehearse=dry_run, progress=progress)
    if json:
        out.print_json(data=pulls.to_json())
    else:
        show(triggers_sheet(pulls, programme))
        say(pulls.sentence)
    if alert and not dry_run:
        _tell(Home(home), pulls, "triggers", programme)
    raise typer.Exit(EXIT_CODES[pulls.status])


@monitor.command("shadow")
def monitor_shadow(
    release: Annotated[str, typer.Argument(help=f"{WHICH} The shadow, unless named.", show_default=False)] = "",
    home: Where = DEFAULT_HOME,
    *,
    json: AsJson = False,
) -> None:
    """Compare what the shadow would have decided with what was decided; exit 0: compared, 3: too little data."""
    from features.programme import read_programme
    from monitoring.shadow import compare_shadow, shadow_sheets
    from training.releases.manifest import plain

    programme = read_programme(Home(home).settings)
    found = compare_shadow(Home(home), release)
    if json:
        out.print_json(data=plain(found))
    else:
        for sheet in shadow_sheets(found, programme):
            show(sheet)
    raise typer.Exit(3 if found.compared is None else 0)


@monitor.command("report")
def monitor_report(
    home: Where = DEFAULT_HOME,
    file: Annotated[
        Path | None, typer.Option("--out", help="One HTML file for mail; without it, the pages that the service shows.")
    ] = None,
    language: Annotated[
        Literal["en", "zh"], typer.Option(help="Of the file: English or Chinese; the service has both.")
    ] = "en",
    *,
    json: AsJson = False,
) -> None:
    """Write the page for people who run the programme: what offers earned, who may leave, and whether it is true."""
    from monitoring.overview.overview import gather
    from monitoring.overview.page import write_page, write_pages

    with working() as progress:
        view = gather(Home(home), written=clock(), progress=progress)
    if file:
        write_page(file, view, language)
    paths = [file] if file else [] if json else write_pages(Home(home), view)
    if json:
        out.print_json(data=view.to_json(), default=str)
    else:
        say(f"the report: {', '.join(map(str, paths))}")


@monitor.command("alerts")
def monitor_alerts(
    home: Where = DEFAULT_HOME,
    *,
    send: Annotated[bool, typer.Option("--send", help="Send what is due; for a clock, every minute.")] = False,
    test: Annotated[bool, typer.Option("--test", help="Send a test message to every target now.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Let dead letters be sent anew.")] = False,
) -> None:
    """Show what fires and what could not be delivered; exit 1 if a message could not."""
    import numpy as np

    from features.programme import read_programme
    from monitoring.delivery import alerts_sheets, deliver, send_test, targets
    from monitoring.outbox import Outbox

    programme = read_programme(Home(home).settings)
    if test:
        took = send_test(programme.alerts, programme, now=clock())
        for target, failure in took:
            say(f"{target}: {failure or 'taken'}")
        if not took:
            raise ContractError(
                'no target is set up; in holdfast.toml, below [alerts]: targets = ["slack://..."], as Apprise writes it'
            )
        raise typer.Exit(int(any(failure for _, failure in took)))
    with Outbox(Home(home).alerts) as outbox:
        if retry:
            say(f"{outbox.revive(now=clock())} dead letters wait again")
        if send or retry:
            sent, failed = deliver(outbox, targets(programme.alerts), now=clock(), rng=np.random.default_rng())
            say(f"{sent} messages were taken, {failed} were not")
        for sheet in alerts_sheets(outbox, programme.alerts):
            show(sheet)
        raise typer.Exit(int(bool(outbox.messages("dead")) or (send and failed > 0)))


def _tell(home: Home, verdict: "Concluded", source: str, programme: "Programme") -> None:
    """Raise a verdict's alerts; whoever watches the screen sees what became of them on the error stream."""
    if not (programme.alerts.targets or programme.alerts.alertmanager):
        return
    import numpy as np

    from monitoring.delivery import raise_alerts

    news = raise_alerts(home, verdict, source, programme=programme, now=clock(), rng=np.random.default_rng())
    err.print(f"{news} alerts are new, repeated or over; holdfast monitor alerts shows what was delivered")


def _cure(home: Home, verdict: "Concluded", programme: "Programme", *, alert: bool) -> None:
    """Let a verdict start a training where the settings say so; what comes of it is told like a verdict."""
    if not programme.cure.train or verdict.status == "no_drift":
        return
    from monitoring.cure import start_cure

    with working() as progress:
        cured = start_cure(home, verdict.status, programme, now=clock(), progress=progress)
    if isinstance(cured, str):
        err.print(escape(f"no training was started: {cured}"), highlight=False, soft_wrap=True)
        return
    err.print(escape(cured.sentence), highlight=False, soft_wrap=True)
    if alert:
        _tell(home, cured, "cure", programme)
