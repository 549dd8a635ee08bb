"""The desk: looks members up, decides, logs, then answers; and gives the same answer to the same question."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from features.decisions import Answer, Decision, Log, Outcome
from features.errors import ConflictError, UnwrittenError
from serving.answers import decisions_answer, dump, record_answer, release_answer, scores_answer
from serving.contract import DecisionsRequest, EventsRequest, OutcomeRequest, ScoresRequest, TransactionsRequest
from serving.decide import Decider, Occasion
from serving.intake import Intake, LiveFeatures
from serving.meters import Meters
from serving.offering import Offering
from serving.problems import FieldProblem, ProblemError, contract
from serving.record import File, Request, blank_file, known_of, open_file, record

if TYPE_CHECKING:
    from features.store import MemberFeatures

logger: Final = logging.getLogger("holdfast")


class FeatureSource(Protocol):
    """Know members' latest features, as `features.store.Store` does."""

    def online(self, member_ids: Sequence[str], features: Sequence[str], *, facts: Collection[str]) -> "MemberFeatures":
        """Read a row per id, in order; an unknown member's is not `known`."""
        ...


@dataclass(frozen=True)
class World:
    """Hold what a service may not make up inside: the time, ids, chance."""

    clock: Callable[[], datetime]
    new_id: Callable[[], str]
    rng: np.random.Generator


@dataclass(frozen=True)
class _Decided:
    """Hold decisions that are on their way to the disk, and what they are answered with."""

    decisions: tuple[Decision, ...]
    text: bytes
    answer: Answer | None
    stored: "Future[Answer | None]"


@dataclass(frozen=True)
class Reply:
    """Hold an answer, and whether it was given before."""

    body: bytes
    replayed: bool = False


class Desk:
    """Serve one release; reading features and scoring happen on one thread beside the event loop."""

    def __init__(
        self, offering: Offering, source: FeatureSource, log: Log, *, live: LiveFeatures, world: World
    ) -> None:
        self._offering, self._source, self._log, self._world = offering, source, log, world
        self._intake = Intake(live, world.clock)
        self.meters = Meters()
        release_id = self.decider.release.release_id
        self.meters.serve(release_id, log=lambda: log.backlog, live=lambda: self._intake.backlog)
        self._running: dict[str, str] = {}  # idempotency key -> sha256 of the body that is being answered
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="desk")

    @property
    def decider(self) -> Decider:
        """What decides now."""
        return self._offering.decider

    async def decide(self, request: DecisionsRequest, body: bytes, *, idempotency_key: str | None) -> Reply:
        """Answer with decisions that are on the disk.

        Raises
        ------
        ProblemError
            409 while the same key is still being answered, 422 for a key that came with another body, 503 if the log
            can't be written.
        """
        self._check_offers(request)
        self._check_campaign(request)
        if idempotency_key is None:
            return await self._decide(request, body, idempotency_key=None)
        digest = hashlib.sha256(body).hexdigest()
        running = self._running.setdefault(idempotency_key, digest)
        if running is not digest:  # the very object says who came first
            _check_body(running, digest)
            detail = "a request with this Idempotency-Key is still being answered; repeat it in a moment"
            raise ProblemError(HTTPStatus.CONFLICT, "idempotency-running", detail, headers={"Retry-After": "1"})
        try:
            if (standing := self._log.answer(idempotency_key)) is None:
                return await self._decide(request, body, idempotency_key=idempotency_key)
            return self._again(standing, digest)
        finally:
            del self._running[idempotency_key]

    async def score(self, request: ScoresRequest) -> Reply:
        """Answer with what is known of members; nothing is decided, nothing logged."""
        self._check_offers(request)
        return Reply(await asyncio.get_running_loop().run_in_executor(self._thread, self._score, request))

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

    def look_up(self, decision_id: str) -> Reply:
        """Answer with a decision as it was logged.

        Raises
        ------
        ProblemError
            404 if there is none.
        """
        if (row := self._log.decision(decision_id)) is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, "not-found", "no decision has this id")
        return Reply(record_answer(row))

    def release(self) -> Reply:
        """Answer with what is being served."""
        return Reply(release_answer(self.decider, now=self._world.clock()))

    def warm(self) -> None:
        """Score nobody in particular once, so that the first caller does not wait for lazy set-up."""
        self._thread.submit(self._score, ScoresRequest(members=("warm",), offers=None)).result()

    def close(self) -> None:
        """Finish what is being written, then let go."""
        self._intake.close()
        self._thread.shutdown()
        self._log.close()

    async def _decide(self, request: DecisionsRequest, body: bytes, *, idempotency_key: str | None) -> Reply:
        digest = hashlib.sha256(body).hexdigest()
        started = time.perf_counter()
        try:
            decided = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._draw, request, digest, idempotency_key
            )
            standing = await asyncio.wrap_future(decided.stored)
        except UnwrittenError as error:
            raise _unwritten() from error
        self.meters.took("decision", time.perf_counter() - started)
        if standing is not decided.answer and standing is not None:
            return self._again(standing, digest)
        self.meters.decided(decided.decisions)
        return Reply(decided.text)

    def _draw(self, request: DecisionsRequest, digest: str, idempotency_key: str | None) -> _Decided:
        """Decide and hand the decisions to the log, where they count from now on: the next request sees them."""
        now = self._world.clock()
        self._offering.follow(now)
        file, decider = self._look_up(request, now), self.decider
        started = time.perf_counter()
        purse = self._offering.purse(request.campaign_id, now)
        occasion = Occasion(now, request.campaign_id, request.offers, purse)
        uniform = self._world.rng.random(len(request.members))
        worth = decider.weigh(file.members, request.campaign_id)
        choice = decider.choose(file.members, worth, occasion=occasion, uniform=uniform)
        asked = Request(occasion, uniform, request.context, idempotency_key, self._world.new_id)
        decisions = record(decider, file, worth=worth, choice=choice, request=asked)
        self.meters.took("models", time.perf_counter() - started)
        text = decisions_answer([vars(decision) for decision in decisions], decider)
        answer = Answer(idempotency_key, digest, HTTPStatus.OK, text) if idempotency_key is not None else None
        return _Decided(decisions, text, answer, self._log.append(decisions, now=now, answer=answer))

    def _score(self, request: ScoresRequest) -> bytes:
        now = self._world.clock()
        self._offering.follow(now)
        file, decider = self._look_up(request, now), self.decider
        worth, purse = decider.weigh(file.members, None), self._offering.purse(None, now)
        refusals = decider.refusals(file.members, worth, Occasion(now, None, request.offers, purse))
        rows = known_of(decider, file, worth, worth.benefit - worth.cost)
        return scores_answer(rows, (refusals == 0).tolist(), decider, now=now)

    def _look_up(self, request: ScoresRequest, now: datetime) -> File:
        started, decider = time.perf_counter(), self.decider
        standing = self._offering.standing(request.members, now)
        try:
            features = self._source.online(request.members, decider.release.feature_names, facts=decider.facts)
        except Exception as error:  # noqa: BLE001 (whatever a store raises, the member gets an answer that says so)
            logger.warning("features_unavailable: %s", type(error).__name__)  # its message may hold ids
            return blank_file(decider, request.members, standing)
        self.meters.took("features", time.perf_counter() - started)
        return open_file(decider, features, standing)

    def _again(self, standing: Answer, digest: str) -> Reply:
        _check_body(standing.body_sha256, digest)
        self.meters.replayed()
        return Reply(standing.body, replayed=True)

    def _check_offers(self, request: ScoresRequest) -> None:
        known = self.decider.release.offer_ids
        if request.offers and not set(request.offers) <= set(known):
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
    if standing != digest:
        detail = "this Idempotency-Key came with another body before; give each request a key of its own"
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "idempotency-key", detail)


def _unwritten() -> ProblemError:
    detail = "the decision log can't be written, so nothing was decided; repeat the request with the same key"
    return ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "log", detail, headers={"Retry-After": "1"})
