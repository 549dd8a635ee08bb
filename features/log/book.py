"""The book: who was contacted with what, and what that cost, what still waits for the disk included.

The log's writer is the only one, so what it has entered here is all there is: a decision counts from the moment it is
handed in, and no longer once the disk refused it. Whoever decides says what that rests on; where somebody else has
changed it meanwhile, the decision is refused, so that what stands is what one alone would have decided in turn. Where
other instances decide as well, what they committed is heard before anything is, and each entry held against it again.
"""

import threading
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from features.errors import StaleError
from features.log.entries import Decision
from features.log.rows import microseconds
from features.schema import CONTROL

RECENT: Final = 200_000  # members of whom it is known when they were contacted last

Range = tuple[int | None, int | None]  # the least and the most, where there is one
Spending = Mapping[tuple[str, str], tuple[int, int]]  # (campaign_id, offer_id) -> contacts, spent in minor units
Totals = Mapping[tuple[str, str, str], tuple[int, int]]  # (instance, campaign_id, offer_id) -> likewise, in all


class Contact(NamedTuple):
    """Say that a member got an offer."""

    member_id: str
    contacted_at: int  # microseconds since 1970
    decision_id: str
    offer_id: str


@dataclass(frozen=True)
class Seen:
    """Say what decisions rest on: they would be the same for every total in its range, and with no newer contact."""

    moment: int | None = None  # of the book, before contacts were read; none: contacts do not matter
    member_ids: Sequence[str] = ()  # of whom contacts matter
    spent: Mapping[str, Range] = field(default_factory=dict)  # by campaign, minor units
    contacted: Mapping[str, Range] = field(default_factory=dict)  # by offer


class Entered(NamedTuple):
    """Say at which moment decisions were handed in, and which totals of this log's own they rest on."""

    moment: int
    heard: int  # how often something came from elsewhere until then
    spent: Mapping[str, int]
    contacted: Mapping[str, int]


NOTHING: Final = Entered(0, 0, {}, {})  # of what rests on nothing, or is nobody else's


class Book:
    """Keep contacts that wait for the disk, the running totals, and whom contacts came to of late.

    Parameters
    ----------
    shared : whether others decide as well, so that what is entered has to be confirmed
    """

    def __init__(self, spending: Spending, *, shared: bool = False) -> None:
        self._lock, self._shared = threading.Lock(), shared
        self._waiting: dict[str, dict[str, Contact]] = defaultdict(dict)  # member_id -> decision_id -> contact
        self._contacts: Counter[str] = Counter()  # by offer
        self._spent: Counter[str] = Counter()  # by campaign
        self._add(spending, sign=1)
        # counts what was entered, from where no other book ever came to: what rests on another book is stale here
        self._moment = time.monotonic_ns()
        self._last: OrderedDict[str, int] = OrderedDict()  # member_id -> moment of the last contact, oldest first
        self._forgotten = self._moment  # the last moment of which members were dropped
        self._reserved: dict[tuple[str, int], list[_Reserved]] = {}  # by batch and part
        self._elsewhere = dict[tuple[str, str, str], tuple[int, int]]()  # (instance, campaign_id, offer_id) -> totals
        self._contacts_elsewhere, self._spent_elsewhere = Counter[str](), Counter[str]()  # they count above as well
        self._last_elsewhere: OrderedDict[str, int] = OrderedDict()  # as `_last`
        self._heard, self._news = 0, tuple[Contact, ...]()

    @property
    def moment(self) -> int:
        """Count the entries so far: what is read after it holds them all."""
        return self._moment

    def enter(self, contacts: Iterable[Contact], spending: Spending, seen: Seen | None = None) -> Entered:
        """Count what is handed to the writer, if what it rests on is still so.

        Raises
        ------
        StaleError
            If it is not.
        """
        with self._lock:
            if seen is not None and not self._stands(seen):
                raise StaleError("what these decisions rest on has changed meanwhile; decide again")
            entered = self._entered(seen) if self._shared and seen is not None else NOTHING
            self._add(spending, sign=1)
            self._moment += 1
            for contact in contacts:
                self._waiting[contact.member_id][contact.decision_id] = contact
                self._last[contact.member_id] = self._moment
                self._last.move_to_end(contact.member_id)
            while len(self._last) > RECENT:
                _, self._forgotten = self._last.popitem(last=False)
        return entered

    def hear(self, contacts: Iterable[Contact], totals: Totals) -> None:
        """Count what others have committed: contacts, and what each of them came to by now.

        They wait for the disk until something is heard again.
        """
        with self._lock:
            self._forget(self._news)  # on the disk by now, or heard once more
            self._news = tuple(contacts)
            if not self._news and not totals:
                return
            self._heard += 1
            self._moment += 1
            for contact in self._news:
                self._waiting[contact.member_id][contact.decision_id] = contact
                for last in (self._last, self._last_elsewhere):
                    last[contact.member_id] = self._moment
                    last.move_to_end(contact.member_id)
            while len(self._last_elsewhere) > RECENT:
                self._last_elsewhere.popitem(last=False)
            for name, (count, spent) in totals.items():
                known, known_spent = self._elsewhere.get(name, (0, 0))
                self._elsewhere[name] = (count, spent)
                _, campaign_id, offer_id = name
                for counter, key, more in (
                    (self._contacts, offer_id, count - known),
                    (self._contacts_elsewhere, offer_id, count - known),
                    (self._spent, campaign_id, spent - known_spent),
                    (self._spent_elsewhere, campaign_id, spent - known_spent),
                ):
                    counter[key] += more

    def confirm(self, entered: Entered, seen: Seen) -> None:
        """Hold what was entered against what others have committed since.

        Raises
        ------
        StaleError
            If it no longer stands.
        """
        with self._lock:
            if entered.heard == self._heard:
                return
            touched = seen.moment is not None and any(
                self._last_elsewhere.get(member_id, 0) > entered.moment for member_id in seen.member_ids
            )
            spent = ((own + self._spent_elsewhere[name], seen.spent[name]) for name, own in entered.spent.items())
            sent = (
                (own + self._contacts_elsewhere[name], seen.contacted[name]) for name, own in entered.contacted.items()
            )
            if touched or not all(_within(*of) for of in (*spent, *sent)):
                raise StaleError("another instance was faster; decide again")

    def reserve(
        self, part: tuple[str, int], place: int, contacts: Sequence[Contact], spending: Spending, seen: Seen | None
    ) -> int:
        """Count what the rows of a part from a place on make, before the part is whole, and give the moment after it.

        From the first place on, a part begins anew.

        Raises
        ------
        StaleError
            If what it rests on has changed.
        """
        if place == 0:
            self.release(part)
        entered = self.enter(contacts, spending, seen)
        with self._lock:
            self._reserved.setdefault(part, []).append(_Reserved(contacts, spending, entered, seen))
            return self._moment

    def release(self, part: tuple[str, int]) -> None:
        """Let go of what was reserved for a part."""
        for held in self._reserved.pop(part, []):
            self.settle(held.contacts, held.spending, stored=False)

    def release_all(self, batch_id: str) -> None:
        """Let go of what was reserved for a batch."""
        for part in [part for part in self._reserved if part[0] == batch_id]:
            self.release(part)

    def claim(self, part: tuple[str, int], times: int) -> "Claimed":
        """Give what was reserved for a part, so many times, which stays counted until it is settled.

        Raises
        ------
        StaleError
            If this book knows nothing of that, or not of all.
        """
        with self._lock:
            held = self._reserved.pop(part, [])
        if len(held) != times:
            for one in held:
                self.settle(one.contacts, one.spending, stored=False)
            raise StaleError("another process keeps the log now; decide the batch again, and it goes on")
        contacts = [contact for one in held for contact in one.contacts]
        return Claimed(contacts, _together([one.spending for one in held]), held)

    def touched(self, member_ids: Sequence[str], since: int) -> list[str]:
        """Say which members were contacted after a moment, or may have been."""
        with self._lock:
            if since < self._forgotten:
                return list(member_ids)
            return [member_id for member_id in member_ids if self._last.get(member_id, 0) > since]

    def settle(self, contacts: Iterable[Contact], spending: Spending, *, stored: bool) -> None:
        """Wait no longer: the log itself has the contacts now, or they never were."""
        with self._lock:
            if not stored:
                self._add(spending, sign=-1)
            self._forget(contacts)

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

    def _entered(self, seen: Seen) -> Entered:
        spent = {name: self._spent[name] - self._spent_elsewhere[name] for name in seen.spent}
        contacted = {name: self._contacts[name] - self._contacts_elsewhere[name] for name in seen.contacted}
        return Entered(self._moment, self._heard, spent, contacted)

    def _forget(self, contacts: Iterable[Contact]) -> None:
        for contact in contacts:
            waiting = self._waiting[contact.member_id]
            waiting.pop(contact.decision_id, None)  # two entries may have come with one id
            if not waiting:
                del self._waiting[contact.member_id]

    def _stands(self, seen: Seen) -> bool:
        if seen.moment is not None:
            if seen.moment < self._forgotten:
                return False
            if any(self._last.get(member_id, 0) > seen.moment for member_id in seen.member_ids):
                return False
        return all(_within(self._spent[name], limits) for name, limits in seen.spent.items()) and all(
            _within(self._contacts[name], limits) for name, limits in seen.contacted.items()
        )

    def _add(self, spending: Spending, *, sign: int) -> None:
        for (campaign_id, offer_id), (contacts, spent) in spending.items():
            self._contacts[offer_id] += sign * contacts
            self._spent[campaign_id] += sign * spent


class _Reserved(NamedTuple):
    """Hold what some rows of a part reserved, and what that rests on."""

    contacts: Sequence[Contact]
    spending: Spending
    entered: Entered
    seen: Seen | None


class Claimed(NamedTuple):
    """Hold what a part reserved in all, and piece by piece."""

    contacts: list[Contact]
    spending: Spending
    pieces: Sequence[_Reserved]


def _together(parts: Iterable[Spending]) -> Spending:
    totals: dict[tuple[str, str], tuple[int, int]] = {}
    for part in parts:
        for key, (contacts, spent) in part.items():
            before = totals.get(key, (0, 0))
            totals[key] = (before[0] + contacts, before[1] + spent)
    return totals


def _within(total: int, limits: Range) -> bool:
    least, most = limits
    return (least is None or total >= least) and (most is None or total <= most)


def limited(contacts: Iterable[Contact], seen: Seen) -> bool:
    """Say whether anything limits contacts: rests, a budget, or the stock of one's offer."""
    every = seen.moment is not None or bool(seen.spent)
    return any(every or contact.offer_id in seen.contacted for contact in contacts)


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
