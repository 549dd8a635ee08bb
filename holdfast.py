"""The front door: one verb per step of the loop.

Layers are imported inside the verbs that need them, so that `--help` is fast and serving never loads what only training
needs.
"""

import getpass
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

from features.errors import ContractError, HoldfastError
from features.home import Home

if TYPE_CHECKING:
    from features.programme import Programme
    from features.sheet import Sheet
    from monitoring.verdict import Concluded

HELP = """Who is about to leave, which offer is worth sending to whom, and whether it paid.

New here? [bold]holdfast demo[/] runs the whole loop on a retailer's year. With your own tables:
ingest, features build, features apply, features materialize, train, promote, serve."""
app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)
features = typer.Typer(
    help="What is known of a member as of a time: build, register and serve it.", no_args_is_help=True
)
monitor = typer.Typer(help="Is it still true? A verdict, and an exit code that says it.", no_args_is_help=True)
decisions = typer.Typer(help="What was decided, why, and whether it can be taken again.", no_args_is_help=True)
member = typer.Typer(help="What is held about a member: show it, erase it.", no_args_is_help=True)
report = typer.Typer(help="Whether what was sent paid.", no_args_is_help=True)
app.add_typer(features, name="features", rich_help_panel="Your data")
app.add_typer(decisions, name="decisions", rich_help_panel="Decide")
app.add_typer(member, name="member", rich_help_panel="Members' rights")
app.add_typer(report, name="report", rich_help_panel="Prove it")
app.add_typer(monitor, name="monitor", rich_help_panel="Is it still true?")
keys = typer.Typer(help="Who may ask the service for what.", no_args_is_help=True)
app.add_typer(keys, name="keys", rich_help_panel="Decide")

WIDE = 120  # columns where there is no terminal to ask: a log, a pipe
out = Console(width=None if sys.stdout.isatty() else WIDE)
err = Console(stderr=True)
USAGE = 2

Where = Annotated[Path, typer.Option("--home", envvar="HOLDFAST_HOME", help="The one folder everything is kept in.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")]
Tell = Annotated[bool, typer.Option("--alert/--quiet", help=r"Tell whom \[alerts] in holdfast.toml names.")]
DEFAULT_HOME = Path(".holdfast")
Objective = Literal["profit", "retained_members", "retained_value"]


@app.command(rich_help_panel="Start here")
def demo(
    home: Where = DEFAULT_HOME,
    *,
    serve: Annotated[bool, typer.Option("--serve", help="Leave the service answering at the end.")] = False,
    port: Annotated[int, typer.Option(help="Where it answers then.")] = 3000,
) -> None:
    """Run the whole loop on a retailer's year: ingest, features, train, promote, decide over HTTP, watch."""
    from monitoring.demo import run_demo

    run_demo(Home(home), console=out, working=working, now=_now, port=port if serve else None)


@app.command(rich_help_panel="Start here")
def doctor(home: Where = DEFAULT_HOME, *, json: AsJson = False) -> None:
    r"""Try what \[engine] names, the champion and the machine, and say how to mend what is ill; exit 1 if one is."""
    from monitoring.doctor.examination import examine
    from monitoring.doctor.finding import findings_sheet

    findings = examine(Home(home), clock=_now)
    if json:
        out.print_json(data=[asdict(one) | {"well": one.well} for one in findings])
    else:
        _show(findings_sheet(findings))
    raise typer.Exit(0 if all(one.well for one in findings) else 1)


BUILT_IN = ("complete-journey", "synthetic")
TableFile = Annotated[
    Path | None, typer.Option(help="A CSV or Parquet file; wins over the folder's.", show_default=False)
]


@app.command(rich_help_panel="Your data")
def ingest(
    source: Annotated[
        str,
        typer.Argument(help="A folder of members.csv, transactions.parquet, ..., or complete-journey, or synthetic."),
    ] = "",
    home: Where = DEFAULT_HOME,
    *,
    members: Annotated[
        Path | None,
        typer.Option(help="A CSV or Parquet file; with synthetic: how many members.", show_default=False),
    ] = None,
    transactions: TableFile = None,
    subscriptions: TableFile = None,
    events: TableFile = None,
    offers: TableFile = None,
    contacts: TableFile = None,
    redemptions: TableFile = None,
    database: Annotated[
        str | None,
        typer.Option("--from", help="A database instead: sqlite:shop.db, a DuckDB file, postgres:..., mysql:..."),
    ] = None,
    query: Annotated[list[str] | None, typer.Option(help="With --from: transactions=TABLE or =SELECT ...")] = None,
    mapping: Annotated[
        Path | None, typer.Option(help="A TOML file that says how your columns are called; docs/mappings has two.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--map", help="One column: transactions.amount=net_total, or ='Quantity * Price'."),
    ] = None,
    currency: Annotated[str | None, typer.Option(help="Such as USD; rows that say another are refused.")] = None,
    major_units: Annotated[bool, typer.Option("--major-units", help="Amounts are in dollars, not cents.")] = False,
    timezone: Annotated[str | None, typer.Option(help="Of times that don't say theirs; UTC unless said.")] = None,
    date_format: Annotated[str | None, typer.Option(help="Such as %d/%m/%Y; ISO 8601 unless said.")] = None,
    separator: Annotated[str | None, typer.Option(help="Between a text file's columns.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Of text files; UTF-8 unless said.")] = None,
    add: Annotated[
        bool, typer.Option("--add", help="Add a day's rows to what is there; a row that comes again is replaced.")
    ] = False,
    allow: Annotated[
        str, typer.Option(help="Take a batch that looks wrong: any of shrink,median,columns,types,bad-rows,expired.")
    ] = "",
    init: Annotated[
        Path | None, typer.Option(help="Look at a folder's files and write the mapping.toml they seem to need.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would happen; write nothing.")] = False,
    memory: Annotated[
        float | None, typer.Option(min=0.1, help="GiB that a query may take; a quarter of the machine's unless said.")
    ] = None,
    shape: Annotated[
        str | None, typer.Option(help="With synthetic: retail, subscription or both.", show_default="retail")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="With synthetic: another seed is another world.", show_default="0")
    ] = None,
) -> None:
    """Check a company's tables row by row and bring them into the warehouse.

    Without anything to read it takes the built-in data, complete-journey; synthetic is a world with known truth.
    """
    from features.ingest import bring, ingest_journey, ingest_world, write_proposal
    from features.intake.mapping import option_values, read_mapping
    from features.intake.shifts import parse_allowances
    from features.intake.sources import open_source
    from features.world.source import make_world

    if init:
        path = mapping or init / "mapping.toml"
        _say(write_proposal(init, path))
        _say(f"this is {path}; read it, mend it; next: holdfast ingest {init} --mapping {path} --dry-run")
        return
    shared = {
        "currency": currency, "major_units": major_units, "timezone": timezone, "date_format": date_format,
        "separator": separator, "encoding": encoding, "adds": add,
    }  # fmt: skip
    files = (members, transactions, subscriptions, events, offers, contacts, redemptions)
    allowed, bytes_allowed = parse_allowances(allow), int(memory * 2**30) if memory else None
    if source != "synthetic" and (shape or seed is not None):
        raise ContractError("--shape and --seed are of the synthetic world: holdfast ingest synthetic --shape both")
    if source in BUILT_IN or not (source or database or any(files)):
        if any([mapping, columns, query, dry_run, database, *files[1:], *shared.values()]):
            raise ContractError(
                "the built-in data take no mapping, no rehearsal and no addition; name a folder, files, or --from"
            )
        if source == "synthetic":
            world = make_world(str(members or 10_000), shape or "retail")
            brought = ingest_world(Home(home), world, seed or 0, allow=allowed, memory=bytes_allowed)
        elif members or allowed or memory:
            raise ContractError("complete-journey takes no other option; for synthetic members type its name")
        else:
            brought = ingest_journey(Home(home))
    else:
        options = option_values(maps=columns or (), queries=query or (), shared=shared)
        brought = bring(
            Home(home),
            open_source(source, files, database),
            read_mapping(mapping, options),
            allow=allowed,
            now=_now(),
            rehearse=dry_run,
            memory=bytes_allowed,
        )
    _show(brought.sheet)
    _say("nothing changed since the last ingest" if not brought.fresh else _next(dry_run=dry_run))


def _next(*, dry_run: bool) -> str:
    return "next: the same without --dry-run" if dry_run else "next: holdfast features build"


@app.command(rich_help_panel="Your data")
def offers(home: Where = DEFAULT_HOME, *, json: AsJson = False) -> None:
    """Show what may be sent, to whom and under which limits; exit 1 if anything in it is wrong."""
    from features.offer_sheet import offers_sheet
    from features.offers import check_catalogue, read_catalogue
    from features.programme import read_programme
    from features.warehouse import open_warehouse

    programme = read_programme(Home(home).settings)
    catalogue = read_catalogue(open_warehouse(Home(home)), programme)
    faults = check_catalogue(catalogue.offers, programme, programme.replay_from or _now())
    if json:
        out.print_json(data={"catalogue_id": catalogue.catalogue_id, **catalogue.to_json(), "faults": faults})
    else:
        _show(offers_sheet(catalogue, programme, faults))
        _say(f"{len(faults)} faults" if faults else "nothing is wrong with it")
    raise typer.Exit(1 if faults else 0)


@features.command("list")
def features_list() -> None:
    """Print the catalogue: every feature, its meaning, unit, range and purpose."""
    from features.transforms import catalogue_sheet

    _show(catalogue_sheet())


@features.command("build")
def features_build(home: Where = DEFAULT_HOME) -> None:
    """Compute the weekly snapshots that are missing or whose data changed."""
    from features.snapshots import build

    with working() as progress:
        dates = build(Home(home), progress=progress)
    _say(f"{len(dates)} snapshots, {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}; next: holdfast features apply")


@features.command("apply")
def features_apply(home: Where = DEFAULT_HOME) -> None:
    """Write the definitions into Feast's registry."""
    from features.store import open_store

    open_store(Home(home)).apply()
    _say("the definitions are in the registry; next: holdfast features materialize")


@features.command("materialize")
def features_materialize(home: Where = DEFAULT_HOME) -> None:
    """Bring the latest snapshot into the online store, where the service reads it."""
    from features.live import materialize
    from features.snapshots import built
    from features.store import open_store

    as_of = built(Home(home))[-1]
    materialize(open_store(Home(home)), as_of, now=_now())
    _say(f"the online store holds the features of {as_of:%Y-%m-%d %H:%M} UTC; next: holdfast train")


@features.command("check")
def features_check(
    home: Where = DEFAULT_HOME,
    points: Annotated[int, typer.Option(min=1, help="How many (member, snapshot) points are drawn.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    *,
    json: AsJson = False,
) -> None:
    """Prove that training and serving see the same numbers, and nothing of the future; exit 1 where they differ."""
    import numpy as np

    from features.as_of.parity import check, sheet

    with working() as progress:
        found = check(Home(home), points=points, rng=np.random.default_rng(seed), progress=progress)
    if json:
        out.print_json(data=[asdict(one) for one in found], default=str)
    else:
        _show(sheet(found))
        if found[0].points < points:
            _say(f"{points:,} points were asked for, {found[0].points:,} are all there are")
    raise typer.Exit(1 if any(one.differing for one in found) else 0)


WHICH = "An id, a name given by train --challenger, champion, or challenger: the one trained last."


@app.command(rich_help_panel="Learn, and let it serve")
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
        _show(sheet)
    _say(
        f"release {manifest.release_id} {'is written' if fresh else 'stands: nothing changed'}; next: holdfast promote"
    )


@app.command(rich_help_panel="Learn, and let it serve")
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
    from training.releases.manifest import plain, read_manifest
    from training.releases.names import resolve

    place = Home(home)
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
            _show(sheet)
        return
    from features.programme import Programme
    from training.judging.comparison import compare_releases

    compared = compare_releases(place, manifest.release_id, resolve(place, other))
    if json:
        out.print_json(data=plain(compared))
    else:
        _show(comparison_sheet(compared, Programme.model_validate(manifest.programme)))


@app.command(rich_help_panel="Learn, and let it serve")
def promote(
    release: Annotated[str, typer.Argument(help=WHICH)] = "challenger",
    home: Where = DEFAULT_HOME,
    *,
    json: AsJson = False,
) -> None:
    """Let the gate judge a release and, if it passes, make it champion; exit 1 if it is refused."""
    from training.model_card import verdict_lines
    from training.pipeline import promote_release

    verdict, release_id = promote_release(Home(home), release, who=getpass.getuser(), now=_now())
    if json:
        out.print_json(data={"release_id": release_id, **asdict(verdict)})
    else:
        for line in verdict_lines(verdict, release_id):
            _say(line)
        mended = "docs/promoting.md says what mends each reason against it"
        _say(f"next: {'holdfast serve' if verdict.promote else mended}")
    raise typer.Exit(0 if verdict.promote else 1)


@app.command(rich_help_panel="Learn, and let it serve")
def rollback(home: Where = DEFAULT_HOME) -> None:
    """Go back to the champion before."""
    from training.releases import ledger

    _say(f"{ledger.rollback(Home(home), who=getpass.getuser(), now=_now())} is champion again")


@app.command(rich_help_panel="Learn, and let it serve")
def shadow(
    release: Annotated[str, typer.Argument(help=WHICH)] = "challenger",
    home: Where = DEFAULT_HOME,
    *,
    end: Annotated[bool, typer.Option("--end", help="Let none decide beside the champion any more.")] = False,
) -> None:
    """Let a release decide beside the champion on live requests, obeyed by nobody; holdfast monitor shadow compares."""
    from training.releases.names import resolve
    from training.releases.shadow import begin_shadow, end_shadow

    place = Home(home)
    if end:
        _say("there is no shadow any more" if end_shadow(place) else "there was no shadow")
        return
    release_id = resolve(place, release)
    begin_shadow(place, release_id, who=getpass.getuser(), now=_now())
    _say(f"{release_id} decides beside the champion within a second; next: holdfast monitor shadow")


@app.command(rich_help_panel="Learn, and let it serve")
def releases(home: Where = DEFAULT_HOME) -> None:
    """List the releases and every change of champion."""
    from training.model_card import ledger_sheet, releases_sheet

    _show(releases_sheet(Home(home)))
    _show(ledger_sheet(Home(home)))


@app.command(rich_help_panel="Decide")
def decide(
    home: Where = DEFAULT_HOME,
    audience: Annotated[
        str | None,
        typer.Option(
            help="A CSV or Parquet file with member_id, a segment, stage or tier, or a rule such as "
            "'recency_days > 60'; everybody who is active unless said.",
            show_default=False,
        ),
    ] = None,
    *,
    campaign: Annotated[str | None, typer.Option(help="Its id: what the decisions are logged under.")] = None,
    budget: Annotated[int | None, typer.Option(help="Of all contacts' expected cost, in minor units (cents).")] = None,
    path: Annotated[Path, typer.Option("--out", help="Where the decisions go: a .parquet or a .csv file.")] = Path(
        "decisions.parquet"
    ),
    objective: Annotated[Objective | None, typer.Option(help="Another one than the campaign's.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed draws again.")] = 0,
    bom: Annotated[bool, typer.Option("--bom", help="Begin a CSV with the mark by which Excel knows UTF-8.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what budgets would earn; decide nothing.")] = False,
    json: AsJson = False,
) -> None:
    """Decide a whole audience under a budget, into a file and into the log; the same again goes on where it stopped."""
    from features.programme import read_programme
    from serving.batch.closing import closing_sheet, preview_batch, preview_sheet, write_decisions
    from serving.batch.output import check_output
    from serving.batch.plan import Request, plan_batch
    from serving.batch.run import decide_batch

    check_output(path)
    programme = read_programme(Home(home).settings)
    plan = plan_batch(Home(home), Request(audience, campaign, budget, objective, seed))
    now = programme.replay_from or _now()
    with working() as progress:
        if dry_run:
            preview = preview_batch(plan, now=now, progress=progress)
        else:
            batch = decide_batch(plan, now=now, progress=progress)
            closing = write_decisions(plan, batch, path, progress=progress, marked=bom)
    if json:
        out.print_json(data=preview.to_json() if dry_run else closing.to_json())
    else:
        _show(preview_sheet(preview, programme) if dry_run else closing_sheet(closing, path, programme))


@app.command(rich_help_panel="Decide")
def serve(
    home: Where = DEFAULT_HOME,
    host: Annotated[str, typer.Option(help="Without keys (holdfast keys) only loopback.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any free one.")] = 3000,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that answer; as holdfast.toml says unless said.")
    ] = None,
) -> None:
    """Answer decisions over HTTP until stopped."""
    from serving.service import serve as answer

    def ready(address: str) -> None:
        print(f"holdfast answers on {address}", flush=True)  # noqa: T201 (plain: scripts read it)

    answer(Home(home), host=host, port=port, workers=workers, ready=ready)


SHOWN_ONCE = "shown this once, and kept nowhere; a service that runs takes it at once"


@keys.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="Of the system that will ask.")],
    home: Where = DEFAULT_HOME,
    *,
    scope: Annotated[
        list[str],
        typer.Option(help="decide, outcome, batch, metrics, admin, privacy, report, explain; again for more."),
    ],
    expires: Annotated[str, typer.Option(help="Such as 90d; never unless said.", show_default=False)] = "",
    rate: Annotated[
        int | None, typer.Option(min=1, help="Requests a second, of each process; as holdfast.toml says unless said.")
    ] = None,
) -> None:
    """Make a key; from the first on, every call but /livez and /readyz needs one."""
    from serving.keys import create_key, parse_period

    lasts = parse_period(expires) if expires else None
    print(create_key(Home(home).keys, name, scope, now=_now(), lasts=lasts, per_second=rate))  # noqa: T201 (plain)
    err.print(SHOWN_ONCE)


@keys.command("list")
def keys_list(home: Where = DEFAULT_HOME) -> None:
    """List the keys; none can be read from it."""
    from serving.keys import keys_sheet, read_keys

    _show(keys_sheet(read_keys(Home(home).keys), _now()))


@keys.command("rotate")
def keys_rotate(
    name: Annotated[str, typer.Argument(help="Of the key.")],
    home: Where = DEFAULT_HOME,
    keep: Annotated[str, typer.Option(help="How long the old one still opens.")] = "24h",
) -> None:
    """Make another key of the same name and scopes; both are valid until the old one ends."""
    from serving.keys import parse_period, rotate_key

    print(rotate_key(Home(home).keys, name, now=_now(), keep=parse_period(keep)))  # noqa: T201 (plain)
    err.print(f"{SHOWN_ONCE}; the old one ends in {keep}")


@keys.command("revoke")
def keys_revoke(
    name: Annotated[str, typer.Argument(help="Of the key.")],
    home: Where = DEFAULT_HOME,
) -> None:
    """Let a key, and one that it is being rotated from, open nothing from now on."""
    from serving.keys import revoke_key

    _say(f"{revoke_key(Home(home).keys, name)} revoked; a service that runs refuses it at once")


@decisions.command("show")
def decisions_show(
    decision_id: Annotated[str, typer.Argument(help="As the answer of /v1/decisions named it.")],
    home: Where = DEFAULT_HOME,
    *,
    language: Annotated[Literal["en", "zh"], typer.Option(help="Of the explanation.")] = "en",
    json: AsJson = False,
) -> None:
    """Show one decision: what was possible, why not the rest, what each would bring and cost, and what was drawn."""
    from features.decisions import find_decision
    from features.programme import read_programme
    from serving.explanation import explain
    from serving.replay import as_json, decider_of, decision_sheet

    row = find_decision(Home(home).decisions, decision_id)
    if json:
        out.print_json(data=as_json(row))
    else:
        _show(decision_sheet(row, read_programme(Home(home).settings)))
        for line in explain(decider_of(Home(home), row), row, language):
            _say(line)


@decisions.command("drain")
def decisions_drain(home: Where = DEFAULT_HOME, *, json: AsJson = False) -> None:
    """Carry over what the Postgres of holdfast.toml lacks of the decision log: once, as after a batch."""
    from features.decisions import SharedLog
    from features.log.drain import drain
    from features.programme import read_programme

    place = Home(home)
    if (address := read_programme(place.settings).engine.decisions) == "sqlite":
        raise ContractError(
            'there is nowhere to drain to; set [engine] decisions = "postgresql://..." in holdfast.toml'
        )
    with SharedLog(place.decisions) as log:
        carried = drain(log, place.decisions, address)
    if json:
        out.print_json(data={"changes": carried})
    else:
        _say(f"{carried:,} changes were carried over")


@decisions.command("replay")
def decisions_replay(
    decision_id: Annotated[str, typer.Argument(help="One decision.", show_default=False)] = "",
    home: Where = DEFAULT_HOME,
    *,
    sample: Annotated[int | None, typer.Option(min=1, help="So many, drawn from the log.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    every: Annotated[bool, typer.Option("--all", help="Every decision in the log.")] = False,
    json: AsJson = False,
) -> None:
    """Take decisions again from release, catalogue, features and draw; exit 1 if one differs from the log in a byte."""
    import numpy as np

    from serving.replay import differing_sheet, replay, rows_to_replay

    rows = rows_to_replay(Home(home), decision_id, sample=sample, every=every, rng=np.random.default_rng(seed))
    with working() as progress:
        found = replay(Home(home), rows, progress=progress)
    differing = [one for one in found if one.differing]
    if json:
        out.print_json(data=[asdict(one) for one in found])
    else:
        if differing:
            _show(differing_sheet(differing))
        same = len(found) - len(differing)
        _say(f"{same:,} of {len(found):,} decisions came out byte for byte as they were logged")
    raise typer.Exit(1 if differing else 0)


@app.command(rich_help_panel="Decide")
def outcomes(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="CSV, Parquet or JSON lines: outcome_id, decision_id or contact_id, kind, occurred_at, amount."
        ),
    ] = None,
    home: Where = DEFAULT_HOME,
    *,
    unmatched: Annotated[
        bool, typer.Option("--unmatched", help="List the outcomes whose decision has not come.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Record what followed decisions, from a file, in any order and any number of times."""
    from features.outcomes import bring_outcomes, received_sheet, unmatched_outcomes, unmatched_sheet

    if (file is None) != unmatched:
        raise ContractError("type either a file of outcomes or --unmatched")
    if file is None:
        rows = unmatched_outcomes(Home(home))
        if json:
            out.print_json(data=rows, default=str)
        else:
            _show(unmatched_sheet(rows))
        return
    with working() as progress:
        received = bring_outcomes(Home(home), file, now=_now(), progress=progress)
    if json:
        out.print_json(data=asdict(received), default=str)
    else:
        _show(received_sheet(received))


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
    from features.decisions import SharedLog
    from features.privacy.erasure import erase, ids_of, receipt_sheet
    from features.store import open_store

    if bool(member_id) == bool(file):
        raise ContractError("one of a member's id and --file was wanted: holdfast member erase ID")
    ids = ids_of(file) if file else (member_id,)
    with SharedLog(Home(home).decisions) as log:
        receipt = erase(Home(home), ids, log=log, store=open_store(Home(home)), clock=_now)
    if json:
        out.print_json(data=asdict(receipt))
    else:
        _show(receipt_sheet(receipt))


@app.command(rich_help_panel="Members' rights")
def retention(
    home: Where = DEFAULT_HOME,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would go; change nothing.")] = False,
    json: AsJson = False,
) -> None:
    r"""Let go of what is older than \[retention] in holdfast.toml says, beside a running service too; run it daily."""
    from datetime import timedelta

    from features.decisions import SharedLog
    from features.privacy.retention import PLACES, Ends, find_overdue, let_go, retention_sheet
    from features.programme import read_programme
    from monitoring.outbox import Outbox

    place, now = Home(home), _now()
    programme = read_programme(place.settings)
    ends = Ends(programme.replay_from or now, now, programme.retention)
    if dry_run:
        counts = find_overdue(place, ends)
    else:
        with SharedLog(place.decisions) as log:
            counts = let_go(place, ends, log=log)
    if place.alerts.exists():
        with Outbox(place.alerts) as outbox:
            before = now - timedelta(days=programme.retention.alerts)
            counts["alerts"] = outbox.let_go(before=before, rehearse=dry_run)
    if json:
        out.print_json(data={"dry_run": dry_run, "gone": {place: counts.get(place, 0) for place in PLACES}})
    else:
        _show(retention_sheet(counts, programme.retention, rehearsed=dry_run))


@report.command("campaign")
def report_campaign(
    campaign_id: Annotated[str, typer.Argument(help="Of decisions, or of the table contacts.")],
    home: Where = DEFAULT_HOME,
    picture: Annotated[Path | None, typer.Option(help="Write what was promised and found by offer, as PNG.")] = None,
    *,
    json: AsJson = False,
) -> None:
    """Show what a campaign sent, cost and brought against its hold-out, beside what was promised and other policies."""
    import numpy as np

    from features.files import write_whole
    from features.programme import read_programme
    from training.releases.manifest import plain
    from training.reporting import campaign, sheet

    programme = read_programme(Home(home).settings)
    found = campaign.report_campaign(Home(home), campaign_id, now=_now(), rng=np.random.default_rng(programme.seed))
    if picture:
        write_whole(picture, lambda beside: beside.write_bytes(sheet.picture(found, programme)))
    if json:
        out.print_json(data=plain(found), default=str)
    else:
        for page in sheet.sheets(found, programme):
            _show(page)


@app.command(rich_help_panel="Prove it")
def simulate(
    members: Annotated[int, typer.Option(help="How many there are.")] = 5_000,
    rounds: Annotated[int, typer.Option(min=1, help="Of 28 days each, after a history of eight such waves.")] = 5,
    *,
    seed: Annotated[int, typer.Option(help="Another seed is another world.")] = 0,
    shape: Annotated[str, typer.Option(help="retail, subscription or both.")] = "subscription",
    drift: Annotated[
        str, typer.Option(help="amount, visits, hazard or response, a factor, from a round on: hazard:1.5:4")
    ] = "",
    budget: Annotated[
        str, typer.Option(help="Of a round: cents, or a share of what the oracle would spend, such as 50%.")
    ] = "",
    offers: Annotated[
        Path | None, typer.Option(help="Your own, as TOML or CSV: costs, and to what each appeals.", show_default=False)
    ] = None,
    margin: Annotated[
        float, typer.Option(min=0, help="So many cents a decision may a challenger cost, at its interval's lower end.")
    ] = 0.0,
    same_for_all: Annotated[
        bool, typer.Option("--same-for-all/--heterogeneous", help="Let every offer work alike for everybody.")
    ] = False,
    observable: Annotated[
        bool, typer.Option("--observable/--hidden", help="Let the members' table show the traits behind responses.")
    ] = False,
    json: AsJson = False,
    picture: Annotated[
        Path | None, typer.Option(help="Draw cumulative profit and regret into this PNG.", show_default=False)
    ] = None,
) -> None:
    """Fly the closed loop in a world with known truth: decide, respond, learn, judge, promote, beside its rivals."""
    import numpy as np

    from features.files import write_whole
    from features.world.law import OFFERS
    from training.simulation.loop import simulate as fly
    from training.simulation.plan import alike, make_flight, read_offers
    from training.simulation.sheets import closing_sheet, flight_json, flight_picture, rounds_sheet

    sold = read_offers(offers) if offers else OFFERS
    plan = make_flight(
        members,
        shape=shape,
        rounds=rounds,
        drift=drift,
        budget=budget,
        offers=alike(sold) if same_for_all else sold,
        margin=margin,
        observable=observable,
    )
    with working() as progress:
        rows = fly(plan, np.random.default_rng(seed), progress)
    if json:
        out.print_json(data=flight_json(rows, plan))
    else:
        _show(rounds_sheet(rows, plan))
        _show(closing_sheet(rows, plan))
    if picture:
        png = flight_picture(rows, plan)
        write_whole(picture, lambda path: path.write_bytes(png))
        err.print(escape(str(picture)), highlight=False, soft_wrap=True)


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
        now = programme.replay_from or _now()
        verdict, report = watch_drift(Home(home), weeks=weeks, now=now, progress=progress)
    if json:
        out.print_json(data=verdict.to_json())
    else:
        out.print(verdict_table(verdict, programme))
        _say(f"the report: {report}")
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
        found = watch_performance(Home(home), now=_now(), progress=progress)
    if json:
        out.print_json(data=plain(found.to_json()), default=str)
    else:
        for sheet in performance_sheets(found, programme):
            _show(sheet)
        _say(found.sentence)
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
    now = programme.replay_from or _now()
    with working() as progress:
        pulls = pull_triggers(Home(home), programme, out=folder, now=now, rehearse=dry_run, progress=progress)
    if json:
        out.print_json(data=pulls.to_json())
    else:
        _show(triggers_sheet(pulls, programme))
        _say(pulls.sentence)
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
            _show(sheet)
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
        view = gather(Home(home), written=_now(), progress=progress)
    if file:
        write_page(file, view, language)
    paths = [file] if file else [] if json else write_pages(Home(home), view)
    if json:
        out.print_json(data=view.to_json(), default=str)
    else:
        _say(f"the report: {', '.join(map(str, paths))}")


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
        took = send_test(programme.alerts, programme, now=_now())
        for target, failure in took:
            _say(f"{target}: {failure or 'taken'}")
        if not took:
            raise ContractError(
                'no target is set up; in holdfast.toml, below [alerts]: targets = ["slack://..."], as Apprise writes it'
            )
        raise typer.Exit(int(any(failure for _, failure in took)))
    with Outbox(Home(home).alerts) as outbox:
        if retry:
            _say(f"{outbox.revive(now=_now())} dead letters wait again")
        if send or retry:
            sent, failed = deliver(outbox, targets(programme.alerts), now=_now(), rng=np.random.default_rng())
            _say(f"{sent} messages were taken, {failed} were not")
        for sheet in alerts_sheets(outbox, programme.alerts):
            _show(sheet)
        raise typer.Exit(int(bool(outbox.messages("dead")) or (send and failed > 0)))


def _tell(home: Home, verdict: "Concluded", source: str, programme: "Programme") -> None:
    """Raise a verdict's alerts; whoever watches the screen sees what became of them on the error stream."""
    if not (programme.alerts.targets or programme.alerts.alertmanager):
        return
    import numpy as np

    from monitoring.delivery import raise_alerts

    news = raise_alerts(home, verdict, source, programme=programme, now=_now(), rng=np.random.default_rng())
    err.print(f"{news} alerts are new, repeated or over; holdfast monitor alerts shows what was delivered")


def _cure(home: Home, verdict: "Concluded", programme: "Programme", *, alert: bool) -> None:
    """Let a verdict start a training where the settings say so; what comes of it is told like a verdict."""
    if not programme.cure.train or verdict.status == "no_drift":
        return
    from monitoring.cure import start_cure

    with working() as progress:
        cured = start_cure(home, verdict.status, programme, now=_now(), progress=progress)
    if isinstance(cured, str):
        err.print(escape(f"no training was started: {cured}"), highlight=False, soft_wrap=True)
        return
    err.print(escape(cured.sentence), highlight=False, soft_wrap=True)
    if alert:
        _tell(home, cured, "cure", programme)


@contextmanager
def working() -> Iterator[Callable[[str, int, int], None]]:
    """Show on the error stream what is being done and how far it is; a pipe sees nothing of it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def progress(step: str, done: int, of: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=of)
            bars.update(tasks[step], completed=done)

        yield progress


def main() -> None:
    """Run a verb; what a person can mend is one line and exit code 2."""
    quiet_dependencies()
    try:
        app()
    except HoldfastError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise SystemExit(USAGE) from None


def quiet_dependencies() -> None:
    """Set one clock and switch every telemetry off, before any library is imported that reads these."""
    # threads of XGBoost that wait without spinning: beside another busy process a fit took 18 s with, 0.6 s without
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    switches = {"BENTOML_DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}
    os.environ.update({"TZ": "UTC", "ITERATIVE_DO_NOT_TRACK": "1", "FEAST_USAGE": "False", **switches})
    time.tzset()
    if not sys.warnoptions:
        warnings.simplefilter("ignore", DeprecationWarning)  # of libraries among themselves


def _show(sheet: "Sheet") -> None:
    out.print()
    out.print(sheet.table())


def _say(line: str) -> None:
    out.print(escape(line), highlight=False, soft_wrap=True)


def _now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 (the front door reads the clock)


if __name__ == "__main__":
    main()
