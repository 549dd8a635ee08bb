"""The service: BentoML around the application, uvicorn below it, and the only clock, ids and chance of serving.

`bentoml serve` opens a control port through which any local process runs commands as this user, and resets connections
when stopped; so `holdfast serve` runs the same BentoML service under uvicorn. A bento still builds from `service`.
"""

import errno
import logging
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from features.decisions import SharedLog, open_log
from features.engine import EMBEDDED
from features.errors import ContractError, HoldfastError
from features.home import Home
from features.programme import Programme, read_programme
from serving.app import create_app
from serving.barrier import Barrier
from serving.champion import Watch, open_champion
from serving.desk import Desk
from serving.door import is_loopback
from serving.follower import Follower
from serving.keys import Keyring
from serving.lines import write_lines
from serving.offering import Offering
from serving.protocol import Protocol
from serving.shadow.erasures import Erasures
from serving.shadow.keeper import Shadow
from serving.standby import Standbys
from serving.traces import Traces
from serving.turnstile import Turnstile
from serving.workers import supervise
from serving.world import World
from training.releases.ledger import keep_up

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")  # BentoML reads it when imported; "1" would not do
import bentoml

if TYPE_CHECKING:
    from features.store import Store

logger: Final = logging.getLogger("holdfast")

BACKLOG: Final = 2048
STOP_SECONDS: Final = 10
LEAN: Final[dict[str, Any]] = {
    # BentoML keeps every request's context until this time-out ends, answered or not: a short one keeps garbage small
    "traffic": {"timeout": 5},
    "metrics": {"enabled": False},
    "logging": {"access": {"enabled": False}},  # paths may hold ids
    "tracing": {"excluded_urls": ".*"},
    "workers": 1,  # `holdfast serve --workers` starts its own
}


def open_desk(home: Home, *, worker: int | None = None) -> Desk:
    """Open the champion, or the one before it that is whole, the feature store and the decision log.

    Parameters
    ----------
    worker : its number, where there are several: each draws by itself, and opt-outs wait for all

    Raises
    ------
    NotFoundError
        If nothing was promoted yet.
    CorruptError
        If the release, or the log, is not what was written.
    ContractError
        If the settings or offers are wrong, or another process has the log and lets nobody in.
    """
    keep_up(home)
    release, refused = open_champion(home)
    programme = Programme.model_validate(release.manifest.programme)
    from features.live import Live
    from features.store import open_store  # Feast takes seconds to import: after all that can be refused

    # a programme of the past is replayed alike each time; a live one is drawn for
    seed = programme.seed if programme.replay_from else None
    chance = np.random.SeedSequence(seed, spawn_key=(worker,) if worker else ())
    world = World(clock=_clock(programme), new_id=lambda: uuid.uuid4().hex, rng=np.random.default_rng(chance))
    store = open_store(home)
    log = open_log(home)
    try:
        offering = Offering(home, release, log, now=world.clock())
    except HoldfastError:
        log.close()
        raise
    settings, engine = read_programme(home.settings).serving, read_programme(home.settings).engine
    if not worker and engine.decisions != "sqlite":
        log.drain_to(engine.decisions)
    _finish_erasures(home, log, store, world.clock)
    follower = None if worker or engine.objects in EMBEDDED else Follower(home)  # one of several workers is enough
    watch = Watch(home, offering, store, clock=world.clock, refused=refused, follower=follower)
    live, standbys = Live(home, store, log), Standbys(home)
    return Desk(
        offering,
        store,
        log,
        live=live,
        world=world,
        standbys=standbys,
        settings=settings,
        watch=watch,
        shadow=Shadow(home, erasures=None if worker or not engine.agree else Erasures(home)),
        barrier=None if worker is None else Barrier(home.looking),
    )


def _finish_erasures(home: Home, log: SharedLog, store: "Store", clock: Callable[[], datetime]) -> None:
    """Go on with what an erasure that was killed still had to erase."""
    if not log.keeps or not log.pending_erasures():
        return
    from features.privacy.erasure import finish_pending

    try:
        logger.info("finished %d erasures that had begun", finish_pending(home, log=log, store=store, clock=clock))
    except HoldfastError as error:
        logger.warning("erasures wait (%s); the next one goes on with them", type(error).__name__)


def serve(
    home: Home,
    *,
    host: str = "127.0.0.1",
    port: int = 3000,
    workers: int | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Answer until SIGTERM or Ctrl-C, then finish what is in flight.

    Parameters
    ----------
    port : 0 for any free one
    workers : how many processes answer; none: as `holdfast.toml` says
    ready : called with the service's address once it answers

    Raises
    ------
    ContractError
        If the address is not of this machine alone and there are no keys, or if it is taken.
    CorruptError
        If the file of keys is none.
    """
    count = workers or read_programme(home.settings).serving.workers
    with _listen(host, port, keys=Keyring(lambda: home.keys).keys() is not None) as listening:
        if count == 1:
            run(open_desk(home), listening, home=home, ready=ready)
        else:
            supervise(home, listening, count, ready=ready or (lambda _: None))


def run(desk: Desk, listening: socket.socket, *, home: Home, ready: Callable[[str], None] | None = None) -> None:
    """Serve a desk on a bound socket until told to stop, and close the desk."""
    write_lines(sys.stderr)
    settings = read_programme(home.settings).serving
    app = create_app(
        lambda: desk,
        keyring=Keyring(lambda: home.keys),
        now=_now,
        per_second=settings.requests_per_second,
        traces=Traces.open(os.environ),
    )
    config = uvicorn.Config(
        _Front(bento(app).to_asgi(), front=app),
        http=partial(Protocol, turn_away=Turnstile(app)),  # type: ignore[arg-type]  # whatever makes one will do
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # nothing here asks who stands behind a proxy
        backlog=BACKLOG,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    host, port = listening.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    previous = signal.signal(signal.SIGTERM, _stop)  # uvicorn raises the signal again once it has stopped
    try:
        server = _Server(config, app, grace=settings.stop_seconds, ready=lambda: ready(address) if ready else None)
        server.run(sockets=[listening])
    except (KeyboardInterrupt, SystemExit) as stopped:
        if isinstance(stopped, SystemExit) and stopped.code:
            raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def bento(app: FastAPI) -> "bentoml.Service[Any]":
    """Wrap an application as a BentoML service that answers nothing itself."""
    wrapped = bentoml.service(name="holdfast", envs=[{"name": "BENTOML_DO_NOT_TRACK", "value": "true"}], **LEAN)(
        type("Holdfast", (), {"__doc__": app.description})
    )
    wrapped.mount_asgi_app(app)  # for its lifespan
    wrapped.add_asgi_middleware(_Front, front=app)
    return wrapped


class _Front:
    """Lead every request to the application, so that BentoML's own pages and probes never answer in its place."""

    def __init__(self, app: ASGIApp, front: ASGIApp) -> None:
        self._bento, self._front = app, front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._bento if scope["type"] == "lifespan" else self._front)(scope, receive, send)


class _Server(uvicorn.Server):
    """Say for a while that no more is taken, before no more is taken."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, *, grace: float, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._app, self._grace, self._ready = app, grace, ready
        self._until: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def on_tick(self, counter: int) -> bool:
        """Stop once told to and the grace is over; whoever asks meanwhile is answered, and its connection ended."""
        if not await super().on_tick(counter):
            return False
        if self._until is None:
            self._app.state.closing, self._until = True, time.monotonic() + self._grace
        return self.force_exit or time.monotonic() >= self._until


def _clock(programme: Programme) -> Callable[[], datetime]:
    """Give the time; a programme of the past goes on from its own."""
    start, since = programme.replay_from, time.monotonic()
    if start is None:
        return _now
    return lambda: start.astimezone(UTC) + timedelta(seconds=time.monotonic() - since)


def _now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 (the one clock of serving)


def _listen(host: str, port: int, *, keys: bool) -> socket.socket:
    address = "127.0.0.1" if host == "localhost" else host
    if not keys and not is_loopback(address):
        raise ContractError(
            f"--host {host} came; without keys only this machine may ask, so 127.0.0.1 was wanted; "
            "or make a key first: holdfast keys create NAME --scope decide"
        )
    listening = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address, port))
    except (OSError, OverflowError) as error:
        listening.close()
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        why = "something listens there already; stop it, or choose another --port" if taken else str(error)
        raise ContractError(f"can't listen on {host}:{port}: {why}") from error
    return listening


def _stop(*_: object) -> None:
    raise SystemExit(0)


def _home() -> Home:
    return Home(Path(os.environ.get("HOLDFAST_HOME", ".holdfast")))


service = bento(create_app(lambda: open_desk(_home()), keyring=Keyring(lambda: _home().keys), now=_now))
