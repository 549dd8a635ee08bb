"""A client that speaks HTTP/1.1 over one connection, by itself: quick, and it sees every reset."""

import asyncio
import json
from dataclasses import dataclass, field

PATIENCE = 10.0  # seconds: what takes longer hangs


@dataclass
class Answer:
    """Hold what came back."""

    status: int
    headers: dict = field(default_factory=dict)
    body: bytes = b""

    def json(self):
        return json.loads(self.body)


class Client:
    """Ask one service; a connection that breaks is an OSError or an EOFError."""

    def __init__(self, address):
        self.host, port = address.removeprefix("http://").rsplit(":", 1)
        self.port = int(port)
        self._reader = self._writer = None

    async def ask(self, method, path, body=None, **headers):
        """Make one call."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self.host, self.port)
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"Host": self.host, "Content-Type": "application/json", "Content-Length": str(len(content)), **headers}
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in given.items())
        self._writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + content)
        async with asyncio.timeout(PATIENCE):
            return await self._answer()

    async def _answer(self):
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.split(": ", 1) for line in head[1:] if line)
        headers = {name.lower(): value for name, value in pairs}
        answer = Answer(int(head[0].split()[1]), headers)
        answer.body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection") == "close":
            self.close()
        return answer

    def close(self):
        """Let go of the connection."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


async def decide(client, diary, key, members, **fields):
    """Ask for decisions under a key, and note it; None if nobody knows what became of it."""
    number = diary.asks(key, members)
    try:
        answer = await client.ask("POST", "/v1/decisions", {"members": list(members), **fields}, Idempotency_Key=key)
    except (OSError, EOFError):
        client.close()
        return None
    diary.hears(number, answer.status, answer.body.decode(), replayed="idempotency-replayed" in answer.headers)
    return answer
