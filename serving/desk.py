"""The desk: takes requests, has them decided and logged, then answers; and answers the same question the same."""

import asyncio
import hashlib
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol

from features.decisions import Answer, Log, Outcome, Preference, latest_decision
from features.errors import ConflictError, HoldfastError, UnwrittenError
from features.home import Home
from features.programme import Serving
from serving.answers import dump, record_answer, release_answer
from serving.barrier import Barrier
from serving.canary import Canary, Health
from serving.champion import Refused, Watch
from serving.clerk import Ask, Clerk
from serving.contract import (
    DecisionsRequest,
    EventsRequest,
    OutcomeRequest,
    PreferencesRequest,
    ScoresRequest,
    TransactionsRequest,
)
from serving.decide import Decider
from serving.explanation import Language, explain
from serving.gate import Gate
from serving.intake import Intake, LiveFeatures
from serving.members import MemberFiles, MemberStore
from serving.meters import Meters
from serving.offering import Offering
from serving.patience import FeatureSource
from serving.problems import FieldProblem, ProblemError, contract
from serving.replay import decider_of
from serving.room import Room, Stored
from serving.shadow.keeper import Shadow
from serving.sources import Lookup
from serving.standby import Standbys
from serving.traces import steps
from serving.world import World

DEFAULTS: Final = Serving()


class Source(FeatureSource, MemberStore, Protocol):
    """Know members' features, and let go of them."""


@dataclass(frozen=True)
class Reply:
    """Hold an answer, and whether it was given before."""

    body: bytes
    replayed: bool = False


@dataclass(frozen=True)
class Explained:
    """Hold a decision, why it was taken, and among how many it is the latest."""

    row: Mapping[str, Any]
    said: tuple[str, ...]
    decisions: int


class Desk:
    """Serve one release at a time; what takes time happens on threads beside the event loop.

    Parameters
    ----------
    watch : follows the champion; none: the release stays
    shadow : has a process that decides beside the champion; none: there never is one
    barrier : between the workers, where there are several
    """

    def __init__(
        self,
        offering: Offering,
        source: Source,
        log: Log,
        *,
        live: LiveFeatures,
        world: World,
        standbys: Standbys | None = None,
        settings: Serving = DEFAULTS,
        watch: Watch | None = None,
        shadow: Shadow | None = None,
        barrier: Barrier | None = None,
    ) -> None:
        self._offering, self._log, self._world = offering, log, world
        self._intake = Intake(live, world.clock)
        self.meters, self.gate = Meters(), Gate(settings.in_flight)
        self._lookup = Lookup(source, log, standbys=standbys, settings=settings, barrier=barrier)
        self.members = MemberFiles(offering.home, source, log, world.clock)
        self._room = Room(Clerk(offering, self._lookup, log, world=world, meters=self.meters).serve)
        self.meters.watch(log=lambda: log.backlog, drain=lambda: log.undrained, live=lambda: self._intake.backlog)
        self.meters.watch_agreement(log)
        self._deadline_ms = settings.deadline_ms
        self.meters.release(self.decider.release.release_id, None)
        self._watch = watch
        if watch:
            watch.start(self.meters)
        self._shadow = shadow
        if shadow:
            shadow.start(self.meters)
        self._canary = Canary(self._serve, log, lambda: self.decider, world.clock)
        self._running: dict[str, str] = {}  # idempotency key -> sha256 of the body that is being answered

    @property
    def decider(self) -> Decider:
        """What decides about the next request."""
        return self._offering.upcoming

    @property
    def refused(self) -> Refused | None:
        """The champion, if it does not serve."""
        return self._watch.refused if self._watch else None

    async def decide(
        self, request: DecisionsRequest, body: bytes, *, idempotency_key: str | None, deadline_ms: int | None = None
    ) -> Reply:
        """Answer with decisions that are on the disk.

        Parameters
        ----------
        deadline_ms : how soon; None: as the settings say

        Raises
        ------
        ProblemError
            409 while the same key is still being answered, 422 for a key that came with another body, 503 if the log
            can't be written.
        """
        self._check_offers(request)
        self._check_campaign(request)
        due = self._due(deadline_ms)
        if idempotency_key is None:
            return await self._decide(Ask(request, due=due))
        digest = hashlib.sha256(body).hexdigest()
        running = self._running.setdefault(idempotency_key, digest)
        if running is not digest:  # the very object says who came first
            _check_body(running, digest)
            detail = "a request with this Idempotency-Key is still being answered; repeat it in a moment"
            raise ProblemError(HTTPStatus.CONFLICT, "idempotency-running", detail, headers={"Retry-After": "1"})
        try:
            if (standing := await self._standing(idempotency_key)) is None:
                return await self._decide(Ask(request, digest, idempotency_key, due))
            return self._again(standing, digest)
        except UnwrittenError as error:
            raise _unwritten() from error
        finally:
            del self._running[idempotency_key]

    async def score(self, request: ScoresRequest, *, deadline_ms: int | None = None) -> Reply:
        """Answer with what is known of members; nothing is decided, nothing logged."""
        self._check_offers(request)
        return Reply((await self._serve(Ask(request, due=self._due(deadline_ms)))).decided.text)

    async def record(self, request: OutcomeRequest) -> bool:
        """Store an outcome; True if the same one had come before.

        Raises
        ------
        ProblemError
            409 for an id that stands for another outcome, 503 if the log can't be written.
        """
        outcome = Outcome(**dict(request))
        try:
            new = await asyncio.wrap_future(self._log.record(outcome, now=self._world.clock()))
        except ConflictError as error:
            raise ProblemError(HTTPStatus.CONFLICT, "outcome-conflict", str(error)) from None
        except UnwrittenError as error:
            raise _unwritten() from error
        self.meters.received(duplicate=not new)
        return not new

    async def take(self, table: str, request: TransactionsRequest | EventsRequest) -> Reply:
        """Take rows of a table; the next decision sees them."""
        taken = await self._intake.take(table, [row.model_dump(exclude_none=True) for row in request.rows])
        self.meters.took_rows(table, taken.statuses)
        return Reply(dump({"as_of": taken.as_of.isoformat(), "rows": taken.statuses}))

    async def prefer(self, member_id: str, request: PreferencesRequest) -> Reply:
        """Store what a member wants: on the disk before it is answered, and heeded by the very next decision.

        Raises
        ------
        ProblemError
            503 if the log can't be written.
        """
        preference = Preference(member_id, request.personalisation)
        try:
            await asyncio.to_thread(self._prefer, preference)
        except UnwrittenError as error:
            raise _unwritten() from error
        return Reply(dump({"personalisation": request.personalisation}))

    def _prefer(self, preference: Preference) -> None:
        with nullcontext() if preference.personalisation else self._lookup.withdrawing(preference.member_id):
            self._log.prefer(preference, now=self._world.clock()).result()

    @property
    def home(self) -> Home:
        """Where everything is kept."""
        return self._offering.home

    async def explained(self, name: str, language: Language) -> Explained | None:
        """Find the decision of an id or else the latest on the member of that id; none if there is neither."""
        row, count = await asyncio.to_thread(self._log.decision, name), 1
        if row is None:
            decision_id, count = await asyncio.to_thread(latest_decision, self.home.decisions, name)
            row = await asyncio.to_thread(self._log.decision, decision_id) if decision_id else None
        if row is None:
            return None
        return Explained(row, await asyncio.to_thread(self._explain, row, language), count)

    async def look_up(self, decision_id: str, language: Language) -> Reply:
        """Answer with a decision as it was logged, and why, in plain language.

        Raises
        ------
        ProblemError
            404 if there is none.
        """
        row = await asyncio.to_thread(self._log.decision, decision_id)
        if row is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, "not-found", "no decision has this id")
        said = await asyncio.to_thread(self._explain, row, language)
        return Reply(record_answer(row, language, said))

    def _explain(self, row: Mapping[str, Any], language: Language) -> tuple[str, ...]:
        decider = self.decider
        if (row["release_id"], row["catalogue_id"]) != (decider.release.release_id, decider.catalogue.catalogue_id):
            try:
                decider = decider_of(self._offering.home, row)
            except (HoldfastError, OSError):
                return ()
        return explain(decider, row, language)

    def release(self) -> Reply:
        """Answer with what is being served."""
        return Reply(release_answer(self.decider, self.refused, self._shadow, now=self._world.clock()))

    async def look(self) -> Health:
        """Say how it is with the store, the log and the release; asked often, it looks once a second."""
        return await self._canary.look()

    def warm(self) -> None:
        """Score nobody in particular once, so that the first caller does not wait for lazy set-up."""
        self._room.warm(Ask(ScoresRequest(members=("warm",), offers=None)))

    def close(self) -> None:
        """Finish what is being written, then let go."""
        if self._watch:
            self._watch.stop()
        self._intake.close()
        self._room.close()
        if self._shadow:
            self._shadow.stop()
        self._lookup.close()
        self._log.close()

    def _due(self, deadline_ms: int | None) -> float:
        return time.monotonic() + (deadline_ms or self._deadline_ms) / 1000

    async def _decide(self, ask: Ask) -> Reply:
        started = time.perf_counter()
        stored = await self._serve(ask)
        self.meters.took("decision", time.perf_counter() - started)
        if (taken := steps.get()) is not None:
            taken += [*stored.decided.steps, ("log", stored.decided.steps[-1][2], stored.at)]
        if stored.standing is not None and stored.standing != stored.decided.answer:  # it may have come over a socket
            return self._again(stored.standing, ask.digest)
        self.meters.decided(stored.decided.decisions)
        return Reply(stored.decided.text)

    async def _standing(self, idempotency_key: str) -> Answer | None:
        """Look up what was answered under a key; another process that keeps the log may take its time."""
        if self._log.keeps:
            return self._log.answer(idempotency_key)
        return await asyncio.to_thread(self._log.answer, idempotency_key)

    async def _serve(self, ask: Ask) -> Stored:
        try:
            with self.gate.weigh(len(ask.request.members)):
                return await self._room.ask(ask)
        except UnwrittenError as error:
            raise _unwritten() from error

    def _again(self, standing: Answer, digest: str) -> Reply:
        _check_body(standing.body_sha256, digest)
        self.meters.replayed()
        return Reply(standing.body, replayed=True)

    def _check_offers(self, request: ScoresRequest) -> None:
        if not request.offers:
            return
        known = self.decider.release.offer_ids
        if not set(request.offers) <= set(known):
            detail = f"one of {', '.join(known)} was wanted"
            wrong = [place for place, offer in enumerate(request.offers) if offer not in known]
            problems = (FieldProblem(pointer=f"/offers/{place}", detail=detail) for place in wrong)
            raise contract("the release that serves has no such offer; /v1/release lists them", *problems)

    def _check_campaign(self, request: DecisionsRequest) -> None:
        """Refuse a campaign that is none; where no campaign is set up, any name is a label."""
        known = self.decider.catalogue.campaigns
        if known and request.campaign_id is not None and request.campaign_id not in known:
            detail = f"one of {', '.join(sorted(known))} was wanted"
            problem = FieldProblem(pointer="/campaign_id", detail=detail)
            raise contract("holdfast.toml has no such campaign below [campaigns]", problem)


def _check_body(standing: str, digest: str) -> None:
    if standing not in {digest, ""}:  # no more is kept of what asked about somebody who was erased
        detail = "this Idempotency-Key came with another body before; give each request a key of its own"
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "idempotency-key", detail)


def _unwritten() -> ProblemError:
    detail = "the decision log can't be written, so nothing was decided; repeat the request with the same key"
    return ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "log", detail, headers={"Retry-After": "1"})
