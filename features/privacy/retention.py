"""Let go of what has been kept for long enough, wherever this program keeps something of members.

A decision becomes nobody's and its outcomes with it, as after an erasure: the experiment's counts and sums stay. The
rest is deleted. Each piece goes whole or stays, and whatever is left the next run finds: a job that was killed is run
again.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from features.decisions import Log
from features.errors import ContractError, NotFoundError
from features.home import Home
from features.journal import journal_alone
from features.log.leaving import Terms, find_leaving
from features.offers import Offer, read_catalogue
from features.privacy.batches import drop_replaced, named_parts, renew
from features.programme import Programme, Retention, read_programme
from features.shadow import ShadowFile
from features.sheet import Sheet
from features.warehouse import open_warehouse

PLACES: Final = ("decisions", "outcomes", "answers", "contacts", "batches", "live", "shadow", "reports", "alerts")
NAMES: Final = {"answers": "idempotency", "contacts": "decisions"}  # whose days they have


@dataclass(frozen=True)
class Ends:
    """Say until when what is let go of has to have come: by the programme's clock, and by that of files."""

    now: datetime
    wall: datetime  # another one where a programme of the past is replayed
    days: Retention

    def of(self, name: str) -> datetime:
        """Give the end of a kind's time."""
        return self.now - timedelta(days=getattr(self.days, name))

    @property
    def terms(self) -> Terms:
        """Those of the log."""
        return Terms(self.of("decisions"), self.of("outcomes"), self.of("idempotency"))


def find_overdue(home: Home, ends: Ends) -> dict[str, int]:
    """Count what would go; nothing is changed."""
    found = Counter(find_leaving(home.decisions, ends.terms).counts if home.decisions.exists() else {})
    found["batches"] = sum(len(ids) for _, ids in named_parts(home, before=ends.of("batches")))
    with journal_alone(home.journal) as journal:
        found["live"] = journal.count(before=ends.of("live")) if journal else 0
    if home.shadow.exists():
        with ShadowFile(home.shadow) as shadow:
            found["shadow"] = shadow.count(before=ends.of("shadow"))
    found["reports"] = len(_old_reports(home, ends))
    return dict(found)


def let_go(home: Home, ends: Ends, *, log: Log) -> dict[str, int]:
    """Let go of what is older than it may be, and count it.

    Raises
    ------
    ContractError
        If contacts would go that limits on contacts still have to see.
    """
    _check_limits(home, ends)
    gone: Counter[str] = Counter()
    for piece in find_leaving(home.decisions, ends.terms).pieces():
        gone.update(log.let_go(piece, now=ends.now).result())
    for part, member_ids in named_parts(home, before=ends.of("batches")):
        log.renew_part(renew(home, part, member_ids, now=ends.now), now=ends.now).result()
        gone["batches"] += len(member_ids)
    drop_replaced(home)
    with journal_alone(home.journal) as journal:
        gone["live"] += journal.let_go(before=ends.of("live")) if journal else 0
    if home.shadow.exists():
        with ShadowFile(home.shadow) as shadow:
            gone["shadow"] += shadow.let_go(before=ends.of("shadow"))
    for report in _old_reports(home, ends):
        report.unlink(missing_ok=True)
        gone["reports"] += 1
    log.overwrite_gaps().result()
    return dict(gone)


def retention_sheet(counts: dict[str, int], days: Retention, *, rehearsed: bool) -> Sheet:
    """Show what went, or would go."""
    rows = tuple(
        (place, f"{getattr(days, NAMES.get(place, place)):,}", f"{counts.get(place, 0):,}") for place in PLACES
    )
    notes = ("decisions and batches become nobody's and still count; the rest is deleted",)
    return Sheet("Would go" if rehearsed else "Let go", ("what", "days kept", "rows or files"), rows, notes)


def _check_limits(home: Home, ends: Ends) -> None:
    try:
        warehouse = open_warehouse(home)
    except NotFoundError:
        return
    programme = read_programme(home.settings)
    longest = max(_limits(programme, read_catalogue(warehouse, programme).offers), default=0)
    if longest > ends.days.decisions:
        raise ContractError(
            f"[retention] decisions = {ends.days.decisions} came, but contacts are limited over {longest} days; "
            "keep them at least so long"
        )


def _limits(programme: Programme, offers: tuple[Offer, ...]) -> Iterator[int]:
    """Give the days over which contacts are limited."""
    yield programme.policy.min_days_between_contacts
    if programme.policy.contacts_per_period is not None:
        yield programme.policy.period_days
    for offer in offers:
        yield offer.min_days_between_contacts or 0


def _old_reports(home: Home, ends: Ends) -> list[Path]:
    before = (ends.wall - timedelta(days=ends.days.reports)).astimezone(UTC).timestamp()
    return [path for path in home.reports.rglob("*") if path.is_file() and path.stat().st_mtime < before]
