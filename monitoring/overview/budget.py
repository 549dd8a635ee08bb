"""What other budgets would earn, as the champion expects of everybody who is active; nothing is decided for it."""

from dataclasses import dataclass
from datetime import datetime

from features.home import Home
from features.sheet import Progress
from serving.batch.closing import preview_batch
from serving.batch.plan import Request, plan_batch


@dataclass(frozen=True)
class Point:
    """Hold what one budget earns beyond itself, and one more unit of it; money in minor units."""

    budget: float
    earned: float
    marginal: float


@dataclass(frozen=True)
class BudgetCurve:
    """Hold the curve, and what would be spent without a limit, chance included."""

    members: int
    unlimited: float
    points: tuple[Point, ...]


def gather_budget(home: Home, *, now: datetime, progress: Progress) -> BudgetCurve:
    """Ask what budgets would earn.

    Raises
    ------
    ContractError, NotFoundError
        If there is no offer, nobody to send it to, or nothing promoted.
    """
    found = preview_batch(plan_batch(home, Request()), now=now, progress=progress)
    curve = found.curve
    columns = (curve.budget.tolist(), curve.earned.tolist(), curve.marginal.tolist())
    return BudgetCurve(found.members, found.spent, tuple(Point(*point) for point in zip(*columns, strict=True)))
