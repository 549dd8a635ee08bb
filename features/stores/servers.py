"""Redis, one server or a cluster, asked briefly: the door to its library.

A server that hangs or refuses costs one attempt, and is then left alone for a moment, while the others of a cluster go
on answering. The library's own retries are off: in a cluster they would ask a server that hangs once for every key. It
does notice, before a connection is used again, that the server has restarted.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

from redis import Redis, RedisCluster
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.connection import parse_url
from redis.exceptions import AskError, MovedError, RedisClusterException, RedisError, ResponseError
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import TimeoutError as LateError
from redis.retry import Retry

from features.errors import ContractError, UnavailableError

T = TypeVar("T")

_FAILED: Final = (RedisError, RedisClusterException)  # the latter is none of the former
_PAUSE_SECONDS: Final = 0.5
_SCANNED: Final = 1_000


class Command(NamedTuple):
    """Hold what a server is asked, and the key by which a cluster says which."""

    key: bytes
    words: tuple[Any, ...]


class Servers:
    """Ask Redis; one object may be used by many threads.

    Parameters
    ----------
    address : redis://host:6379/0, rediss://..., unix:///path, or redis+cluster://h1:7000,h2:7000 (rediss+cluster://...)
    seconds : so long may connecting take, and so long an answer
    """

    def __init__(self, address: str, seconds: float) -> None:
        self.clustered = "+cluster://" in address
        self._address, self._seconds = address, seconds
        self._name = address.rpartition("@")[2]  # without what may be a password
        self._opening = threading.Lock()
        self._client: Redis | RedisCluster | None = None
        self._asked_again_at: dict[str, float] = {}  # on the monotonic clock, by server
        self._stale = False  # what is known of which server of a cluster keeps what

    def send(self, commands: Sequence[Command]) -> list[Any]:
        """Give the answers, in the order of the commands.

        Raises
        ------
        UnavailableError
            If a server doesn't answer in time, or answers with an error.
        """
        try:
            client = self._open()
            answers: list[Any] = [None] * len(commands)
            for name, (server, places) in self._by_server(client, commands).items():
                found = self._briefly(name, partial(_execute, server, [commands[place].words for place in places]))
                for place, answer in zip(places, found, strict=True):
                    answers[place] = self._checked(client, commands[place], answer)
        except _FAILED as error:
            raise self._unavailable(error) from error
        return answers

    def delete(self, pattern: str) -> None:
        """Delete every key that matches.

        Raises
        ------
        UnavailableError
            As `send`.
        """
        for keys in self.keys(pattern):
            self.send([Command(key, ("UNLINK", key)) for key in keys])

    def keys(self, pattern: str) -> Iterator[list[bytes]]:
        """Give the keys that match, some at a time; one may come twice.

        Raises
        ------
        UnavailableError
            As `send`.
        """
        try:
            found = self._open().scan_iter(match=pattern, count=_SCANNED)
            while keys := list(islice(found, _SCANNED)):
                yield keys
        except _FAILED as error:
            raise self._unavailable(error) from error

    def close(self) -> None:
        """Let go of every connection."""
        with self._opening:
            if self._client:
                self._client.close()
            self._client = None

    def _open(self) -> Any:  # noqa: ANN401 (a client of one server or of a cluster)
        with self._opening:
            if self._client is None or (self._stale and self.clustered):
                self._client = self._briefly(self._name, self._opened)
            self._stale = False
            return self._client

    def _opened(self) -> Redis | RedisCluster:
        if self._client is None:
            return _connect(self._address, self._seconds)
        self._client.nodes_manager.initialize()
        return self._client

    def _by_server(self, client: Any, commands: Sequence[Command]) -> dict[str, tuple[Redis, list[int]]]:  # noqa: ANN401 (as `_open`)
        if not self.clustered:
            return {self._name: (client, list(range(len(commands))))}
        servers: dict[str, tuple[Redis, list[int]]] = {}
        for place, command in enumerate(commands):
            node = client.get_node_from_key(command.key)
            servers.setdefault(node.name, (client.get_redis_connection(node), []))[1].append(place)
        return servers

    def _briefly(self, name: str, work: Callable[[], T]) -> T:
        """Have a server work, unless it failed a moment ago."""
        if time.monotonic() < self._asked_again_at.get(name, 0.0):
            raise LostError(f"{name} did not answer a moment ago")
        try:
            return work()
        except (LostError, LateError, RedisClusterException):
            self._asked_again_at[name] = time.monotonic() + _PAUSE_SECONDS
            self._stale = True
            raise

    def _checked(self, client: Any, command: Command, answer: Any) -> Any:  # noqa: ANN401 (as `_open`; what Redis answers)
        if isinstance(answer, MovedError | AskError):  # the cluster is being rearranged: the library finds the way
            return client.execute_command(*command.words)
        if isinstance(answer, RedisError):
            raise answer
        return answer

    def _unavailable(self, error: Exception) -> UnavailableError:
        return UnavailableError(
            f"the online store at {self._name} does not answer as it should: {type(error).__name__}: {error}; "
            f"see that it runs, or change `online` under [engine] in holdfast.toml"
        )


def _execute(server: Redis, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    if len(commands) == 1:
        try:
            return [server.execute_command(*commands[0])]
        except ResponseError as error:
            return [error]
    pipeline = server.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    answers: list[Any] = pipeline.execute(raise_on_error=False)
    return answers


def _connect(address: str, seconds: float) -> Redis | RedisCluster:
    options: dict[str, Any] = {
        "socket_connect_timeout": seconds,
        "socket_timeout": seconds,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "driver_info": None,  # or a new connection begins with introductions
    }
    scheme, clustered, rest = address.partition("+cluster://")
    try:
        if not clustered:
            return Redis.from_url(address, **options)
        identity, at, hosts = rest.rpartition("@")
        first, *others = hosts.split(",")
        places = [parse_url(f"redis://{other}") for other in others]
        nodes = [ClusterNode(place["host"], place.get("port", 6379)) for place in places]
        address = f"{scheme}://{identity}{at}{first}"
        return RedisCluster.from_url(address, startup_nodes=nodes, dynamic_startup_nodes=False, **options)
    except (ValueError, KeyError) as error:
        raise ContractError(
            "`online` under [engine] in holdfast.toml is no address of Redis; wanted redis://host:6379/0 or "
            "redis+cluster://host:7000,host:7001"
        ) from error
