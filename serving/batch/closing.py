"""What a batch came to, and what budgets would bring: for people, and as JSON."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from features.decisions import Batch
from features.log.opening import open_log
from features.programme import Programme
from features.sheet import Progress, Sheet
from serving.batch.output import Tally, counted, decision_rows, write_output
from serving.batch.plan import Plan
from serving.batch.prices import curve, expected_spend, price
from serving.batch.run import decided_parts, left_at_first, running
from serving.batch.turns import purse_of
from serving.decide import Purse
from training.budget import Curve

Z: Final = 1.959964  # the normal quantile of a two-sided 95 %

POINTS: Final = 11  # of the curve
TOLD: Final = 1_000_000  # members by whom it is told, evenly spaced among all


@dataclass(frozen=True)
class Closing:
    """Hold what a batch came to; money in minor units."""

    batch: Batch
    tally: Tally
    refused: int  # rows of the audience's file that are nobody's, or came twice

    def to_json(self) -> dict[str, Any]:
        """Give it as JSON values."""
        batch = asdict(self.batch) | {"decided_at": self.batch.decided_at.isoformat()}
        return batch | {"refused": self.refused} | {name: dict(counts) for name, counts in vars(self.tally).items()}


@dataclass(frozen=True)
class Preview:
    """Hold what would be decided, and what other budgets would bring; money in minor units."""

    members: int
    refused: int
    price: float
    by_chance: float | None  # what chance alone would spend, where that is more than there is
    spent: float  # expected, chance included
    curve: Curve

    def to_json(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return vars(self) | {"curve": {name: values.tolist() for name, values in vars(self.curve).items()}}


def write_decisions(plan: Plan, batch: Batch, out: Path, *, progress: Progress, marked: bool = False) -> Closing:
    """Write the decisions of a batch into one file, and beside it what of the audience's file was not decided on.

    Parameters
    ----------
    marked : whether a CSV begins with the mark by which Excel knows UTF-8
    """
    paths = [plan.home.root / part.path for part in decided_parts(plan.home, batch.batch_id)]
    total = Tally()

    def parts() -> Iterator[pa.Table]:
        for done, path in enumerate(paths):
            progress("writing decisions", done, len(paths))
            rows = decision_rows(path)
            total.add(counted(rows))
            yield rows

    write_output(out, parts(), marked=marked)
    progress("writing decisions", len(paths), len(paths))
    if (refused := plan.audience.refused).num_rows:
        write_output(refused_path(out), [refused], marked=marked)
    return Closing(batch, total, refused.num_rows)


def refused_path(out: Path) -> Path:
    """Say where the rows go that were not decided on."""
    return out.with_name(f"{out.stem}.refused{out.suffix}")


def preview_batch(plan: Plan, *, now: datetime, progress: Progress) -> Preview:
    """Say what would be decided and what budgets would earn; decide nothing and log nothing."""
    decider, left = plan.decider, _left(plan)
    with running(plan, now, progress) as run:
        claims = run.claims(left)
        priced = price(decider, claims, left)
        told = claims.every(-(-len(claims) // TOLD))
    share = len(told) / len(claims)
    spent = min(expected_spend(decider, told, priced.purse) / share, left.budget)  # chance ends with it
    found = curve(told, replace(left, stock=left.stock * share), POINTS)
    found = Curve(found.budget / share, found.earned / share, found.marginal)
    return Preview(len(claims), plan.audience.refused.num_rows, priced.purse.price, priced.by_chance, spent, found)


def _left(plan: Plan) -> Purse:
    if not plan.home.decisions.exists():
        return purse_of(plan, 0, [0] * len(plan.decider.stock), 0)
    with open_log(plan.home) as log:
        return left_at_first(plan, log)


def closing_sheet(closing: Closing, out: str, programme: Programme) -> Sheet:
    """Show what was decided, by offer."""
    tally, money, settings = closing.tally, programme.money, closing.batch.settings
    rows = [
        (offer, f"{n:,}", money(tally.cost[offer]), _range(tally.net_value[offer], tally.error[offer], programme))
        for offer, n in sorted(tally.contacts.items())
    ]
    net = _range(tally.net_value.total(), tally.error.total(), programme)
    total = (f"{tally.contacts.total():,}", money(tally.spent), net)
    arms = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in sorted(tally.outcomes.items()))
    notes = [
        f"{tally.outcomes.total():,} members ({settings['audience']}): {arms}",
        *_budget_notes(settings, programme),
    ]
    if rows:
        notes.append("95 % intervals at their widest: as if every effect were off in the same direction")
    if closing.refused:
        why = f"{refused_path(Path(out)).name}, beside the decisions, says why"
        notes.append(f"{closing.refused:,} rows of the file were not decided on: {why}")
    return Sheet(
        f"batch {closing.batch.batch_id}",
        ("offer", "contacts", "expected cost", "expected net value"),
        (*rows, ("all", *total)),
        tuple(notes),
    )


def preview_sheet(preview: Preview, programme: Programme) -> Sheet:
    """Show what budgets would earn."""
    found = preview.curve
    points = zip(found.budget.tolist(), found.earned.tolist(), found.marginal.tolist(), strict=True)
    rows = tuple((programme.money(budget), programme.money(earned), f"{more:,.2f}") for budget, earned, more in points)
    spent = programme.money(preview.spent)
    notes = (
        f"nothing was decided: {preview.members:,} members would be, for {spent} at a price of {preview.price:,.2f}",
        "earned: expected net value; more: what one more unit of budget earns beyond itself",
        *_chance_notes(preview.by_chance, programme),
        *([f"{preview.refused:,} rows of the file are nobody's, or came twice"] if preview.refused else []),
    )
    return Sheet("what budgets would earn", ("budget", "earned", "more"), rows, notes)


def _range(value: float, error: float, programme: Programme) -> str:
    """Write an amount with its 95 % interval, errors of members that go together."""
    lower, upper = programme.money(value - Z * error), programme.money(value + Z * error)
    return f"{programme.money(value)} [{lower}, {upper}]"


def _budget_notes(settings: Any, programme: Programme) -> Iterator[str]:  # noqa: ANN401 (JSON values)
    if settings["budget"] is not None:
        yield f"budget {programme.money(settings['budget'])}"
    if settings["price"]:
        yield f"money is short: one more {programme.currency} would earn {settings['price']:,.2f} beyond itself"
    yield from _chance_notes(settings["by_chance"], programme)


def _chance_notes(by_chance: float | None, programme: Programme) -> Iterator[str]:
    if by_chance is not None:
        yield (
            f"the budget ends before the audience does: chance alone (exploration, the random arm) would spend "
            f"{programme.money(by_chance)}; give more, or explore less"
        )
