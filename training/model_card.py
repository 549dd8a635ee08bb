"""What a release learned, how good that is and against what, as sheets that a terminal, MLflow and a page can show."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from features.home import Home
from features.programme import Programme
from features.saying import Saying
from features.sheet import Sheet
from training.judging.comparison import POLICY, Comparison
from training.judging.economics import economics_sheet, returns_sheet
from training.judging.fairness import WORDS
from training.labels import maturity_sheet
from training.lifetime import YEAR
from training.promotion import Verdict
from training.releases.ledger import champion_id, ledger
from training.releases.manifest import Manifest
from training.releases.names import names_of
from training.releases.shadow import shadow_id
from training.sheets.figures import Figures, money, plain, signed
from training.sheets.offer_sheets import offer_sheets

HEADS: Final = {
    "auc": "AUC",
    "average_precision": "average precision",
    "lift": "lift at a tenth",
    "log_loss": "log loss",
    "brier_loss": "Brier loss",
    "calibration_error": "calibration error",
    "mean_absolute_error": "mean absolute error",
    "root_mean_squared_error": "root mean squared error",
    "r_squared": "R²",
    POLICY: "policy value, a decision",
}
IN_MONEY: Final = ("mean_absolute_error", "root_mean_squared_error")


def sheets(manifest: Manifest) -> Iterator[Sheet]:
    """Give the sheets of a release in the order in which its models were made."""
    evidence, programme = manifest.evidence, Programme.model_validate(manifest.programme)
    if not all(row["mature"] for row in evidence["labels"]):
        yield maturity_sheet(evidence["labels"], programme)
    yield churn_sheet(evidence, programme)
    yield value_sheet(evidence, programme)
    yield lifetime_sheet(evidence["lifetime"], programme)
    if evidence["campaigns"]:
        yield campaigns_sheet(evidence["campaigns"], programme)
    if evidence["policies"]:
        yield from offer_sheets(manifest, programme)
    if evidence["log"]["left_out"] or evidence["log"]["reasons"]:
        yield log_sheet(evidence["log"])
    for segment in evidence["economics"]["worth"]:
        yield economics_sheet(evidence["economics"], segment, programme=programme)
    if evidence["economics"]["returns"]:
        yield returns_sheet(evidence["economics"], programme=programme)
    if evidence["gate"]["groups"]:
        yield groups_sheet(evidence["gate"]["groups"])


def churn_sheet(evidence: dict[str, Any], programme: Programme) -> Sheet:
    """Set the lapse model beside its rivals."""
    table, data, lapse = evidence["churn"], evidence["data"], programme.churn == "lapse"
    rows = _by_metric(table["rows"], lambda _, figures: plain(figures))
    leads = [f"AUC over {rival}: {signed(lead)}" for rival, lead in table["lead"].items()]
    first, last, _ = data["dates"]["test"]
    split = (
        f"Out of time: snapshots of {first} to {last}, trained on {' to '.join(data['dates']['train'][:2])}; "
        f"{data['churned']:.1%} {'lapse, and most of them come back' if lapse else 'end'}. "
        "95 % intervals, resampled by member."
    )
    days, before = programme.horizon_days, programme.activity_days
    title = (
        f"Lapse: no purchase within {days} days, by members active in the {before} before"
        if lapse
        else f"Churn: a subscription that ends within {days} days and is not renewed, by members in a term"
    )
    return Sheet(title, ("", *table["rows"]), rows, (*leads, *table["notes"], split))


def value_sheet(evidence: dict[str, Any], programme: Programme) -> Sheet:
    """Set expected margin beside its rivals."""
    table = evidence["value"]
    rows, notes = _value_table(table, programme)
    if not evidence["data"]["margin_is_brought"]:
        share = f"{programme.margin_rate:.0%} of sales"
        notes.append(f"Margin is {share}: an assumption of the settings (margin_rate), not of the data.")
    return Sheet(f"Value: margin within {programme.horizon_days} days", ("", *table["rows"]), rows, tuple(notes))


def lifetime_sheet(lifetime: dict[str, Any], programme: Programme) -> Sheet:
    """Set lifetime value beside its rivals, on days that have passed; or say why it is not known."""
    title = "Lifetime value: margin over a year"
    if "reason" in lifetime:
        return Sheet(title, ("not known, because",), ((lifetime["reason"],),))
    table, days, window = lifetime["table"], lifetime["days"], lifetime["window_days"]
    rows, notes = _value_table(table | {"within_interval": lifetime["within_interval"]}, programme)
    start = datetime.fromisoformat(lifetime["as_of"]).astimezone(programme.zone)
    judged = (
        f"Judged on the {days} days from {start:%Y-%m-%d}, of everybody who had bought before; learned from "
        f"{window} days, which the same factor over repeat purchases (BG/NBD with Gamma-Gamma) carries to {days}."
    )
    year = lifetime["year_from_days"]
    assumed = (
        f"The year itself is foretold from {year} days, assuming that the factor holds after them."
        if year < YEAR
        else "The year itself is foretold from whole years."
    )
    return Sheet(title, ("", *table["rows"]), rows, (*notes, judged, assumed))


def campaigns_sheet(campaigns: dict[str, Any], programme: Programme) -> Sheet:
    """Show what the targeted campaigns seem to have brought, and why that is not acted on."""
    rows = tuple((offer, *_campaign_row(judged["effect"], programme)) for offer, judged in campaigns.items())
    why = [
        f"{offer}: the gate {'lets it be acted on' if judged['gate']['promote'] else 'refuses to act on it'}; "
        + "; ".join(str(Saying.read(one)) for one in judged["gate"]["said"])
        for offer, judged in campaigns.items()
    ]
    return Sheet(
        "What the real campaigns brought, per contacted member: OBSERVATIONAL, they were targeted",
        ("offer", "naive difference", "adjusted", "placebo (weeks before)", "propensity AUC", "overlap", "verdict"),
        rows,
        tuple(why),
    )


def _campaign_row(found: dict[str, Any], programme: Programme) -> tuple[str, ...]:
    return (
        *[money(found[name], programme) for name in ("naive", "effect", "placebo")],
        f"{found['propensity_auc']:.2f}",
        f"{found['overlap_share']:.0%}",
        found["verdict"],
    )


def log_sheet(log: dict[str, Any]) -> Sheet:
    """Show what offers are not learned from, and why."""
    counted = tuple((reason, f"{count:,}") for reason, count in log["left_out"].items())
    rows = (*counted, *((reason, "") for reason in log["reasons"]))
    return Sheet("What offers are not learned from", ("because", "contacts"), rows)


def groups_sheet(groups: list[dict[str, Any]]) -> Sheet:
    """Show whether groups of members are predicted and contacted alike."""
    rows = tuple(
        (
            f"{row['attribute']}: {row['group']}",
            f"{row['members']:,}",
            *[signed(row[gap]) if row[gap] else "not known" for gap in ("calibration_gap", "contact_gap")],
        )
        for row in groups
    )
    header = ("group", "members", "predicted less observed churn", "contact rate less that of all")
    return Sheet("Groups of members, on the test's dates; 95 % intervals by member", header, rows)


def comparison_sheet(compared: Comparison, programme: Programme) -> Sheet:
    """Set two releases side by side."""
    in_money = (*IN_MONEY, POLICY)
    rows = tuple(
        (
            HEADS[row.metric],
            *[
                money(asdict(figures), programme, signed=show is signed)
                if row.metric in in_money
                else show(asdict(figures))
                for figures, show in ((row.first, plain), (row.second, plain), (row.difference, signed))
            ],
        )
        for row in compared.rows
    )
    header = ("", compared.first, compared.second, "difference, paired")
    note = "On the latest test dates, 95 % intervals by member; the difference is of the second less the first."
    return Sheet("Two releases, on the same members and decisions", header, rows, (note, *compared.notes))


def verdict_lines(verdict: Verdict, release_id: str, *, before: str | None) -> list[str]:
    """Say whether a release was let to serve, and every reason.

    Parameters
    ----------
    before : the champion when it was judged
    """
    judged = "is champion" if verdict.promote else "is refused, the champion stays"
    if release_id == before:
        judged = "is champion already" if verdict.promote else "is champion already, though the gate would refuse it"
    return [f"release {release_id} {judged}:", *[f"  {reason}" for reason in verdict.reasons]]


def releases_sheet(home: Home) -> Sheet:
    """List the releases that exist."""
    serving = champion_id(home)
    names = sorted(path.parent.name for path in home.releases.glob("*/manifest.json"))
    roles = {serving: "champion", shadow_id(home): "shadow"}
    called = {name: [*([roles[name]] if name in roles else []), *names_of(home, name)] for name in names}
    return Sheet("Releases", ("release", ""), tuple((name, ", ".join(words)) for name, words in called.items()))


def ledger_sheet(home: Home) -> Sheet:
    """List every change of champion."""
    rows = tuple((c.at[:19], c.action, c.who, c.from_release or "", c.to_release) for c in ledger(home))
    return Sheet("Changes of champion", ("at (UTC)", "what", "who", "from", "to"), rows)


def markdown(manifest: Manifest) -> str:
    """Write the sheets as one Markdown page, the model card that MLflow keeps."""
    data = manifest.evidence["data"]
    trained = (
        f"Trained on {data['source']}: {data['members']:,} members, {data['rows']:,} rows, data {data['fingerprint']}. "
        "Purpose: to decide which offer, if any, is worth sending to whom; not for credit, work or housing."
    )
    parts = [f"# Release {manifest.release_id}", trained, _limits(manifest)]
    return "\n\n".join([*parts, *[sheet.markdown() for sheet in sheets(manifest)]]) + "\n"


def _limits(manifest: Manifest) -> str:
    """Say what the release does not know."""
    until = str(manifest.evidence["data"]["known_until"])[:10]
    offers = (
        f"What offers bring comes from a {manifest.experiment} experiment, for members like those in it."
        if manifest.offers
        else "It makes no offer: nothing says what one would bring."
    )
    groups = (
        "Groups of members are compared by what the company brings of them; small ones can't be judged."
        if manifest.evidence["gate"]["groups"]
        else f"Groups of members are not compared: members came without {', '.join(WORDS)} and birth_year."
    )
    return f"Limits: it knows nothing that came after {until}. It predicts who leaves, not why. {offers} {groups}"


def _value_table(table: dict[str, Any], programme: Programme) -> tuple[tuple[tuple[str, ...], ...], list[str]]:
    """Give the rows of a table of expected margin, and what is to be said of it."""
    rows = _by_metric(
        table["rows"],
        lambda metric, figures: money(figures, programme) if metric in IN_MONEY else plain(figures),
    )
    leads = [
        f"error less that of {rival}: {money(lead, programme, signed=True)}" for rival, lead in table["lead"].items()
    ]
    return rows, [*leads, f"Its 95 % intervals held {table['within_interval']:.1%} of margins."]


def _by_metric(rows: dict[str, dict[str, Figures]], show: Callable[[str, Figures], str]) -> tuple[tuple[str, ...], ...]:
    """Turn row -> metric -> figures by a right angle: a line per metric, a column per model."""
    metrics = list(next(iter(rows.values())))
    return tuple((HEADS[m], *[show(m, row[m]) if m in row else "" for row in rows.values()]) for m in metrics)
