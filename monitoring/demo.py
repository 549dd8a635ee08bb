"""The loop once around, on a retailer's year: every step by the same functions as its verb, the service over HTTP.

It stands in the last layer because it walks through all of them.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import httpx
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from features import complete_journey
from features.errors import HoldfastError
from features.home import Home
from features.ingest import ingest_source, warehouse_sheet
from features.layout import lay_out
from features.programme import Programme, read_programme
from features.schema import CONTROL
from features.sheet import Progress, Sheet
from features.snapshots import build, built, read_snapshots
from monitoring.overview.overview import gather
from monitoring.overview.page import write_pages
from monitoring.report import verdict_table
from monitoring.verdict import Verdict
from monitoring.watch import watch_drift
from serving.pages.front import page_path
from training.model_card import sheets, verdict_lines
from training.pipeline import promote_release, train
from training.preparation import Settings
from training.releases.ledger import champion_id
from training.releases.manifest import Manifest

STAGES: Final = ("new", "active", "returned", "dormant", "lapsed")
NOBODY: Final = "nobody"  # an id that is in no table: the service has to answer all the same
START_SECONDS: Final = 60
WHO: Final = "demo"
Working = Callable[[], AbstractContextManager[Progress]]


@dataclass
class Round:
    """Hold what the steps of one round hand on to each other, and how long each took."""

    home: Home
    console: Console
    working: Working
    now: Callable[[], datetime]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, title: str) -> Iterator[Progress]:
        """Head a step, show its progress, and time it."""
        self.console.print()
        self.console.rule(f"[bold]{len(self.seconds) + 1}. {title}[/]", align="left")
        start = time.monotonic()
        with self.working() as progress:
            yield progress
        self.seconds[title] = time.monotonic() - start

    def show(self, *sheets: Sheet) -> None:
        """Print tables."""
        for sheet in sheets:
            self.console.print()
            self.console.print(lay_out(sheet, self.console.width))

    def say(self, line: str) -> None:
        """Print one line."""
        self.console.print(escape(line), highlight=False, soft_wrap=True)


def run_demo(home: Home, *, console: Console, working: Working, now: Callable[[], datetime], port: int | None) -> None:
    """Run every step in order and end with a summary; with a `port`, stay and serve there until stopped.

    A second run finds everything unchanged, does none of it again and shows the same figures.
    """
    this = Round(home, console, working, now)
    learn_features(this)
    with this.step("Train: lapse, value, uplift") as progress:
        manifest, fresh = train(home, settings=Settings(), progress=progress)
    this.show(*sheets(manifest))
    this.say(f"release {manifest.release_id} {'is written' if fresh else 'stands: nothing changed'}")
    before = champion_id(home)
    with this.step("Promote: the gate"):
        verdict, release_id = promote_release(home, manifest.release_id, who=WHO, now=now())
    for line in verdict_lines(verdict, release_id, before=before):
        this.say(line)
    with service(home, port or 0) as (address, process):
        with this.step("Decide: over HTTP"):
            decisions = decide(address, home)
            duplicates = send_outcomes(address, decisions, read_programme(home.settings))
        this.show(decisions_sheet(decisions, manifest, duplicates))
        programme = read_programme(home.settings)
        with this.step("Watch: drift") as progress:
            drift, report = watch_drift(home, weeks=4, now=programme.replay_from or now(), progress=progress)
        console.print(verdict_table(drift, programme))
        this.say(f"the report: {report}")
        with this.step("Report: the page for people who run the programme") as progress:
            pages = write_pages(home, gather(home, written=now(), progress=progress))
        this.say(f"the page: {pages[0]}, and in Chinese {pages[1]}; holdfast serve shows it at /")
        console.print(summary(this, manifest, drift))
        if port is not None:
            this.say(invitation(home, address))
            stay(process)


def learn_features(this: Round) -> None:
    """Ingest, compute the snapshots, and bring the last one online."""
    with this.step("Ingest: a retailer's year"):
        warehouse, _ = ingest_source(this.home, complete_journey.NAME)
    this.show(warehouse_sheet(warehouse))
    with this.step("Features: as of every week") as progress:
        dates = build(this.home, progress=progress)
        progress("bringing the last week online", 0, 1)
        from features.live import materialize
        from features.store import open_store  # Feast takes seconds to import

        store = open_store(this.home)
        store.apply()
        materialize(store, dates[-1], now=this.now())
    this.say(
        f"{len(dates)} snapshots, {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}, in Feast's registry; "
        "the last one is in the online store (holdfast features list says what each feature means)"
    )


@contextmanager
def service(home: Home, port: int) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Start `holdfast serve` as its own process, wait until it answers, and stop it at the end."""
    command = [sys.executable, "-m", "holdfast", "serve", "--home", str(home.root), "--port", str(port)]
    # whoever tells this process to stop means the service too
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 (our own verb)
            try:
                line = process.stdout.readline() if process.stdout else ""
                if "http://" not in line:
                    raise HoldfastError(
                        f"the service did not start (exit code {process.wait(START_SECONDS)}); try: holdfast serve"
                    )
                yield line.split()[-1], process
            finally:
                process.terminate()
    finally:
        signal.signal(signal.SIGTERM, previous)


def decide(address: str, home: Home) -> list[dict[str, Any]]:
    """Ask for decisions about one member of each life cycle stage, and about somebody who is not there."""
    latest = built(home)[-1:]
    members = read_snapshots(home, latest).drop_duplicates("lifecycle_stage").set_index("lifecycle_stage")["member_id"]
    asked = [*[str(members[stage]) for stage in STAGES if stage in members], NOBODY]
    with httpx.Client(base_url=address, timeout=10) as client:
        release_id = client.get("/v1/release").raise_for_status().json()["release_id"]
        key = f"demo-{release_id}-{latest[0]:%Y%m%d}"
        answer = client.post(
            "/v1/decisions", json={"members": asked, "campaign_id": "demo"}, headers={"Idempotency-Key": key}
        )
        return list(answer.raise_for_status().json()["decisions"])


def send_outcomes(address: str, decisions: list[dict[str, Any]], programme: Programme) -> int:
    """Send back a made-up purchase for every second decision, and say how many the service had already."""
    duplicates = 0
    start = programme.replay_from or datetime.fromisoformat("2018-01-01T00:00:00+00:00")
    with httpx.Client(base_url=address, timeout=10) as client:
        for number, decision in enumerate(decisions[::2]):
            outcome = {
                "outcome_id": f"demo-{decision['decision_id']}",
                "decision_id": decision["decision_id"],
                "kind": "purchase",
                "occurred_at": (start + timedelta(days=3 + number)).isoformat(),
                "amount": 1999,
            }
            duplicates += client.post("/v1/outcomes", json=outcome).raise_for_status().json()["duplicate"]
    return duplicates


def decisions_sheet(decisions: list[dict[str, Any]], manifest: Manifest, duplicates: int) -> Sheet:
    """Show what was decided, how sure that was to be chosen, and why."""
    programme = Programme.model_validate(manifest.programme)
    rows = tuple(
        (
            decision["member_id"],
            decision["lifecycle_stage"] or "unknown",
            "" if decision["churn_probability"] is None else f"{decision['churn_probability']:.0%}",
            decision["treatment"] if decision["treatment"] != CONTROL else "no contact",
            f"{decision['propensity']:.3f}",
            "" if decision["expected_net_value"] is None else programme.money(decision["expected_net_value"]),
            decision["reasons"][0]["text"]
            if decision["reasons"]
            else f"{decision['outcome']}: {decision['fallback_reason']}",
        )
        for decision in decisions
    )
    sent = len(decisions[::2])
    of = f"by the uplift of a {manifest.experiment.upper()} experiment" if manifest.offers else "of no contact"
    return Sheet(
        f"Decisions, {of}",
        ("member", "stage", "lapse", "decision", "propensity", "net value", "what moves the risk most"),
        rows,
        (
            f"Each was in the log, with its propensity, before it was answered. {sent} made-up outcomes were sent back"
            + (f"; {duplicates} of them the service had already, and kept once." if duplicates else "."),
        ),
    )


def summary(this: Round, manifest: Manifest, drift: Verdict) -> Panel:
    """Say in a few lines what happened, and what one can do next."""
    evidence, programme = manifest.evidence, Programme.model_validate(manifest.programme)
    churn = evidence["churn"]
    auc = {name: row["auc"]["value"] for name, row in churn["rows"].items()}
    rivals = ", ".join(f"{value:.3f} by {name}" for name, value in auc.items() if name != "model")
    members = evidence["data"]["members"]
    refused = ", ".join(offer for offer, judged in evidence["campaigns"].items() if not judged["gate"]["promote"])
    took = ", ".join(f"{title.split(':')[0].lower()} {seconds:.0f}" for title, seconds in this.seconds.items())
    lines = [
        f"Learned from {members:,} households who lapses: AUC {auc['model']:.3f} ({rivals}).",
        f"The real campaigns were targeted: the gate refuses to act on what {refused} seem to have brought.",
        _earned(manifest, programme),
        f"Release {manifest.release_id} serves. {drift.sentence}",
        f"It took {sum(this.seconds.values()):.0f} seconds: {took}.",
        "",
        f"The page for people who run the programme: {page_path(this.home, 'en')}",
        f"Everything is in {this.home.root}. Next: holdfast --help, evaluate, releases, monitor drift.",
    ]
    return Panel(escape("\n".join(lines)), title="The loop, once around", title_align="left", padding=(1, 2))


def _earned(manifest: Manifest, programme: Programme) -> str:
    policies = manifest.evidence["policies"]
    if policies is None:
        return f"It makes no offer, and nobody is contacted: {'; '.join(manifest.evidence['log']['reasons'])}."
    gain, fixed = (policies["table"]["model"][name] for name in ("against_no_contact", "against_best_fixed"))
    return (
        f"In the {manifest.experiment.upper()} experiment the policy earns {_range(gain, programme)} a decision over "
        f"no contact, and {_range(fixed, programme)} over sending everybody {policies['best_fixed']}; where an "
        "interval spans 0, the difference can't be told from 0."
    )


def invitation(home: Home, address: str) -> str:
    """Give a command that asks the service, on a line of its own so that it can be copied."""
    body = f'{{"members": ["{_someone(home)}", "{NOBODY}"], "campaign_id": "spring"}}'
    return (
        f"The service answers on {address} until you press Ctrl-C; a browser shows the page there. Try, twice for the "
        "same answer:\n\n"
        f"curl -s {address}/v1/decisions -H 'Content-Type: application/json' -H 'Idempotency-Key: first' -d '{body}'\n"
    )


def stay(process: "subprocess.Popen[str]") -> None:
    """Wait for the service until it stops, or until Ctrl-C."""
    try:
        process.wait()
    except KeyboardInterrupt:
        process.terminate()


def _someone(home: Home) -> str:
    return str(read_snapshots(home, built(home)[-1:])["member_id"].iloc[0])


def _range(figures: dict[str, float], programme: Programme) -> str:
    value, lower, upper = (figures[name] / 10**programme.currency_digits for name in ("value", "lower", "upper"))
    return f"{value:+.2f} {programme.currency} [{lower:+.2f}, {upper:+.2f}]"
