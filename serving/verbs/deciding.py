"""Decide: a whole audience, what was decided, and what followed it."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from features.errors import ContractError
from features.home import Home
from features.verbs.terminal import DEFAULT_HOME, AsJson, Where, clock, out, say, show, working

Objective = Literal["profit", "retained_members", "retained_value"]

decisions = typer.Typer(
    name="decisions", help="What was decided, why, and whether it can be taken again.", no_args_is_help=True
)


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
    to: Annotated[
        str,
        typer.Option(
            "--out", help="Where the decisions go: a .parquet or a .csv file, here or such as s3://bucket/a.csv."
        ),
    ] = "decisions.parquet",
    objective: Annotated[Objective | None, typer.Option(help="Another one than the campaign's.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed draws again.")] = 0,
    bom: Annotated[bool, typer.Option("--bom", help="Begin a CSV with the mark by which Excel knows UTF-8.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what budgets would earn; decide nothing.")] = False,
    json: AsJson = False,
) -> None:
    """Decide a whole audience under a budget, into a file and into the log; the same again goes on where it stopped."""
    import training.lean  # noqa: F401  (before XGBoost itself)

    # isort: split
    from features.programme import read_programme
    from serving.batch.closing import closing_sheet, preview_batch, preview_sheet, write_decisions
    from serving.batch.output import bound_for
    from serving.batch.plan import Request, plan_batch
    from serving.batch.run import decide_batch

    programme = read_programme(Home(home).settings)
    plan = plan_batch(Home(home), Request(audience, campaign, budget, objective, seed))
    now = programme.replay_from or clock()
    with working() as progress, bound_for(to, Home(home)) as path:
        if dry_run:
            preview = preview_batch(plan, now=now, progress=progress)
        else:
            batch = decide_batch(plan, now=now, progress=progress)
            closing = write_decisions(plan, batch, path, progress=progress, marked=bom)
    if json:
        out.print_json(data=preview.to_json() if dry_run else closing.to_json())
    else:
        show(preview_sheet(preview, programme) if dry_run else closing_sheet(closing, to, programme))


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
            show(unmatched_sheet(rows))
        return
    with working() as progress:
        received = bring_outcomes(Home(home), file, now=clock(), progress=progress)
    if json:
        out.print_json(data=asdict(received), default=str)
    else:
        show(received_sheet(received))


@decisions.command("show")
def decisions_show(
    decision_id: Annotated[str, typer.Argument(help="As the answer of /v1/decisions named it.")],
    home: Where = DEFAULT_HOME,
    *,
    language: Annotated[Literal["en", "zh"], typer.Option(help="Of the explanation.")] = "en",
    json: AsJson = False,
) -> None:
    """Show one decision: what was possible, why not the rest, what each would bring and cost, and what was drawn."""
    import training.lean  # noqa: F401  (before XGBoost itself)

    # isort: split
    from features.decisions import find_decision
    from features.programme import read_programme
    from serving.explanation import explain
    from serving.replay import as_json, decider_of, decision_sheet

    row = find_decision(Home(home).decisions, decision_id)
    if json:
        out.print_json(data=as_json(row))
    else:
        show(decision_sheet(row, read_programme(Home(home).settings)))
        for line in explain(decider_of(Home(home), row), row, language):
            say(line)


@decisions.command("drain")
def decisions_drain(home: Where = DEFAULT_HOME, *, json: AsJson = False) -> None:
    """Carry over what the Postgres of holdfast.toml lacks of the decision log: once, as after a batch."""
    from features.decisions import open_log
    from features.log.drain import drain
    from features.programme import read_programme

    place = Home(home)
    if (address := read_programme(place.settings).engine.decisions) == "sqlite":
        raise ContractError(
            'there is nowhere to drain to; set [engine] decisions = "postgresql://..." in holdfast.toml'
        )
    with open_log(place) as log:
        carried = drain(log, place.decisions, address)
    if json:
        out.print_json(data={"changes": carried})
    else:
        say(f"{carried:,} changes were carried over")


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
    import training.lean  # noqa: F401  (before XGBoost itself)

    # isort: split
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
            show(differing_sheet(differing))
        same = len(found) - len(differing)
        say(f"{same:,} of {len(found):,} decisions came out byte for byte as they were logged")
    raise typer.Exit(1 if differing else 0)
