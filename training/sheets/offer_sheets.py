"""What a release says of its offers: the policy beside its rivals, how uplift ranks, and what the log has seen."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from features.programme import Programme
from features.sheet import Sheet
from training.judging.tables import BY_CHURN, MODEL, RANDOM
from training.releases.manifest import Manifest
from training.sheets.figures import Figures, money, plain, signed

METRICS: Final = {
    "qini_coefficient": "Qini coefficient",
    "area_under_uplift_curve": "AUUC",
    "uplift_at_10": "uplift, top 10 %",
    "uplift_at_30": "uplift, top 30 %",
    "uplift_calibration_error": "calibration error",
}


def offer_sheets(manifest: Manifest, programme: Programme) -> Iterator[Sheet]:
    """Give the sheets of a release that makes offers."""
    yield policies_sheet(manifest, programme)
    yield uplift_sheet(manifest, programme)
    yield redemption_sheet(manifest.evidence["redemption"], programme)
    yield overlap_sheet(manifest.evidence["policies"]["overlap"])


def policies_sheet(manifest: Manifest, programme: Programme) -> Sheet:
    """Set the policy beside no contact, random, the best fixed offer and, where the truth is known, the oracle."""
    policies, uplift, retention = (manifest.evidence[name] for name in ("policies", "uplift", "retention"))
    truth = policies["truth"]
    named = {
        "best fixed offer": f"best fixed ({policies['best_fixed']})",
        "model": f"model ({uplift['learner']})",
    }
    rows = tuple(
        (
            named.get(name, name),
            money(row["policy_value"], programme),
            money(row["against_no_contact"], programme, signed=True),
            money(row["against_best_fixed"], programme, signed=True),
            money(truth[name], programme, signed=True) if truth else "not known",
            f"{row['contacted']:.0%}",
        )
        for name, row in policies["table"].items()
    )
    n = policies["table"]["model"]["policy_value"]["n"]
    kept = ", ".join(f"{offer} {share:.0%}" for offer, share in uplift["heterogeneity_kept"].items())
    method = (
        f"Doubly robust, on later waves than those learned from; {n:,} decisions, 95 % intervals by member. "
        f"Weight of what learners say of differences between members, as held-out members bear it out: {kept}."
    )
    slopes = [f"{offer} {programme.money(slope)}" for offer, slope in uplift["redemption_slope"].items() if slope]
    if slopes:
        method += f" Beyond that, who is sure to redeem gains more than who never does: {', '.join(slopes)}."
    stay = ", ".join(f"{offer} {_points(found)}" for offer, found in retention["average_effect"].items())
    stayed = f"Members kept, in percentage points, by each offer on average: {stay}."
    known = "The truth is what the simulation gives each policy over no contact: without the outcomes' noise."
    return Sheet(
        f"Next best offer: {manifest.experiment.upper()} experiment, {programme.currency} per decision after all costs",
        ("policy", "value", "over no contact", "over best fixed", "truth over no contact", "contacted"),
        rows,
        (method, stayed, _told_apart(policies["table"], programme), *([known] if truth else [])),
    )


def _points(share: Figures) -> str:
    value, lower, upper = (f"{100 * share[name]:+.1f}" for name in ("value", "lower", "upper"))
    return f"{value} [{lower}, {upper}]"


def _told_apart(table: Mapping[str, Any], programme: Programme) -> str:
    """Say how far the log tells the model's policy from the best fixed offer or, if it is that, that from nothing."""
    row = table[MODEL]
    found, resampled = (of["against_best_fixed"] for of in (row, row["bootstrap"]))
    if found["lower"] == found["upper"]:
        told, rival = "The model sends everybody the best fixed offer", "no contact"
        row = table[rival]
    else:
        told, rival = f"Over best fixed, by resampled members: {money(resampled, programme, signed=True)}", "it"
    smallest = programme.money(row["smallest_detectable_effect"])
    return f"{told}. This log would find a difference of {smallest} a decision from {rival} in 4 of 5 cases."


def uplift_sheet(manifest: Manifest, programme: Programme) -> Sheet:
    """Set each offer's ranking of members beside that by churn and a random one."""
    table = manifest.evidence["uplift_table"]
    rankings = (MODEL, BY_CHURN, RANDOM)
    rows = tuple(
        (f"{offer}: {head}", *[_cell(found["rows"][name], metric, programme) for name in rankings])
        for offer, found in table.items()
        for metric, head in METRICS.items()
    )
    notes = [f"{offer}: {_ranks(found, programme)}. {_came(found)}" for offer, found in table.items()]
    method = (
        "Outcomes are less the margin expected without an offer: intervals are narrower, effects the same. "
        "A random ranking's uplift is that of everybody."
    )
    title = (
        f"Uplift: {manifest.experiment.upper()} experiment, {programme.currency} per member within "
        f"{programme.horizon_days} days, before contact costs"
    )
    return Sheet(title, ("", MODEL, f"by {BY_CHURN}", RANDOM), rows, (*notes, method))


def _cell(row: Mapping[str, Figures], metric: str, programme: Programme) -> str:
    return money(row[metric], programme) if metric in row else ""


def _ranks(found: Mapping[str, Any], programme: Programme) -> str:
    qini, lead = found["rows"][MODEL]["qini_coefficient"], found["lead"][BY_CHURN]
    if qini["lower"] == qini["upper"]:
        return "it promises everybody the same, so it ranks nobody"
    shown = f"lead in Qini {money(lead, programme, signed=True)}"
    return f"{_known(qini, 'it ranks', 'than chance')}; {_known(lead, 'it ranks', f'than {BY_CHURN}')} ({shown})"


def _came(found: Mapping[str, Any]) -> str:
    bins = found["calibration"]
    kept = sum(one["actual"]["lower"] <= one["predicted"] <= one["actual"]["upper"] for one in bins)
    if len(bins) > 1:
        return f"Of {len(bins)} groups of like promise, {kept} have it within the interval of what came."
    return f"What was promised lies {'within' if kept else 'outside'} the interval of what came."


def _known(difference: Figures, what: str, than: str) -> str:
    """Say which way a difference points, or that its interval spans 0."""
    if difference["lower"] > 0:
        return f"{what} better {than}"
    if difference["upper"] < 0:
        return f"{what} worse {than}"
    return f"whether {what} better {than} is not known, the interval spans 0"


def redemption_sheet(table: Mapping[str, Mapping[str, Figures]], programme: Programme) -> Sheet:
    """Set the chance that each offer is redeemed beside its mean rate, on what came; or say that nothing came."""
    title = f"Redemption within {programme.horizon_days} days of the contacts that sent an offer"
    if not table:
        why = "no redemption was brought: the chance is taken as 0, and whether margins are after its cost is not known"
        return Sheet(title, ("not known, because",), ((why,),))
    rows = tuple(
        (
            offer,
            f"{found['rate']['n']:,}",
            *[_share(found[name]) for name in ("rate", "expected")],
            plain(found["log_loss"]),
            signed(found["log_loss_lead"]),
        )
        for offer, found in table.items()
    )
    header = ("offer", "contacts", "redeemed", "foretold", "log loss", "less that of the mean rate")
    note = (
        "On later contacts than those learned from, whose rate is the mean rate; 95 % intervals by member. "
        "Less than 0: it tells members apart better than one rate for all."
    )
    return Sheet(title, header, rows, (note,))


def _share(found: Figures) -> str:
    value, lower, upper = (f"{found[name]:.1%}" for name in ("value", "lower", "upper"))
    return f"{value} [{lower}, {upper}]"


def overlap_sheet(overlap: Mapping[str, Mapping[str, float | None]]) -> Sheet:
    """Show how much the log has seen of what the model's policy does."""
    rows = tuple(
        (
            treatment,
            f"{seen['rows']:,}",
            f"{seen['policy_share']:.0%}",
            f"{seen['effective_sample_size']:,.0f}",
            f"{seen['largest_weight']:.1f}",
            *["not taken" if seen[name] is None else f"{seen[name]:.0%}" for name in ("reached", "thin_share")],
        )
        for treatment, seen in overlap.items()
    )
    header = ("treatment", "logged", "policy's share", "worth decisions", "largest weight", "reached", "thin")
    note = (
        "Reached: the weights' sum over what the policy takes, 100 % but for chance where propensities are right and "
        "everybody could have got it. Thin: taken where the propensity was below 1 %."
    )
    return Sheet("What the log has seen of the model's policy", header, rows, (note,))
