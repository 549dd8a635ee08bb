"""What any process may ask of the decision log, and how that is written on a socket.

The types of a call's arguments and result are those of the protocol `Kept`: a call that is added there is known here.
"""

import inspect
import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import Any, Final, Protocol, get_args, get_origin, get_type_hints

import msgspec

from features import errors
from features.errors import HoldfastError
from features.log.agreement import Agreement
from features.log.book import Contact, Seen, Spending
from features.log.entries import Answer, Batch, Decision, Outcome, Part
from features.log.erasing import Erasure, Renewed, Traces
from features.log.leaving import Leaving
from features.log.register import Preference

VERSION: Final = 1  # of what is said on the socket; the hello carries it
LENGTH: Final = 4  # bytes in front of a frame that say how long it is
_ENCODER: Final = msgspec.msgpack.Encoder()


class Kept(Protocol):
    """What only the process that keeps the log can do; `features.log.writer` says what each call does."""

    def append(
        self,
        decisions: Sequence[Decision],
        *,
        now: datetime,
        answer: Answer | None = None,
        seen: Seen | None = None,
    ) -> Future[Answer | None]:
        """Store decisions and the answer they were given."""
        ...

    def record(self, outcome: Outcome, *, now: datetime) -> Future[bool]:
        """Store an outcome."""
        ...

    def begin_batch(self, batch: Batch) -> Future[bool]:
        """Store what a batch is."""
        ...

    def reserve(
        self,
        batch_id: str,
        part: int,
        place: int,
        contacts: Sequence[Contact],
        spending: Spending,
        *,
        seen: Seen | None = None,
    ) -> Future[int]:
        """Count the contacts that rows of a part make."""
        ...

    def release(self, batch_id: str) -> None:
        """Let go of what is reserved for a batch."""
        ...

    def append_part(self, part: Part, reservations: int) -> Future[bool]:
        """Store that a part of a batch was decided."""
        ...

    def keep_catalogue(self, catalogue_id: str, body: Mapping[str, Any], *, now: datetime) -> Future[None]:
        """Store a catalogue."""
        ...

    def set_price(
        self, campaign_id: str, base_price: float, stock_prices: Mapping[str, float], *, now: datetime
    ) -> Future[None]:
        """Store a campaign's prices."""
        ...

    def price(self, campaign_id: str) -> tuple[float, dict[str, float]]:
        """Give a campaign's prices."""
        ...

    def apart(self) -> bool:
        """Say whether what others commit is not known."""
        ...

    def moment(self) -> int:
        """Count what was handed in so far."""
        ...

    def touched(self, member_ids: Sequence[str], *, since: int) -> list[str]:
        """Say which members were contacted after a moment."""
        ...

    def contacts(self, member_ids: Sequence[str], *, since: datetime) -> list[Contact]:
        """Give the contacts of members."""
        ...

    def contacted(self, offer_ids: Sequence[str]) -> list[int]:
        """Count the contacts of each offer."""
        ...

    def spent(self, campaign_id: str) -> int:
        """Sum the expected costs of a campaign's contacts."""
        ...

    def answer(self, idempotency_key: str) -> Answer | None:
        """Look up what was answered under a key."""
        ...

    def prefer(self, preference: Preference, *, now: datetime) -> Future[bool]:
        """Store what a member wants."""
        ...

    def opted_out(self, member_ids: Sequence[str]) -> list[bool]:
        """Say who wants no personalisation, or was erased."""
        ...

    def erased(self, names: Sequence[str]) -> list[bool]:
        """Say which ids have a tombstone."""
        ...

    def begin_erasure(self, erasure: Erasure, *, now: datetime) -> Future[None]:
        """Set tombstones, and keep whom to erase."""
        ...

    def erase(self, erasure: Erasure, traces: Traces, *, now: datetime) -> Future[dict[str, int]]:
        """Erase members from the log, but for its batches, some decisions at a time."""
        ...

    def renew_part(self, renewed: Renewed, *, now: datetime) -> Future[None]:
        """Vouch for a part of a batch without the erased."""
        ...

    def end_erasure(self, receipt_id: str, body: Mapping[str, Any], *, now: datetime) -> Future[dict[str, Any]]:
        """Keep the receipt, and forget whom it is about."""
        ...

    def let_go(self, leaving: Leaving, *, now: datetime) -> Future[dict[str, int]]:
        """Let go of what has stood for long enough."""
        ...

    def overwrite_gaps(self) -> Future[int]:
        """Overwrite what the file still holds of rows that are gone."""
        ...

    def pending_erasures(self) -> list[Erasure]:
        """Give the erasures that began and did not end."""
        ...

    def follow(self) -> Future[bool]:
        """Note which rows change."""
        ...

    def drained(self, number: int) -> Future[None]:
        """Drop the notes up to a number."""
        ...


class Log(Kept, Protocol):
    """The decision log, kept by this process or by another."""

    @property
    def keeps(self) -> bool:
        """Whether it is this process, so that nothing that is looked up goes over a socket."""
        ...

    @property
    def backlog(self) -> int:
        """Entries that wait."""
        ...

    @property
    def undrained(self) -> int:
        """Changes that Postgres lacks, where there is one."""
        ...

    @property
    def agreement(self) -> Agreement | None:
        """How it stands with other instances, where this process writes and there are some."""
        ...

    def decision(self, decision_id: str) -> dict[str, Any] | None:
        """Look up one decision."""
        ...

    def close(self) -> None:
        """Let go, once all that was handed in is stored."""
        ...


class Call:
    """Know how one call of `Kept` is written and read."""

    def __init__(self, name: str) -> None:
        hints = get_type_hints(getattr(Kept, name))
        result = hints.pop("return")
        if get_origin(result) is Future:
            (result,) = get_args(result)
        self.name = name
        self._arguments = msgspec.defstruct(name, list(hints.items()), array_like=True)
        self._from = msgspec.msgpack.Decoder(self._arguments)
        self._result = msgspec.msgpack.Decoder(result)

    def ask(self, number: int, values: Mapping[str, Any]) -> bytes:
        """Write a call."""
        return frame(Ask(number, self.name, msgspec.Raw(_ENCODER.encode(self._arguments(**values)))))

    def values(self, arguments: msgspec.Raw) -> dict[str, Any]:
        """Read what a call comes with."""
        return msgspec.structs.asdict(self._from.decode(arguments))

    def result(self, told: "Told") -> Any:  # noqa: ANN401 (what the call gives)
        """Read what came of a call, or raise what it raised."""
        if told.error is not None:
            raise error_of(*told.error)
        return self._result.decode(told.value)


class Ask(msgspec.Struct, array_like=True):
    """Hold a call under a number of its connection's own."""

    number: int
    call: str
    arguments: msgspec.Raw


class Told(msgspec.Struct, array_like=True):
    """Hold what came of a call; the number -1 is the hello, and -2 says that no call is taken any more."""

    number: int
    value: msgspec.Raw = msgspec.Raw(_ENCODER.encode(None))
    error: tuple[str, str] | None = None


HELLO: Final = -1
BYE: Final = -2


def told(number: int, value: Any) -> bytes:  # noqa: ANN401 (what a call gives)
    """Write what came of a call."""
    return frame(Told(number, msgspec.Raw(_ENCODER.encode(value))))


def failed(number: int, error: BaseException) -> bytes:
    """Write what a call raised; of what nobody foresaw only its name, as its message may hold ids."""
    known = isinstance(error, HoldfastError)
    words = str(error) if known else f"the decision log refused an entry ({type(error).__name__})"
    return frame(Told(number, error=(type(error).__name__ if known else HoldfastError.__name__, words)))


def error_of(name: str, words: str) -> HoldfastError:
    """Make the error that a call raised."""
    kind = getattr(errors, name, HoldfastError)
    return kind(words) if isinstance(kind, type) and issubclass(kind, HoldfastError) else HoldfastError(words)


def frame(message: msgspec.Struct) -> bytes:
    """Put a message's length in front of it."""
    body = _ENCODER.encode(message)
    return len(body).to_bytes(LENGTH, "big") + body


def frames(connection: socket.socket) -> Iterator[bytes]:
    """Read messages until the other side ends."""
    with connection.makefile("rb") as stream:
        while len(length := stream.read(LENGTH)) == LENGTH:
            size = int.from_bytes(length, "big")
            if len(body := stream.read(size)) < size:
                return
            yield body


CALLS: Final = {name: Call(name) for name, of in vars(Kept).items() if inspect.isfunction(of) and name[0] != "_"}
