"""Whom to erase comes while others are erased: one at a time, and those who wait together."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from features.home import Home
from features.privacy import erasure
from serving.members import MemberFiles
from serving.problems import ProblemError

WAIT = 10


@pytest.fixture
def erasing(monkeypatch):
    """Stand in for what erases: it says whom, and waits to be let go on."""
    told = SimpleNamespace(groups=[], begun=threading.Semaphore(0), go_on=threading.Semaphore(0), error=None)

    def erase(_home, member_ids, **_):
        told.groups.append(member_ids)
        told.begun.release()
        assert told.go_on.acquire(timeout=WAIT)
        if told.error:
            raise told.error
        return erasure.Receipt(f"receipt-{len(told.groups)}", "2024-01-01", member_ids, {})

    monkeypatch.setattr(erasure, "erase", erase)
    return told


@pytest.fixture
def files(tmp_path):
    return MemberFiles(Home(tmp_path), None, None, None)


async def begun(files, erasing, *member_ids):
    """Ask, and give the tasks once the first is at work and the others wait."""
    tasks = [asyncio.create_task(files.erase(member_ids[0]))]
    assert await asyncio.to_thread(erasing.begun.acquire, timeout=WAIT)
    tasks += [asyncio.create_task(files.erase(one)) for one in member_ids[1:]]
    await asyncio.sleep(0)
    return tasks


def test_those_who_wait_are_erased_together_and_share_a_receipt(files, erasing):
    async def ask():
        tasks = await begun(files, erasing, "m1", "m2", "m3", "m2")
        erasing.go_on.release(2)
        return await asyncio.gather(*tasks)

    first, *others = asyncio.run(ask())
    assert erasing.groups == [("m1",), ("m2", "m3")]
    assert b"receipt-1" in first
    assert b"receipt-2" in others[0]
    assert len(set(others)) == 1


def test_a_caller_that_leaves_takes_nobody_along(files, erasing):
    async def ask():
        first, leaving, staying = await begun(files, erasing, "m1", "m2", "m3")
        leaving.cancel()
        first.cancel()
        erasing.go_on.release(2)
        return await staying

    assert b"m2" in asyncio.run(ask())
    assert erasing.groups == [("m1",), ("m2", "m3")]


def test_what_can_not_be_erased_now_is_a_problem_of_all_who_asked_and_the_next_is_tried(files, erasing):
    erasing.error = OSError("the disk")

    async def ask():
        tasks = await begun(files, erasing, "m1", "m2", "m3")
        erasing.go_on.release(2)
        return await asyncio.gather(*tasks, return_exceptions=True)

    told = asyncio.run(ask())
    assert [(type(one), one.status) for one in told] == [(ProblemError, 503)] * 3
    assert "the disk" not in str(told[0])
