"""An open-loop generator: requests leave at their times, whoever is slow, and are timed from when they should have."""

import asyncio
import gc
import json
import sys
import time
from urllib.parse import urlsplit


async def _one(pool, request, due, took):
    own = time.perf_counter() - due  # what the machine and this generator took before the request could leave
    reader, writer = await pool.get()
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    await reader.readexactly(int(head.partition("content-length:")[2].partition("\r")[0]))
    took.append((time.perf_counter() - due, int(head[9:12]), own))
    pool.put_nowait((reader, writer))


async def _load(address, bodies, rate, connections):
    place, took = urlsplit(address), []
    pool = asyncio.Queue()
    for _ in range(connections):
        pool.put_nowait(await asyncio.open_connection(place.hostname, place.port))
    start, tasks = time.perf_counter() + 0.1, []
    for number, body in enumerate(bodies):
        due = start + number / rate
        await asyncio.sleep(due - time.perf_counter())
        head = f"POST {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        tasks.append(asyncio.create_task(_one(pool, request, due, took)))
    await asyncio.wait_for(asyncio.gather(*tasks), timeout=60)
    while not pool.empty():
        pool.get_nowait()[1].close()
    return took


if __name__ == "__main__":
    gc.disable()  # looking through tens of thousands of tasks is a pause, and not the service's
    asked = [line.rstrip("\n").encode() for line in sys.stdin]
    # each is used about once a second: a server closes those that are idle for some seconds
    rate = float(sys.argv[2])
    json.dump(asyncio.run(_load(sys.argv[1], asked, rate, connections=min(64, int(rate)))), sys.stdout)
