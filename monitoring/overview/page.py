"""The overview as one HTML page that stands by itself: for a browser, for mail, and on paper."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from features.files import write_whole
from features.home import Home
from monitoring.kpis import Kpi
from monitoring.overview import charts
from monitoring.overview.budget import BudgetCurve
from monitoring.overview.figures import Figures
from monitoring.overview.membership import STAGES, Membership
from monitoring.overview.missing import Missing, counted
from monitoring.overview.overview import Overview
from monitoring.overview.risk import Risk
from monitoring.overview.segments import RfmMap
from serving.explanation import LANGUAGES, Language
from serving.pages.front import MARK, page_path
from serving.pages.rendering import render
from serving.pages.texts import known, teller
from training.metrics import Estimate
from training.reporting.campaign import NOTHING, Design, Effect, Report

TEMPLATES: Final = Path(__file__).with_name("templates")
HEATS: Final = 5  # shades


@dataclass(frozen=True)
class Row:
    """Hold one line of what offers brought: a campaign as a whole, or one of its offers."""

    name: str
    offers: str
    whole: bool
    design: Design
    sent: float
    redeemed: int | None
    cost: float
    effect: Effect
    picture: Markup


def page(view: Overview, language: Language) -> str:
    """Lay the overview out."""
    tell = teller(language)
    figures = Figures(view.programme, language, tell)
    reports = () if isinstance(view.campaigns, Missing) else view.campaigns.reports
    values: dict[str, Any] = {
        "view": view,
        "f": figures,
        "mark": Markup(MARK),  # noqa: S704 (a constant)
        "as_of": None if isinstance(view.membership, Missing) else view.membership.as_of,
        "stages": STAGES,
        "tried": [report for report in reports if report.design != "observational"],
        "observed": [report for report in reports if report.design == "observational"],
        "wholes": lambda some: [*_wholes(some, figures)],
        "offers_of": lambda report: [*_offers(report, figures)],
        "is_missing": lambda panel: isinstance(panel, Missing),
        "heat": heat,
        "counted": counted,
        "spark": lambda kpi: _spark(kpi, figures),
    }
    return render("overview.html", language, folder=TEMPLATES, **values, **_charts(view, figures))


def write_pages(home: Home, view: Overview) -> list[Path]:
    """Write the pages that the service shows, one per language."""
    paths = []
    for language in LANGUAGES:
        path = page_path(home, language)
        write_page(path, view, language)
        paths.append(path)
    return paths


def write_page(path: Path, view: Overview, language: Language) -> None:
    """Write one page, whole or not at all."""
    text = page(view, language)
    write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def heat(members: int | None, most: int) -> str:
    """Name a shade: the darker the more, in steps of equal root; None is fewer than may be told.

    >>> heat(None, 100), heat(1, 100), heat(25, 100), heat(100, 100)
    ('h0', 'h0', 'h2', 'h4')
    """
    return f"h{min(int(HEATS * ((members or 0) / max(most, 1)) ** 0.5), HEATS - 1)}"


def _charts(view: Overview, figures: Figures) -> dict[str, Any]:
    drawn: dict[str, Any] = {}
    if isinstance(view.membership, Membership):
        drawn["stages_chart"] = _stages(view.membership, figures)
    if isinstance(view.segments, RfmMap):
        drawn["most"] = max(cell.members or 0 for row in view.segments.cells for cell in row)
    if isinstance(view.risk, Risk):
        drawn["risk_chart"] = _risk(view.risk, figures)
        plain = {_rival(name, figures): found for name, found in view.risk.auc.items() if name != "model"}
        drawn["rivals"] = ", ".join(f"{name} {figures.plain_range(found)}" for name, found in plain.items())
    if isinstance(view.budget, BudgetCurve):
        drawn["budget_chart"] = _budget(view.budget, figures)
        drawn["judged"] = _judged(view.budget, figures)
    return drawn


def _rival(name: str, figures: Figures) -> str:
    """Name what else ranked who leaves; which feature it was stands in brackets."""
    what, bracket, feature = name.partition(" (")
    return known(f"rival.{what.replace(' ', '_')}", figures.tell) + bracket + feature


def _stages(them: Membership, figures: Figures) -> Markup:
    rows = [[float(n or 0) for n in week.members] for week in them.weeks]
    ends = figures.day(them.weeks[0].as_of), figures.day(them.weeks[-1].as_of)
    title = figures.tell("members.chart", n=len(rows))
    now = ", ".join(f"{known(f'stage.{name}', figures.tell)} {figures.count(n)}" for name, n in them.stages.items())
    return charts.stacked(rows, title=f"{title}: {now}", labels=ends, classes=[f"s{n}" for n in range(len(STAGES))])


def _risk(risk: Risk, figures: Figures) -> Markup:
    last = max((place for place, band in enumerate(risk.bands) if band.members != 0), default=0)
    bands = risk.bands[: last + 1]
    values = [band.at_risk or 0.0 for band in bands]
    names = [band.name for band in bands]
    return charts.columns(values, names, [figures.amount(one) for one in values], title=figures.tell("risk.chart"))


def _budget(curve: BudgetCurve, figures: Figures) -> Markup:
    points = [(point.budget, point.earned) for point in curve.points]

    def marked(high: float) -> list[tuple[float, str]]:
        return [(at, figures.money(at)) for at in charts.ticks(0.0, high)]

    return charts.line(
        points,
        title=figures.tell("budget.chart"),
        x_ticks=marked(points[-1][0]),
        y_ticks=marked(max(earned for _, earned in points)),
    )


def _judged(curve: BudgetCurve, figures: Figures) -> Callable[[Estimate, str], Markup]:
    """Give what draws each judged policy on the scale of all."""
    low = min([0.0, *(found.lower for found in curve.judged.values())])
    high = max([1.0, *(found.upper for found in curve.judged.values())])

    def draw(found: Estimate, name: str) -> Markup:
        policy = known("policy." + name.replace(" ", "_"), figures.tell)
        title = f"{policy}: {figures.money_range(found, sign=True)}"
        return charts.interval((found.value, found.lower, found.upper), span=(low, high), title=title)

    return draw


def _wholes(reports: Sequence[Report], figures: Figures) -> Iterator[Row]:
    """Give a line per campaign, all on one scale."""
    span = _span([report.whole for report in reports])
    for report in reports:
        of = [*report.sent.values()]
        yield Row(
            name=report.campaign_id,
            offers=", ".join(report.sent),
            whole=True,
            design=report.design,
            sent=sum(one.sent for one in of),
            redeemed=sum(one.redeemed for one in of),
            cost=sum(one.cost for one in of),
            effect=report.whole,
            picture=_picture(report.whole, report.campaign_id, span, figures),
        )


def _offers(report: Report, figures: Figures) -> Iterator[Row]:
    """Give a line per offer of a campaign."""
    effects = report.groups.get("offer", {})
    span = _span([*effects.values()])
    for offer, effect in effects.items():
        of = report.sent.get(offer)
        yield Row(
            name=figures.tell("offers.no_offer") if offer == NOTHING else offer,
            offers=offer,
            whole=False,
            design=report.design,
            sent=of.sent if of else effect.sent,
            redeemed=of.redeemed if of else None,
            cost=of.cost if of else effect.cost,
            effect=effect,
            picture=_picture(effect, offer, span, figures),
        )


def _span(effects: Sequence[Effect]) -> tuple[float, float]:
    """Give the values that all of a campaign's pictures show, nothing among them."""
    found = [one.net_value for one in effects if one.net_value]
    promised = [one.promised for one in effects if one.promised is not None]
    low = min([0.0, *promised, *(one.lower for one in found)])
    high = max([0.0, *promised, *(one.upper for one in found)])
    return low, max(high, low + 1.0)


def _picture(effect: Effect, name: str, span: tuple[float, float], figures: Figures) -> Markup:
    if (found := effect.net_value) is None:
        return Markup()
    title = f"{name}: {figures.money_range(found, sign=True)}"
    if effect.promised is not None:
        title += f", {figures.tell('headline.promised')} {figures.money(effect.promised, sign=True)}"
    return charts.interval((found.value, found.lower, found.upper), span=span, title=title, promised=effect.promised)


def _spark(kpi: Kpi, figures: Figures) -> Markup:
    shown = [figures.kpi(value, kpi.unit) for value in kpi.course if value is not None]
    title = f"{figures.tell(f'kpi.{kpi.name}')}: {', '.join(shown)}"
    return charts.spark(kpi.course, title=title)
