"""The door: who may ask for what, and how often; a layer around every call, the hot ones too."""

import binascii
import ipaddress
from base64 import b64decode
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from http import HTTPStatus
from time import time
from typing import Final

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.types import ASGIApp, Receive, Scope, Send

from features.errors import CorruptError
from serving.keys import Key, Keyring
from serving.problems import ProblemError

ANY: Final = ""  # a key is wanted, whatever it opens
OPEN: Final = frozenset({"/livez", "/readyz"})
WANTED: Final = {
    "/v1/decisions": "decide",
    "/v1/scores": "decide",
    "/v1/outcomes": "outcome",
    "/v1/transactions": "outcome",
    "/v1/events": "outcome",
    "/v1/batches": "batch",
    "/metrics": "metrics",
    "/v1/release": ANY,
    "/openapi.json": ANY,
    "/": "report",
    "/look-up": "explain",
}
BELOW: Final = {
    "/v1/decisions/": "decide",
    "/v1/members/": "privacy",
    "/v1/erasures/": "privacy",
    "/v1/batches/": "batch",
    "/reports/": "report",
}
PAGES: Final = frozenset({"report", "explain"})  # what browsers ask for, whose way to show a key is a password
ELSEWHERE: Final = "admin"  # what nobody has thought of yet is not open by that
REFUSALS: Final = (401, 403, 421, 429, 431, 503)  # what it says to whom it does not let in
HEAD_BYTES: Final = 16 * 1024
CLIENT: Final = "holdfast.client"  # in a request's scope: the name of its key
NOBODY: Final = ""  # the client's name where no key is asked for


class Door:
    """Let requests in."""

    def __init__(
        self, app: ASGIApp, *, keyring: Keyring, now: Callable[[], datetime], per_second: int | None = None
    ) -> None:
        self._app, self._keyring, self._now, self._per_second = app, keyring, now, per_second
        self._limits = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or say why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            scope[CLIENT] = self._let_in(scope)
        except ProblemError as refused:
            await refused.response()(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _let_in(self, scope: Scope) -> str:
        """Give the name of who asks."""
        size, shown, hosts = len(scope["raw_path"]) + len(scope["query_string"]), [], []
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            if name == b"authorization":
                shown.append(value)
            elif name == b"host":
                hosts.append(value)
        if size > HEAD_BYTES:
            _too_long()
        try:
            keys_exist = self._keyring.keys() is not None
        except CorruptError as error:
            detail = "the file of keys can't be read, so nobody is let in"
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "keys", detail) from error
        if not keys_exist:
            _check_local(scope, hosts)
            self._check_rate(NOBODY, self._per_second)
            return NOBODY
        if scope["path"] in OPEN:
            return NOBODY
        key = self._known(shown, scope["path"])
        _check_scope(key, scope["path"])
        self._check_rate(key.name, key.per_second or self._per_second)
        return key.name

    def _known(self, shown: list[bytes], path: str) -> Key:
        word, _, token = shown[0].decode("latin-1").partition(" ") if len(shown) == 1 else ("", "", "")
        page, word, token = wanted(path) in PAGES, word.lower(), token.strip()
        if page and word == "basic":
            word, token = "bearer", _password(token)
        key = self._keyring.find(token, self._now()) if word == "bearer" else None
        if key is None and page:
            detail = "a key was wanted as the password, under any name; holdfast keys create makes one"
            headers = {"WWW-Authenticate": 'Basic realm="holdfast", charset="UTF-8"'}
            raise ProblemError(HTTPStatus.UNAUTHORIZED, "key", detail, headers=headers)
        if key is None:
            reason = ', error="invalid_token"' if shown else ""
            detail = "the header Authorization: Bearer with a valid key was wanted; holdfast keys create makes one"
            headers = {"WWW-Authenticate": f'Bearer realm="holdfast"{reason}'}
            raise ProblemError(HTTPStatus.UNAUTHORIZED, "key", detail, headers=headers)
        return key

    def _check_rate(self, name: str, per_second: int | None) -> None:
        if per_second is None:
            return
        limit = RateLimitItemPerSecond(per_second)
        if not self._limits.hit(limit, name):
            wait = max(1, round(self._limits.get_window_stats(limit, name).reset_time - time() + 0.5))
            detail = f"this client may ask {per_second} times a second; repeat after the seconds of Retry-After"
            headers = {"Retry-After": str(wait)}
            raise ProblemError(HTTPStatus.TOO_MANY_REQUESTS, "rate", detail, headers=headers)


def wanted(path: str) -> str:
    """Name the scope that a call at an address needs.

    >>> wanted("/v1/decisions"), wanted("/v1/members/m1/export"), wanted("/v1/anything")
    ('decide', 'privacy', 'admin')
    """
    if (exact := WANTED.get(path)) is not None:
        return exact
    return next((scope for start, scope in BELOW.items() if path.startswith(start)), ELSEWHERE)


def _password(token: str) -> str:
    """Take the password out of what a browser shows; nothing if that can't be read."""
    try:
        return b64decode(token, validate=True).decode("latin-1").partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


def _check_scope(key: Key, path: str) -> None:
    if (scope := wanted(path)) not in {ANY, *key.scopes}:
        detail = f"a key with the scope {scope} was wanted"
        challenge = f'Bearer realm="holdfast", error="insufficient_scope", scope="{scope}"'
        raise ProblemError(HTTPStatus.FORBIDDEN, "scope", detail, headers={"WWW-Authenticate": challenge})


def _check_local(scope: Scope, hosts: list[bytes]) -> None:
    """Refuse, where no key is asked for, whoever is not of this machine, and pages whose name was bound anew to it."""
    here = scope.get("server") or ("", None)
    if not is_loopback(here[0]):
        detail = "without keys only this machine may ask; holdfast keys create makes one"
        raise ProblemError(HTTPStatus.FORBIDDEN, "exposed", detail)
    if len(hosts) != 1 or not _names_loopback(hosts[0]):
        detail = "a Host header that names this machine (127.0.0.1, [::1] or localhost) was wanted"
        raise ProblemError(HTTPStatus.MISDIRECTED_REQUEST, "host", detail)


@lru_cache(64)
def is_loopback(address: str) -> bool:
    """Say whether an address is of this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("example.org")
    (True, True, False, False)
    """
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


@lru_cache(64)
def _names_loopback(host: bytes) -> bool:
    name = host.decode("latin-1").lower()
    if name.startswith("["):
        name, bracket, port = name[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return False
        port = port[1:]
    else:
        name, _, port = name.partition(":")
    return (name == "localhost" or is_loopback(name)) and (not port or (port.isascii() and port.isdecimal()))


def _too_long() -> None:
    detail = f"an address and headers of at most {HEAD_BYTES} bytes were wanted"
    headers = {"Connection": "close"}
    raise ProblemError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head", detail, headers=headers)
