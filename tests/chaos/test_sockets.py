"""Bytes over real sockets that are no proper HTTP, or come too slowly: no hang, no 500, not a word repeated."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.chaos.client import Client, decide
from tests.chaos.history import Diary
from tests.chaos.hostile import MARK, hostile

BODY = b'{"members": ["m1"]}'
HEAD = b"POST /v1/decisions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNK = b"13\r\n" + BODY + b"\r\n0\r\n\r\n"
GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
SECRET = MARK.encode()
RAW = {
    "nothing": b"",
    "http/0.9": b"GET /livez\r\n",
    "http/1.0": b"GET /livez HTTP/1.0\r\n\r\n",
    "http/3.0": b"GET /livez HTTP/3.0\r\nHost: localhost\r\n\r\n",
    "http/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "redis": b"*1\r\n$4\r\nPING\r\n",
    "no host": b"GET /livez HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "bare line feeds": b"GET /livez HTTP/1.1\nHost: x\n\n",
    "absolute address": b"GET http://example.org/livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "connect": b"CONNECT example.org:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "space before colon": b"GET /livez HTTP/1.1\r\nHost : x\r\n\r\n",
    "folded header": b"GET /livez HTTP/1.1\r\nHost: localhost\r\nA: b\r\n c\r\n\r\n",
    "nul in header": b"GET /livez HTTP/1.1\r\nHost: localhost\r\nA: b\x00c\r\n\r\n",
    "high bytes in the line": b"GET /\xff\xfe" + SECRET + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "long line": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "long header": b"GET /livez HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 200_000 + b"\r\n\r\n",
    "many headers": b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 5_000 + b"\r\n",
    "absurd length": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n" + BODY,
    "large length": HEAD + b"Content-Length: 9999999999\r\n\r\n" + BODY,
    "negative length": HEAD + b"Content-Length: -1\r\n\r\n" + BODY,
    "signed length": HEAD + b"Content-Length: +19\r\n\r\n" + BODY,
    "length in words": HEAD + b"Content-Length: many\r\n\r\n" + BODY,
    "two lengths": HEAD + b"Content-Length: 19\r\nContent-Length: 20\r\n\r\n" + BODY,
    "a list of lengths": HEAD + b"Content-Length: 19, 19\r\n\r\n" + BODY,
    "length and chunks": HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNK + GET,
    "chunks and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n" + CHUNK + GET,
    "chunked, twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + GET,
    "xchunked": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + GET,
    "chunked in another case": HEAD + b"Transfer-Encoding: cHuNkEd\r\n\r\n13\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk size that is none": CHUNKED + b"zz\r\n" + BODY + b"\r\n0\r\n\r\n",
    "negative chunk": CHUNKED + b"-1\r\n" + BODY + b"\r\n0\r\n\r\n",
    "huge chunk": CHUNKED + b"ffffffffffffffff\r\n" + BODY,
    "hugest chunk": CHUNKED + b"f" * 60 + b"\r\n" + BODY,
    "chunk without an end": CHUNKED + b'5\r\n{"memXX\r\n0\r\n\r\n',
    "chunk extension": CHUNKED + b"13;" + b"a" * 50_000 + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"13\r\n" + BODY + b"\r\n0\r\nX: " + SECRET + b"\r\n\r\n",
    "a chunk of one byte each": CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n",
    "too many chunks": CHUNKED + b"1\r\n \r\n" * 270_000 + b"0\r\n\r\n",
    "pipelined": (HEAD + b"Content-Length: 19\r\n\r\n" + BODY) * 50,
    "pipelined reads": GET * 200,
    "rubbish after a request": GET + b"\x00\x01" + SECRET,
    "smuggled": HEAD + b"Content-Length: 23\r\n\r\n" + BODY + b"\r\n\r\nDELETE /v1/members/m1 HTTP/1.1\r\nA:\r\n\r\n",
    "expect": HEAD + b"Content-Length: 19\r\nExpect: 100-continue\r\n\r\n" + BODY,
    "upgrade": b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "websocket": b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    "secret in a wrong line": SECRET + b" " + SECRET + b"\r\n\r\n",
}  # fmt: skip
# what waits for more, and so may be left without an answer: the sender owes it
OWED = {"nothing", "http/0.9", "large length", "huge chunk", "absurd length", "chunk without an end", "redis"}
OWED |= {"long line", "long header", "many headers"}  # hung up on as soon as the head is too long


async def raw(address, sent, *, wait=0.5, owed=None):
    """Send bytes, and read until there is no more; a server that waits for more is heard for so long.

    Parameters
    ----------
    owed : seconds until the first word of an answer that is owed; None: there may be none
    """
    host, port = address.removeprefix("http://").rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    said, started = b"", time.perf_counter()
    first = None
    try:
        writer.write(sent)
        async with asyncio.timeout(10):
            while more := await _more(reader, wait if said else owed or 2 * wait):
                first = first or time.perf_counter() - started
                said += more
    except OSError:
        pass  # refused in the middle
    finally:
        writer.close()
    return said, first


async def _more(reader, seconds):
    try:
        async with asyncio.timeout(seconds):
            return await reader.read(65536)
    except TimeoutError:
        return b""


async def _alive(address, hang):
    client = Client(address)
    started = time.perf_counter()
    answer = await client.ask("GET", "/livez")
    client.close()
    return answer.status == 200 and time.perf_counter() - started < hang


def resident(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 // 2**20


def open_files(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.parametrize("name", RAW)
def test_bytes_that_are_no_proper_request(nursery_service, hang, name):
    address, house = nursery_service
    silent = name in OWED or name == "rubbish after a request"
    said, first = asyncio.run(raw(address, RAW[name], wait=0.15 if silent else 0.3, owed=None if silent else hang))
    assert said or silent, name
    assert not said or said.startswith(b"HTTP/1.1 "), said[:200]
    assert b"HTTP/1.1 5" not in said
    assert first is None or first < hang
    assert SECRET not in said
    assert MARK not in house.errors.read_text()
    assert asyncio.run(_alive(address, hang))


@pytest.fixture(scope="module")
def nursery_service(nursery, template, tmp_path_factory):
    from tests.chaos.conftest import House

    house = House(template, tmp_path_factory.mktemp("sockets") / "home")
    with nursery.service(house) as (_, address):
        yield address, house


def test_many_of_them_over_sockets_leave_a_service_as_it_was(nursery, house, effort, tell, hang):
    rng, wrong, count = np.random.default_rng(23), Counter(), effort(120, 4_000)
    source, names = hostile(rng), list(set(RAW) - OWED - {"too many chunks", "rubbish after a request"})

    def wire():
        if rng.random() < 0.2:
            return RAW[names[int(rng.integers(len(names)))]]
        made = next(source)
        head = f"{made.method} {made.path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        head += f"content-length: {len(made.body)}\r\n"
        given = "".join(f"{name}: {value}\r\n" for name, value in made.headers.items() if name != "content-length")
        return (head + given + "\r\n").encode("latin-1", "replace") + made.body

    async def some(address, number):
        for _ in range(number):
            said, first = await raw(address, wire(), wait=0.3)
            wrong["500"] += b"HTTP/1.1 500" in said
            wrong["hang"] += first is not None and first > hang
            wrong["repeated"] += SECRET in said and b"HTTP/1.1 200" not in said and b"HTTP/1.1 202" not in said
            wrong["not alive"] += not await _alive(address, hang) if rng.random() < 0.02 else 0

    async def all_of_them(address):
        await asyncio.gather(*(some(address, count // 16) for _ in range(16)))

    with nursery.service(house) as (pid, address):
        asyncio.run(all_of_them(address))
        memory, files = resident(pid), open_files(pid)
        started = time.monotonic()
        asyncio.run(all_of_them(address))
        rate = count / (time.monotonic() - started)
        grown, left = resident(pid) - memory, open_files(pid) - files
    wrong["repeated in the log"] += MARK in house.errors.read_text()
    assert grown < 30
    assert left < 8
    note = f"{rate:,.0f} a second, memory {grown:+d} MB; {dict(+wrong) or ''}"
    tell("hostile bytes over real sockets", 2 * count, wrong.total(), note)


def test_slow_senders_keep_nobody_waiting(nursery, house, effort, tell, hang):
    slow, asked = effort(150, 400), effort(30, 300)  # more than are let in at a time

    async def trickle(address, stop):
        host, port = address.removeprefix("http://").rsplit(":", 1)
        _, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(HEAD + b"Content-Length: 100000\r\n\r\n")
            while not stop.is_set():
                writer.write(b" ")
                await asyncio.sleep(0.05)
        except OSError:
            pass
        finally:
            writer.close()

    async def beside(address):
        stop = asyncio.Event()
        slow_ones = [asyncio.create_task(trickle(address, stop)) for _ in range(slow)]
        client, diary, times, statuses = Client(address), Diary(house.diaries / "c.jsonl"), [], Counter()
        for number in range(asked):
            started = time.perf_counter()
            answer = await decide(client, diary, f"k{number}", [f"m{number}"])
            times.append(time.perf_counter() - started)
            statuses[answer.status] += 1
        stop.set()
        await asyncio.gather(*slow_ones)
        client.close()
        diary.close()
        return times, statuses

    with nursery.service(house) as (_, address):
        times, statuses = asyncio.run(beside(address))
    wrong = asked - statuses[200] + sum(took > hang for took in times)
    note = f"{slow} slow senders beside; p99 {1000 * np.quantile(times, 0.99):.0f} ms; {dict(statuses)}"
    tell("answers beside slow senders", asked, wrong + house.violations().total(), note)
