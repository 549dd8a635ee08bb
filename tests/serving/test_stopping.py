"""Told to stop: readiness goes first, what is in flight is finished, and no client that heeds it is cut off."""

import asyncio
import signal

import httpx

from features.decisions import read_decisions

CLIENTS = 40


async def client(address, number, told):
    """Decide until the service says that it stops; give the ids that were answered."""
    answered = []
    async with httpx.AsyncClient(base_url=address, timeout=20) as connection:
        while not told.is_set():
            answer = await connection.post("/v1/decisions", json={"members": [f"m{number}"]})
            if answer.status_code == 200:
                answered += [one["decision_id"] for one in answer.json()["decisions"]]
            else:
                assert answer.status_code == 429, answer.text
    return answered


async def watch(address, process, told):
    """Look at readiness as a load balancer does, and tell everybody once it is gone."""
    async with httpx.AsyncClient(base_url=address, timeout=20) as connection:
        for _ in range(5):
            assert (await connection.get("/readyz")).status_code == 200
        process.send_signal(signal.SIGTERM)
        while (ready := await connection.get("/readyz")).status_code == 200:
            pass
        told.set()
        return ready


async def together(address, process):
    told = asyncio.Event()
    clients = [asyncio.create_task(client(address, number, told)) for number in range(CLIENTS)]
    ready = await watch(address, process, told)
    return ready, [one for answered in await asyncio.gather(*clients) for one in answered]


def test_no_client_that_heeds_readiness_is_cut_off_and_nothing_answered_is_lost(start, tmp_path):
    (tmp_path / "holdfast.toml").write_text("[serving]\nstop_seconds = 5\n")
    with start(tmp_path / "decisions.db") as (process, address):
        ready, answered = asyncio.run(together(address, process))
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == ""
    assert (ready.status_code, ready.headers["connection"]) == (503, "close")
    assert ready.json()["detail"] == "the service is stopping"
    assert len(answered) > CLIENTS
    assert set(answered) <= {row["decision_id"] for row in read_decisions(tmp_path / "decisions.db")}
