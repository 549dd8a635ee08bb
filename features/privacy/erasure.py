"""Erase members, wherever this program keeps something of them, and say what was removed.

First the tombstones are on the disk, and whom to erase; from then on nothing of them is taken in. Then each place is
gone through; each is replaced whole, and going through it again does nothing, so that an erasure that was killed is
gone on with where it stood, by whomever. Last, in one transaction, the receipt is kept and whom to erase is forgotten.
"""

import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa

from features.decisions import Erasure, Log, find_traces
from features.errors import ContractError, NotFoundError
from features.files import alone, sweep
from features.home import Home
from features.intake.mapping import TableMapping
from features.intake.parts import file_parts
from features.intake.workbench import hold_workbench
from features.journal import journal_alone
from features.log.erasing import kept_receipt, until_gone
from features.log.register import Marks
from features.log.rows import open_to_read
from features.privacy.batches import drop_replaced, renewed_parts
from features.privacy.rows import MEMBER, drop_lines, drop_rows, naming, read_rows
from features.shadow import ShadowFile
from features.sheet import Sheet
from features.warehouse import open_warehouse, without_members

TEXTS: Final = ("*.html", "*.json", "*.md", "*.txt", "*.csv", "*.log")


class OnlineStore(Protocol):
    """Hold vectors, as `features.store.Store` does."""

    def erase(self, member_ids: Sequence[str]) -> int:
        """Delete the vectors of members, and say how many there were."""
        ...


@dataclass(frozen=True)
class Receipt:
    """Say when whom, by the marks that only this home's key makes, and what was removed where, in rows or files."""

    receipt_id: str
    erased_at: str
    members: tuple[str, ...]
    removed: dict[str, int]


def erase(
    home: Home,
    member_ids: tuple[str, ...],
    *,
    log: Log,
    store: OnlineStore,
    clock: Callable[[], datetime],
    receipt_id: str = "",
) -> Receipt:
    """Erase members, and whoever an erasure that was killed still had to.

    Parameters
    ----------
    receipt_id : where it has begun already; by default a new one

    Raises
    ------
    ContractError
        If an ingest is at work; what was begun is finished by the next erasure, or the next start of the service.
    """
    erasure = Erasure(receipt_id or secrets.token_hex(8), member_ids)
    log.begin_erasure(erasure, now=clock()).result()
    for earlier in log.pending_erasures():
        if earlier.receipt_id != erasure.receipt_id:
            _finish(home, earlier, log=log, store=store, now=clock())
    return _finish(home, erasure, log=log, store=store, now=clock())


def find_receipt(home: Home, receipt_id: str) -> Receipt | None:
    """Give the receipt of an erasure that is done."""
    with closing(open_to_read(home.decisions)) as db:
        kept = kept_receipt(db, receipt_id)
    return _receipt(kept) if kept else None


def ids_of(path: Path) -> tuple[str, ...]:
    """Read whom to erase from a CSV or Parquet file.

    Raises
    ------
    NotFoundError, ContractError
        If there is no such file, or it has no column member_id.
    """
    if not path.is_file():
        raise NotFoundError(f"{path} is no file; a CSV or Parquet file with a column {MEMBER} was wanted")
    first, *parts = file_parts(path, TableMapping())()
    if MEMBER not in first.schema.names:
        raise ContractError(f"{path} has the columns {', '.join(first.schema.names)}; {MEMBER} was wanted")
    ids = (one for part in parts for one in part.column(MEMBER).cast(pa.string()).to_pylist() if one)
    return tuple(dict.fromkeys(ids))


def receipt_sheet(receipt: Receipt) -> Sheet:
    """Show what was removed where."""
    rows = tuple((place, f"{count:,}") for place, count in receipt.removed.items())
    notes = (f"{len(receipt.members):,} members; the receipt names them by marks that only this home's key makes",)
    return Sheet(f"Erased: receipt {receipt.receipt_id}", ("where", "rows or files"), rows, notes)


def finish_pending(home: Home, *, log: Log, store: OnlineStore, clock: Callable[[], datetime]) -> int:
    """Finish what was begun and killed, and say how many erasures that were."""
    begun = log.pending_erasures()
    for erasure in begun:
        _finish(home, erasure, log=log, store=store, now=clock())
    return len(begun)


def _finish(home: Home, erasure: Erasure, *, log: Log, store: OnlineStore, now: datetime) -> Receipt:
    removed: Counter[str] = Counter()
    with hold_workbench(home):
        contact_ids = {*erasure.contact_ids, *_contact_ids(home, erasure.member_ids)}
        erasure = replace(erasure, contact_ids=tuple(sorted(contact_ids)))
        log.begin_erasure(erasure, now=now).result()  # while the contacts' rows are still there to be named
        removed.update(_offline(home, erasure.member_ids))
    with journal_alone(home.journal) as journal:  # nothing is brought into vectors meanwhile
        removed["live"] += journal.erase(erasure.member_ids) if journal else 0
        removed["online"] += store.erase(erasure.member_ids)
    with _shadow(home) as shadow:
        removed["shadow"] += shadow.erase(erasure.member_ids) if shadow else 0
    for standby in home.live.glob("standby-*"):  # hashes of ids, with scores: the service makes them anew
        shutil.rmtree(standby, ignore_errors=True)
    for renewed in renewed_parts(home, erasure.member_ids, now=now):
        log.renew_part(renewed, now=now).result()
        removed["batches"] += len(renewed.decision_ids)
    drop_replaced(home)
    sweep(home.root)
    for table, count in _from_log(home, erasure, log=log, now=now).items():
        removed[f"log.{table}"] += count
    log.overwrite_gaps().result()
    marks = Marks(home.decisions)
    counts = {place: count for place, count in sorted(removed.items()) if count}
    receipt = Receipt(erasure.receipt_id, now.isoformat(), tuple(map(marks.of, erasure.member_ids)), counts)
    kept = log.end_erasure(erasure.receipt_id, asdict(receipt), now=now).result()
    log.overwrite_gaps().result()  # now of whom to erase, too
    return _receipt(kept)


def _receipt(kept: dict[str, Any]) -> Receipt:
    return Receipt(**kept | {"members": tuple(kept["members"])})


def _from_log(home: Home, erasure: Erasure, *, log: Log, now: datetime) -> dict[str, int]:
    with closing(open_to_read(home.decisions)) as db:
        traces = find_traces(db, erasure.member_ids)
    return until_gone(lambda: log.erase(erasure, traces, now=now).result())


def _offline(home: Home, member_ids: tuple[str, ...]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for table, rows in without_members(home, member_ids).items():
        counts[f"warehouse.{table}"] += rows
    for path in home.quarantine.glob("*.jsonl"):
        counts["quarantine"] += drop_lines(path, member_ids)
    for place, folder in (("snapshots", home.features), ("audience", home.live)):
        for path in folder.glob("*.parquet"):
            counts[place] += drop_rows(path, member_ids)
    counts["history"] += _drop_chapters(home, member_ids)
    found = naming(member_ids)
    for folder in (home.reports, home.steps, home.live):
        for path in (path for kind in TEXTS for path in folder.rglob(kind)):
            if found.search(path.read_text(encoding="utf-8", errors="replace")):
                path.unlink()  # it can be made again
                counts[folder.name] += 1
    return dict(counts)


def _drop_chapters(home: Home, member_ids: tuple[str, ...]) -> int:
    """Delete the chapters that hold one of the members: they are made again from the snapshots."""
    gone, asked = 0, set(member_ids)
    for view in (path for path in home.history.glob("*") if path.is_dir()):
        with alone(view):
            for members in view.glob("*/members.arrow"):
                with pa.memory_map(str(members)) as file:
                    ids = pa.ipc.open_file(file).read_all().column("text").to_pylist()
                if not asked.isdisjoint(ids):
                    shutil.rmtree(members.parent)
                    gone += 1
    return gone


@contextmanager
def _shadow(home: Home) -> Iterator[ShadowFile | None]:
    if not home.shadow.exists():
        yield None
        return
    with ShadowFile(home.shadow) as shadow:
        yield shadow


def _contact_ids(home: Home, member_ids: tuple[str, ...]) -> tuple[str, ...]:
    """Name the contacts that other systems made with members: outcomes may name them."""
    try:
        warehouse = open_warehouse(home)
    except NotFoundError:
        return ()
    if "contacts" not in warehouse.tables:
        return ()
    rows: list[dict[str, Any]] = read_rows(warehouse.path("contacts"), member_ids)
    return tuple(str(row["contact_id"]) for row in rows)
