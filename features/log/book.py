"""The book: who was contacted with what, and what that cost, what still waits for the disk included.

The log's writer is the only one, so what it has entered here is all there is: a decision counts from the moment it is
handed in, and no longer once the disk refused it.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from features.log.entries import Decision
from features.log.rows import microseconds
from features.schema import CONTROL

Spending = Mapping[tuple[str, str], tuple[int, int]]  # (campaign_id, offer_id) -> contacts, spent in minor units


class Contact(NamedTuple):
    """Say that a member got an offer."""

    member_id: str
    contacted_at: int  # microseconds since 1970
    decision_id: str
    offer_id: str


class Book:
    """Keep contacts that wait for the disk, and the running totals."""

    def __init__(self, spending: Spending) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, dict[str, Contact]] = defaultdict(dict)  # member_id -> decision_id -> contact
        self._contacts: Counter[str] = Counter()  # by offer
        self._spent: Counter[str] = Counter()  # by campaign
        self._add(spending, sign=1)

    def enter(self, contacts: Iterable[Contact], spending: Spending) -> None:
        """Count what was handed to the writer."""
        with self._lock:
            self._add(spending, sign=1)
            for contact in contacts:
                self._waiting[contact.member_id][contact.decision_id] = contact

    def settle(self, contacts: Iterable[Contact], spending: Spending, *, stored: bool) -> None:
        """Wait no longer: the log itself has the contacts now, or they never were."""
        with self._lock:
            if not stored:
                self._add(spending, sign=-1)
            for contact in contacts:
                waiting = self._waiting[contact.member_id]
                del waiting[contact.decision_id]
                if not waiting:
                    del self._waiting[contact.member_id]

    def waiting(self, member_ids: Iterable[str]) -> list[Contact]:
        """Give the contacts of members that may not be on the disk yet."""
        with self._lock:
            if not self._waiting:
                return []
            return [contact for member in member_ids for contact in self._waiting.get(member, {}).values()]

    def contacts(self, offer_ids: Sequence[str]) -> list[int]:
        """Count the contacts of each offer, over all campaigns."""
        with self._lock:
            return [self._contacts[offer_id] for offer_id in offer_ids]

    def spent(self, campaign_id: str) -> int:
        """Sum the expected costs of a campaign's contacts, minor units."""
        with self._lock:
            return self._spent[campaign_id]

    def _add(self, spending: Spending, *, sign: int) -> None:
        for (campaign_id, offer_id), (contacts, spent) in spending.items():
            self._contacts[offer_id] += sign * contacts
            self._spent[campaign_id] += sign * spent


def contacts_of(decisions: Iterable[Decision]) -> list[Contact]:
    """Give the contacts that decisions make."""
    return [
        Contact(one.member_id, microseconds(one.decided_at), one.decision_id, one.treatment)
        for one in decisions
        if one.treatment != CONTROL
    ]


def spending_of(decisions: Iterable[Decision]) -> Spending:
    """Sum what decisions count against stock and budget."""
    totals: dict[tuple[str, str], tuple[int, int]] = {}
    for one in decisions:
        if one.treatment != CONTROL:
            key = (one.campaign_id or "", one.treatment)
            contacts, spent = totals.get(key, (0, 0))
            totals[key] = (contacts + 1, spent + one.cost[one.treatments.index(one.treatment) - 1])
    return totals
