"""Your data: what a company brings, and what is known of its members from it."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from features.errors import ContractError
from features.home import Home
from features.verbs.terminal import DEFAULT_HOME, AsJson, Where, clock, out, say, show, working

BUILT_IN: Final = ("complete-journey", "synthetic")
TableFile = Annotated[
    Path | None, typer.Option(help="A CSV or Parquet file; wins over the folder's.", show_default=False)
]

features = typer.Typer(
    name="features", help="What is known of a member as of a time: build, register and serve it.", no_args_is_help=True
)


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
        say(write_proposal(init, path))
        say(f"this is {path}; read it, mend it; next: holdfast ingest {init} --mapping {path} --dry-run")
        return
    shared = {
        "currency": currency, "major_units": major_units, "timezone": timezone, "date_format": date_format,
        "separator": separator, "encoding": encoding, "adds": add,
    }  # fmt: skip
    files = (members, transactions, subscriptions, events, offers, contacts, redemptions)
    allowed, bytes_allowed = parse_allowances(allow), int(memory * 2**30) if memory else None
    if source != "synthetic" and (shape or seed is not None):
        raise ContractError("--shape and --seed are of the synthetic world: holdfast ingest synthetic --shape both")
    built_in = source in BUILT_IN or not (source or database or any(files))
    if built_in and any([mapping, columns, query, dry_run, database, *files[1:], *shared.values()]):
        raise ContractError(
            "the built-in data take no mapping, no rehearsal and no addition; name a folder, files, or --from"
        )
    if source == "synthetic":
        world = make_world(str(members or 10_000), shape or "retail")
        brought = ingest_world(Home(home), world, seed or 0, allow=allowed, memory=bytes_allowed)
    elif built_in:
        if members or allowed or memory:
            raise ContractError("complete-journey takes no other option; for synthetic members type its name")
        brought = ingest_journey(Home(home))
    else:
        options = option_values(maps=columns or (), queries=query or (), shared=shared)
        brought = bring(
            Home(home),
            open_source(source, files, database),
            read_mapping(mapping, options),
            allow=allowed,
            now=clock(),
            rehearse=dry_run,
            memory=bytes_allowed,
        )
    show(brought.sheet)
    following = "the same without --dry-run" if dry_run else "holdfast features build"
    say(f"next: {following}" if brought.fresh else "nothing changed since the last ingest")


def offers(home: Where = DEFAULT_HOME, *, json: AsJson = False) -> None:
    """Show what may be sent, to whom and under which limits; exit 1 if anything in it is wrong."""
    from features.offer_sheet import offers_sheet
    from features.offers import check_catalogue, read_catalogue
    from features.programme import read_programme
    from features.warehouse import open_warehouse

    programme = read_programme(Home(home).settings)
    catalogue = read_catalogue(open_warehouse(Home(home)), programme)
    faults = check_catalogue(catalogue.offers, programme, programme.replay_from or clock())
    if json:
        out.print_json(data={"catalogue_id": catalogue.catalogue_id, **catalogue.to_json(), "faults": faults})
    else:
        show(offers_sheet(catalogue, programme, faults))
        say(f"{len(faults)} faults" if faults else "nothing is wrong with it")
    raise typer.Exit(1 if faults else 0)


@features.command("list")
def features_list() -> None:
    """Print the catalogue: every feature, its meaning, unit, range and purpose."""
    from features.transforms import catalogue_sheet

    show(catalogue_sheet())


@features.command("build")
def features_build(home: Where = DEFAULT_HOME) -> None:
    """Compute the weekly snapshots that are missing or whose data changed."""
    from features.snapshots import build

    with working() as progress:
        dates = build(Home(home), progress=progress)
    say(f"{len(dates)} snapshots, {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}; next: holdfast features apply")


@features.command("apply")
def features_apply(home: Where = DEFAULT_HOME) -> None:
    """Write the definitions into Feast's registry."""
    from features.store import open_store

    open_store(Home(home)).apply()
    say("the definitions are in the registry; next: holdfast features materialize")


@features.command("materialize")
def features_materialize(home: Where = DEFAULT_HOME) -> None:
    """Bring the latest snapshot into the online store, where the service reads it."""
    from features.live import materialize
    from features.snapshots import built
    from features.store import open_store

    as_of = built(Home(home))[-1]
    materialize(open_store(Home(home)), as_of, now=clock())
    say(f"the online store holds the features of {as_of:%Y-%m-%d %H:%M} UTC; next: holdfast train")


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
        show(sheet(found))
        if found[0].points < points:
            say(f"{points:,} points were asked for, {found[0].points:,} are all there are")
    raise typer.Exit(1 if any(one.differing for one in found) else 0)
