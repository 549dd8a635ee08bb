"""One decision as a page: what was decided, why, and what was weighed against it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from features.programme import Programme
from features.schema import CONTROL
from serving.explanation import REFUSED, Language
from serving.pages.rendering import render
from serving.pages.texts import Tell, known, teller

if TYPE_CHECKING:
    from serving.desk import Explained


@dataclass(frozen=True)
class Weighed:
    """Hold one offer as it was weighed, in words."""

    offer: str
    uplift: str
    cost: str
    net: str
    refusal: str  # empty where it was possible


def shown(found: "Explained", programme: Programme, language: Language) -> bytes:
    """Lay a decision out."""
    tell, row = teller(language), found.row
    facts = [(tell(f"look_up.{name}"), text) for name, text in _facts(found, programme, tell) if text]
    weighed = [*_weighed(found, programme, language)]
    said = list(found.said) or [tell("look_up.no_explanation")]
    count = found.decisions if found.decisions > 1 else 0
    values = {"facts": facts, "weighed": weighed, "said": said, "count": count, "decision_id": row["decision_id"]}
    return render("look_up.html", language, problem=None, **values).encode()


def nothing_found(problem: str | None, language: Language) -> bytes:
    """Show the form, and why there is nothing to show beside it."""
    return render("look_up.html", language, problem=problem, facts=[]).encode()


def _facts(found: "Explained", programme: Programme, tell: Tell) -> Iterator[tuple[str, str]]:
    row, chosen = found.row, found.row["treatment"]
    offers = dict(zip(row["treatments"][1:], row["net_value"], strict=False))
    yield "treatment", tell("look_up.no_contact") if chosen == CONTROL else chosen
    yield "outcome", known(f"outcome.{row['outcome']}", tell)
    yield "net", programme.money(offers[chosen]) if chosen in offers else ""
    yield "churn", "" if row["churn_probability"] is None else f"{row['churn_probability']:.0%}"
    yield "propensity", f"{row['propensity']:.3f}"
    yield "stage", known(f"stage.{row['lifecycle_stage']}", tell) if row["lifecycle_stage"] else ""
    yield "segment", known(f"segment.{row['segment']}", tell) if row["segment"] else ""
    yield "campaign", row["campaign_id"] or ""
    yield "decided_at", f"{row['decided_at']:%Y-%m-%d %H:%M} UTC"
    yield "member", row["member_id"]
    yield "decision", row["decision_id"]
    yield "release", row["release_id"]


def _weighed(found: "Explained", programme: Programme, language: Language) -> Iterator[Weighed]:
    row: Any = found.row
    columns = (row["uplift"], row["cost"], row["net_value"], row["refusals"])
    for offer, uplift, cost, net, refusal in zip(row["treatments"][1:], *columns, strict=False):
        why = REFUSED[language].get(refusal, refusal).partition("{")[0].strip() if refusal else ""
        yield Weighed(offer, programme.money(uplift), programme.money(cost), programme.money(net), why)
