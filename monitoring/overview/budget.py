"""What other budgets would earn, as the champion expects of everybody who is active; nothing is decided for it."""

from dataclasses import dataclass
from datetime import datetime

from features.home import Home
from features.sheet import Progress
from serving.batch.closing import preview_batch
from serving.batch.plan import Request, plan_batch
from training.metrics import Estimate


@dataclass(frozen=True)
class Point:
    """Hold what one budget earns beyond itself, and one more unit of it; money in minor units."""

    budget: float
    earned: float
    marginal: float


@dataclass(frozen=True)
class BudgetCurve:
    """Hold the curve, and what would be spent without a limit, chance included.

    `judged` is what the release's policy and its rivals earned over no contact when it was judged, per decision, on
    decisions that it had not learned from: how far the curve can be believed.
    """

    members: int
    unlimited: float
    points: tuple[Point, ...]
    judged: dict[str, Estimate]


def gather_budget(home: Home, *, now: datetime, progress: Progress) -> BudgetCurve:
    """Ask what budgets would earn.

    Raises
    ------
    ContractError, NotFoundError
        If there is no offer, nobody to send it to, or nothing promoted.
    """
    plan = plan_batch(home, Request())
    found = preview_batch(plan, now=now, progress=progress)
    curve, policies = found.curve, plan.decider.release.manifest.evidence["policies"]
    judged = {name: Estimate(**row["against_no_contact"]) for name, row in policies["table"].items()}
    columns = (curve.budget.tolist(), curve.earned.tolist(), curve.marginal.tolist())
    points = tuple(Point(*point) for point in zip(*columns, strict=True))
    return BudgetCurve(found.members, found.spent, points, judged)
