"""The clerk: decides what has waited meanwhile in one go, each request as if it had come alone.

Features are read once for a group and members are scored once, whoever asked. Requests that nothing limits and that
are about the same campaign and offers are decided in one pass; where budget or stock may run out, each sees what the
one before it left; a member who is asked about again, where contacts count, waits for the next group. Where another
process has changed meanwhile what a decision rests on, the log refuses it and it is taken again, with the same draw.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from http import HTTPStatus
from itertools import chain, groupby
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from features.decisions import Answer, Decision, Log
from features.errors import UnwrittenError
from serving.answers import decisions_answer, scores_answer
from serving.contract import DecisionsRequest, ScoresRequest
from serving.decide import Occasion, Worth
from serving.grounds import grounds_of
from serving.meters import Meters
from serving.offering import Offering
from serving.record import File, Request, known_of, record
from serving.sources import Lookup
from serving.traces import Step
from serving.world import World

if TYPE_CHECKING:
    from concurrent.futures import Future

    from serving.decide import Floats

OF_FEATURES: Final = 0.5  # of the time that is left when a group's turn comes; models and log need the rest
LONGEST: Final = 60.0  # seconds: no caller waits for longer


@dataclass(frozen=True)
class Drawn:
    """Hold what stays when decisions are taken again: another draw, or price, would favour what was refused before."""

    uniform: "Floats"  # (n_members,)
    price: float
    stock_prices: "Floats"  # (n_offers,)
    times: int = 1  # that decisions were taken


@dataclass(frozen=True, eq=False)
class Ask:
    """Hold a request as it waits: for decisions, or for scores alone."""

    request: ScoresRequest
    digest: str = ""  # of the body
    idempotency_key: str | None = None
    due: float = math.inf  # of the monotonic clock: when an answer is wanted
    drawn: Drawn | None = None  # decided before, on what has changed since

    @property
    def decides(self) -> bool:
        """Whether decisions are wanted."""
        return isinstance(self.request, DecisionsRequest)

    @property
    def campaign_id(self) -> str | None:
        """What they are for."""
        return self.request.campaign_id if isinstance(self.request, DecisionsRequest) else None


@dataclass(frozen=True)
class Decided:
    """Hold an answer, and the decisions it gives, which are on their way to the disk; scores are nowhere stored."""

    text: bytes
    decisions: tuple[Decision, ...] = ()
    answer: Answer | None = None
    drawn: Drawn | None = None
    stored: "Future[Answer | None] | None" = None
    steps: tuple[Step, ...] = ()


Served = Decided | Exception


class Clerk:
    """Serve groups of requests; one thread at a time may ask."""

    def __init__(self, offering: Offering, lookup: Lookup, log: Log, *, world: World, meters: Meters) -> None:
        self._offering, self._lookup, self._log = offering, lookup, log
        self._world, self._meters = world, meters

    def serve(self, asks: Sequence[Ask]) -> Iterator[tuple[Ask, Served]]:
        """Serve every request, in whatever order; an error is that of its request alone."""
        for group in self._apart(asks):
            yield from self._group(group)

    def _apart(self, asks: Sequence[Ask]) -> Iterator[list[Ask]]:
        """Cut where a member comes again whose contacts count: who comes later has to see the earlier decision."""
        group, seen = list[Ask](), set[str]()
        for ask in asks:
            if not seen.isdisjoint(ask.request.members) and self._offering.decider.constraints.longest_days:
                yield group
                group, seen = [], set()
            group.append(ask)
            seen.update(ask.request.members)
        if group:
            yield group

    def _group(self, asks: Sequence[Ask]) -> Iterator[tuple[Ask, Served]]:
        served = set[Ask]()
        try:
            for ask, outcome in self._decide(asks):
                served.add(ask)
                yield ask, outcome
        except Exception as error:  # noqa: BLE001 (whoever's it is, the others get their answers)
            if len(asks) == 1:
                yield asks[0], error
                return
            for ask in asks:
                if ask not in served:
                    yield from self._group([ask])

    def _decide(self, asks: Sequence[Ask]) -> Iterator[tuple[Ask, Served]]:
        now = self._world.clock()
        self._offering.follow(now)
        decider = self._offering.decider
        # drawn in the order in which they came, whatever the order in which they are decided
        uniform = {ask: self._draw(ask) for ask in asks if ask.decides}
        parties = self._parties(asks)
        moment = (
            self._log.moment() if decider.constraints.longest_days and uniform else None
        )  # before contacts are read
        ids = tuple(chain.from_iterable(ask.request.members for party in parties for ask in party))
        asked = time.perf_counter()
        file = self._look_up(ids, now, due=min(ask.due for ask in asks))
        started, done = time.perf_counter(), 0
        file, scores = self._lookup.scored(decider, file)
        scored = time.perf_counter()
        at = _At(now, moment, (("features", asked, started), ("models", started, scored)))
        worths = dict[str | None, Worth]()
        for party in parties:
            campaign_id = party[0].campaign_id
            if campaign_id not in worths:
                worths[campaign_id] = decider.worth(scores, file.members.scored, campaign_id)
            part = slice(done, done + sum(len(ask.request.members) for ask in party))
            rows, worth = (
                (file, worths[campaign_id]) if len(parties) == 1 else (file.rows(part), worths[campaign_id].rows(part))
            )
            if party[0].decides:
                drawn = np.concatenate([uniform[ask] for ask in party])
                yield from self._decisions(party, rows, worth, uniform=drawn, at=at)
            else:
                yield from self._scores(party, rows, worth, now=now)
            done = part.stop
        self._meters.took("models", time.perf_counter() - started)

    def _draw(self, ask: Ask) -> "Floats":
        return ask.drawn.uniform if ask.drawn else self._world.rng.random(len(ask.request.members))

    def _parties(self, asks: Sequence[Ask]) -> list[list[Ask]]:
        """Put together what can be decided in one pass; of what may run out, each request is by itself, in turn."""
        if self._offering.decider.constraints.stock:
            return [[ask] for ask in asks]
        parties = list[list[Ask]]()
        for about, alike in groupby(sorted(asks, key=self._party), key=self._party):
            party = list(alike)
            parties += [[ask] for ask in party] if about.limited else [party]
        return parties

    def _party(self, ask: Ask) -> "_Party":
        decides, campaign_id = ask.decides, ask.campaign_id
        campaign = self._offering.decider.campaign(campaign_id)
        limited = ask.drawn is not None or (decides and campaign is not None and campaign.budget is not None)
        return _Party(decides, campaign_id or "", limited, () if limited else ask.request.offers or ())

    def _look_up(self, member_ids: tuple[str, ...], now: datetime, *, due: float) -> File:
        standing = self._offering.standing(member_ids, now)
        started = time.perf_counter()
        seconds = min((due - time.monotonic()) * OF_FEATURES, LONGEST)
        file = self._lookup.file(self._offering.decider, member_ids, standing, now=now, seconds=seconds)
        self._meters.took("features", time.perf_counter() - started)
        return file

    def _decisions(
        self, asks: Sequence[Ask], file: File, worth: Worth, *, uniform: "Floats", at: "_At"
    ) -> Iterator[tuple[Ask, Served]]:
        started = time.perf_counter()
        requests = [ask.request for ask in asks if isinstance(ask.request, DecisionsRequest)]
        campaign_id, decider = requests[0].campaign_id, self._offering.decider
        purse, before = self._offering.purse(campaign_id, at.now), asks[0].drawn
        if before is not None:
            purse = replace(purse, price=before.price, stock_prices=before.stock_prices)
        occasion = Occasion(at.now, campaign_id, requests[0].offers, purse)
        choice = decider.choose(file.members, worth, occasion=occasion, uniform=uniform)
        sent = Request(
            occasion,
            uniform,
            [request.context for request in requests for _ in request.members],
            [ask.idempotency_key for ask in asks for _ in ask.request.members],
            self._world.new_id,
        )
        decisions = record(decider, file, worth=worth, choice=choice, request=sent)
        seen = grounds_of(decider, occasion, choice, worth, member_ids=file.member_ids, moment=at.moment)
        drawn = Drawn(uniform, purse.price, purse.stock_prices, 1 + before.times if before else 1)
        first = 0
        for ask in asks:
            own = decisions[first : first + len(ask.request.members)]
            text = decisions_answer([vars(decision) for decision in own], decider)
            key = ask.idempotency_key
            answer = None if key is None else Answer(key, ask.digest, HTTPStatus.OK, text)
            rests_on = seen if seen is None or len(asks) == 1 else replace(seen, member_ids=ask.request.members)
            kept = drawn if len(asks) == 1 else replace(drawn, uniform=uniform[first : first + len(own)])
            first += len(own)
            try:
                stored = self._log.append(own, now=at.now, answer=answer, seen=rests_on)
            except UnwrittenError as error:
                yield ask, error
                continue
            steps = (*at.steps, ("policy", started, time.perf_counter()))
            yield ask, Decided(text, own, answer, kept, stored, steps)

    def _scores(self, asks: Sequence[Ask], file: File, worth: Worth, *, now: datetime) -> Iterator[tuple[Ask, Served]]:
        decider, purse = self._offering.decider, self._offering.purse(None, now)
        refusals = decider.refusals(file.members, worth, Occasion(now, None, asks[0].request.offers, purse))
        rows = iter(zip(known_of(file, worth, worth.benefit - worth.cost), (refusals == 0).tolist(), strict=True))
        for ask in asks:
            known, possible = zip(*(next(rows) for _ in ask.request.members), strict=True)
            yield ask, Decided(scores_answer(known, possible, decider, now=now))


class _Party(NamedTuple):
    """Say what requests have to agree in to be decided in one pass."""

    decides: bool
    campaign_id: str
    limited: bool
    offers: tuple[str, ...]


class _At(NamedTuple):
    """Say when a group is decided, by the clock and by the log, and how long it took until then."""

    now: datetime
    moment: int | None
    steps: tuple[Step, ...]
