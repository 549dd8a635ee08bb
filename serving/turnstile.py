"""The turnstile before the gate: says no to a hot call while there is no room, in bytes that were made ready before."""

import time
from email.utils import formatdate
from typing import Final

from fastapi import FastAPI

from serving.desk import Desk
from serving.gate import busy
from serving.guard import REQUEST_ID, name_of
from serving.lane import CALLS
from serving.protocol import Headers

ADDRESSES: Final = {call.encode(): call for call in CALLS}
POST: Final = b"POST"


class Turnstile:
    """Turn away whom the gate would; only the event loop may ask."""

    def __init__(self, app: FastAPI) -> None:
        self._state = app.state
        response = busy().response()
        lines = [name + b": " + value + b"\r\n" for name, value in response.raw_headers]
        self._head = b"HTTP/1.1 %d Too Many Requests\r\n" % response.status_code + b"".join(lines)
        self._status, self._body = response.status_code, bytes(response.body)
        self._second, self._date = 0, b""

    def __call__(self, method: bytes, address: bytes, headers: Headers) -> bytes | None:
        """Give a whole answer where there is no room; nothing where a request may go in."""
        call, desk = ADDRESSES.get(address), self._state.desk
        if call is None or not isinstance(desk, Desk) or not desk.gate.full or method != POST or self._state.closing:
            return None
        desk.meters.answered(call, self._status, 0.0)
        name, _ = name_of(headers)
        return b"".join((self._head, self._now(), REQUEST_ID, b": ", name, b"\r\n\r\n", self._body))

    def _now(self) -> bytes:
        """Give the line of the date, made once a second."""
        if (second := int(time.time())) != self._second:
            self._second, self._date = second, f"date: {formatdate(second, usegmt=True)}\r\n".encode()
        return self._date
