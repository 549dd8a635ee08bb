"""Prove it: whether what was sent paid, and what the whole loop earns in a world with known truth."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from features.home import Home
from features.verbs.terminal import DEFAULT_HOME, AsJson, Where, clock, err, out, show, working

report = typer.Typer(name="report", help="Whether what was sent paid.", no_args_is_help=True)


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
    found = campaign.report_campaign(Home(home), campaign_id, now=clock(), rng=np.random.default_rng(programme.seed))
    if picture:
        write_whole(picture, lambda beside: beside.write_bytes(sheet.picture(found, programme)))
    if json:
        out.print_json(data=plain(found), default=str)
    else:
        for page in sheet.sheets(found, programme):
            show(page)


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
        show(rounds_sheet(rows, plan))
        show(closing_sheet(rows, plan))
    if picture:
        png = flight_picture(rows, plan)
        write_whole(picture, lambda path: path.write_bytes(png))
        err.print(escape(str(picture)), highlight=False, soft_wrap=True)
