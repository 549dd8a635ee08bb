"""A campaign's report as sheets and one picture."""

from collections.abc import Iterator
from typing import Final

from features.programme import Programme
from features.sheet import Sheet
from training.logged.log import BELIEVED_P
from training.metrics import Estimate
from training.reporting.campaign import Design, Effect, Report
from training.reporting.standing import Standing
from training.sheets.pictures import promised_picture

UNKNOWN: Final = "not known"
AGAINST: Final[dict[Design, str]] = {
    "hold_out": "against members who were held out",
    "randomised": "against decisions that were drawn to send nothing",
    "observational": "OBSERVATIONAL: against members who were not chosen, and that shows who was chosen as well",
}
TITLES: Final[dict[Design, str]] = {
    "hold_out": "an experiment with a hold-out",
    "randomised": "a randomised experiment",
    "observational": "OBSERVATIONAL, no experiment",
}


def sheets(report: Report, programme: Programme) -> Iterator[Sheet]:
    """Show what was sent, what it brought by group, and what other policies would have earned."""
    yield _summary(report, programme)
    yield _groups(report, programme)
    if report.standing:
        yield _standing(report, programme)


def picture(report: Report, programme: Programme) -> bytes:
    """Draw the net value found and promised by offer, as a PNG."""
    scale = 10**programme.currency_digits
    found = {
        name: effect for name, effect in {"all": report.whole, **report.groups["offer"]}.items() if effect.net_value
    }
    return promised_picture(
        {name: _scaled(effect.net_value, scale) for name, effect in found.items() if effect.net_value},
        {name: effect.promised / scale for name, effect in found.items() if effect.promised is not None},
        title=f"{report.campaign_id}: {TITLES[report.design]}",
        unit=f"net value, {programme.currency} per decision",
    )


def _summary(report: Report, programme: Programme) -> Sheet:
    whole, money = report.whole, programme.money
    n = whole.decisions
    rows = [
        ("decided for", f"{report.members:,} members, {sum(report.outcomes.values()):,} decisions: {_counts(report)}"),
        *(
            (f"sent: {offer}", f"{of.sent:,}, {of.redeemed:,} redeemed, {money(of.cost)}")
            for offer, of in report.sent.items()
        ),
        ("sent in all", f"{sum(of.sent for of in report.sent.values()):,}, {money(_spent(report))}"),
        ("incremental margin", _total(whole.incremental_margin, n, programme)),
        ("less its cost", _total(whole.net_value, n, programme)),
        ("return on cost (ROI)", _share(whole.return_on_cost)),
        ("promised", UNKNOWN if whole.promised is None else f"{money(whole.promised * n)}, {_kept(whole)}"),
    ]
    if report.smallest_detectable_effect is not None:
        rows.append(("smallest effect it can find", f"{money(report.smallest_detectable_effect)} per decision"))
    if report.cost_to_know:
        known = report.cost_to_know
        rows.append(
            ("expected net value given up to know it", money(known.hold_out + known.random + known.exploration))
        )
        parts = ("hold-out", known.hold_out), ("random arm", known.random), ("exploration", known.exploration)
        rows += [(f"  by the {name}", money(value)) for name, value in parts]
    title = f"Campaign {report.campaign_id}, {report.first:%Y-%m-%d} to {report.last:%Y-%m-%d}: {TITLES[report.design]}"
    return Sheet(title, ("", ""), tuple(rows), tuple(_notes(report)))


def _groups(report: Report, programme: Programme) -> Sheet:
    rows = [("all", report.whole)]
    rows += [(f"{kind}: {name}", effect) for kind, groups in report.groups.items() for name, effect in groups.items()]
    scale = 10**programme.currency_digits
    cells = tuple(
        (
            name,
            f"{effect.decisions:,}",
            f"{effect.compared:,}",
            f"{effect.sent:,}",
            _money(effect.incremental_margin, scale),
            _money(effect.net_value, scale),
            UNKNOWN if effect.promised is None else f"{effect.promised / scale:+,.2f}",
            _kept(effect),
            _share(effect.return_on_cost),
        )
        for name, effect in rows
    )
    header = ("", "decisions", "compared", "sent", "brought", "less its cost", "promised", "kept", "ROI")
    notes = [f"{programme.currency} per decision, {AGAINST[report.design]}; 95 % intervals by member, each by itself."]
    if report.source == "decisions":
        notes.append(
            "By offer: members for whom it was worth most, whatever was sent. Groups are of the first decision."
        )
    if report.whole.adjusted:
        notes.append("Adjusted for the margin that was foreseen, which narrows intervals and moves no effect.")
    return Sheet("What it brought", header, cells, tuple(notes))


def _standing(report: Report, programme: Programme) -> Sheet:
    scale = 10**programme.currency_digits
    rows = tuple(
        (
            name,
            *(
                [f"not known: {row.unseen:.0%} had no chance", "", ""]
                if row.policy_value is None
                else _worth(row, scale)
            ),
            f"{row.effective_sample_size:,.0f}{' (thin)' if row.thin else ''}",
            f"{row.contacted:.0%}",
        )
        for name, row in report.standing.items()
    )
    header = ("", "policy value", "over no contact", "model's lead over it", "worth decisions", "contacted")
    note = (
        f"{programme.currency} per decision after all costs, doubly robust, on decisions that were drawn; who was held "
        "out is left out. The best fixed offer is chosen on the other half of the members."
    )
    return Sheet("Other policies on the same decisions", header, rows, (note,))


def _worth(row: Standing, scale: int) -> list[str]:
    return [_money(of, scale) for of in (row.policy_value, row.against_no_contact)] + [
        "" if row.model_lead is None or row.model_lead.lower == row.model_lead.upper else _money(row.model_lead, scale)
    ]


def _spent(report: Report) -> float:
    return sum(of.cost for of in report.sent.values())


def _notes(report: Report) -> Iterator[str]:
    yield (
        f"Outcomes of {report.attribution_days} days after each decision; margin from {report.margin_from}, "
        f"redemptions from {report.redeemed_from}. {report.waiting:,} decisions wait for their window to pass."
    )
    if report.lost:
        yield f"{report.lost:,} decisions are on members who were erased: nobody knows what followed, so none counts."
    if report.design == "observational":
        yield "OBSERVATIONAL: propensities are missing, so no difference here is an effect of the campaign."
    if not report.in_money:
        yield "Decisions were for members who stay, not for margin: none was promised."
    if report.arms_p is not None:
        yield _believed(report.arms_p, "the arms' shares are as planned")
    if report.draws_p is not None:
        yield _believed(report.draws_p, "treatments came as often as their propensities say")
    if report.silent_control:
        yield "No outcome came of a decision that sent nothing: report those too, or nothing can be compared."


def _believed(p: float, what: str) -> str:
    told = f"That {what}: p {p:.3f}"
    return f"{told}. Something is broken: believe no figure here." if p < BELIEVED_P else f"{told}."


def _counts(report: Report) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(report.outcomes.items()))


def _kept(effect: Effect) -> str:
    return {None: "", True: "in the interval", False: "NOT in the interval"}[effect.kept]


def _total(per_decision: Estimate | None, n: int, programme: Programme) -> str:
    if per_decision is None:
        return UNKNOWN
    value, lower, upper = (
        programme.money(of * n) for of in (per_decision.value, per_decision.lower, per_decision.upper)
    )
    return f"{value} [{lower}, {upper}]"


def _money(of: Estimate | None, scale: int) -> str:
    if of is None:
        return UNKNOWN
    return f"{of.value / scale:+,.2f} [{of.lower / scale:+,.2f}, {of.upper / scale:+,.2f}]"


def _share(of: Estimate | None) -> str:
    return UNKNOWN if of is None else f"{of.value:+.0%} [{of.lower:+.0%}, {of.upper:+.0%}]"


def _scaled(of: Estimate, scale: int) -> Estimate:
    return Estimate(of.value / scale, of.lower / scale, of.upper / scale, of.n)
