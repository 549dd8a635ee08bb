"""Whom to erase comes while others are erased: one at a time, and those who wait together."""

import asyncio
import json
import threading
from datetime import UTC, datetime
from http import HTTPStatus
from types import SimpleNamespace

import pytest
import tenacity

from features.decisions import DecisionLog, Erasure
from features.errors import ContractError
from features.home import Home
from features.privacy import erasure
from serving import members
from serving.members import MemberFiles
from serving.problems import ProblemError

WAIT = 10
NOW = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def erasing(monkeypatch):
    """Stand in for what erases: it says whom, waits to be let go on, and meets the errors there are."""
    told = SimpleNamespace(groups=[], begun=threading.Semaphore(0), go_on=threading.Semaphore(0), errors=[])

    def erase(_home, member_ids, *, log, receipt_id, **_):
        told.groups.append(member_ids)
        told.begun.release()
        assert told.go_on.acquire(timeout=WAIT)
        if told.errors:
            raise told.errors.pop(0)
        receipt = erasure.Receipt(receipt_id, "2024-01-01", member_ids, {})
        log.end_erasure(receipt_id, vars(receipt), now=NOW).result()
        return receipt

    monkeypatch.setattr(erasure, "erase", erase)
    monkeypatch.setattr(members, "PROMPT", WAIT)
    return told


@pytest.fixture
def log(tmp_path):
    with DecisionLog(Home(tmp_path).decisions) as log:
        yield log


@pytest.fixture
def files(tmp_path, log):
    return MemberFiles(Home(tmp_path), None, log, lambda: NOW)


async def begun(files, erasing, *member_ids):
    """Ask, and give the tasks once the first is at work and the others wait."""
    tasks = [asyncio.create_task(files.erase(member_ids[0]))]
    assert await asyncio.to_thread(erasing.begun.acquire, timeout=WAIT)
    tasks += [asyncio.create_task(files.erase(one)) for one in member_ids[1:]]
    await asyncio.sleep(0)
    return tasks


def test_those_who_wait_are_erased_together_and_share_a_receipt(files, erasing):
    async def ask():
        tasks = await begun(files, erasing, "m1", "m2", "m3", "m2", "m1")
        erasing.go_on.release(2)
        return await asyncio.gather(*tasks)

    first, *others, again = asyncio.run(ask())
    assert erasing.groups == [("m1",), ("m2", "m3")]
    assert first[0] == HTTPStatus.OK
    assert first == again  # who asks for whom is being erased waits for that
    assert len(set(others)) == 1
    assert first != others[0]


def test_a_caller_that_leaves_takes_nobody_along(files, erasing):
    async def ask():
        first, leaving, staying = await begun(files, erasing, "m1", "m2", "m3")
        leaving.cancel()
        first.cancel()
        erasing.go_on.release(2)
        return await staying

    assert b"m2" in asyncio.run(ask())[1]
    assert erasing.groups == [("m1",), ("m2", "m3")]


def test_what_can_not_be_erased_now_is_tried_until_it_is(files, erasing, monkeypatch, caplog):
    erasing.errors = [OSError("the disk, on m1"), ContractError("another ingest")]
    monkeypatch.setattr(members, "PATIENCE", tenacity.wait_none())

    async def ask():
        tasks = await begun(files, erasing, "m1", "m2")
        erasing.go_on.release(4)
        return await asyncio.gather(*tasks)

    assert [status for status, _ in asyncio.run(ask())] == [HTTPStatus.OK] * 2
    assert erasing.groups == [("m1",), ("m1",), ("m1",), ("m2",)]
    assert [record.args[0] for record in caplog.records] == ["OSError", "ContractError"]
    assert "m1" not in caplog.text


def test_what_takes_long_is_answered_once_it_is_on_the_disk_and_its_receipt_is_there_later(
    files, log, erasing, monkeypatch
):
    monkeypatch.setattr(members, "PROMPT", 0)

    async def ask():
        first, second = await asyncio.gather(*await begun(files, erasing, "m1", "m2"))
        noted = {one.receipt_id: one.member_ids for one in log.pending_erasures()}
        number = json.loads(second[1])["receipt_id"]
        meanwhile = await files.receipt(number)
        erasing.go_on.release(2)
        await asyncio.gather(*(one for one in asyncio.all_tasks() if one is not asyncio.current_task()))
        return first, second, noted, meanwhile, await files.receipt(number)

    first, second, noted, meanwhile, done = asyncio.run(ask())
    numbers = [json.loads(body)["receipt_id"] for _, body in (first, second)]
    assert first[0] == second[0] == HTTPStatus.ACCEPTED
    assert noted == {numbers[0]: ("m1",), numbers[1]: ("m2",)}
    assert log.erased(["m1", "m2", "m3"]) == [True, True, False]
    assert meanwhile == second
    assert (done[0], json.loads(done[1])["members"]) == (HTTPStatus.OK, ["m2"])


def test_the_number_of_whom_another_process_is_erasing_is_known_from_the_first(files, log, erasing, monkeypatch):
    monkeypatch.setattr(members, "PROMPT", 0)
    log.begin_erasure(Erasure("theirs", ("m1",)), now=NOW).result()

    async def ask():
        ((_, begun_here),) = await asyncio.gather(*await begun(files, erasing, "m1"))
        meanwhile = await files.receipt(json.loads(begun_here)["receipt_id"])
        erasing.go_on.release()
        await asyncio.gather(*(one for one in asyncio.all_tasks() if one is not asyncio.current_task()))
        return begun_here, meanwhile

    begun_here, meanwhile = asyncio.run(ask())
    assert [one.receipt_id for one in log.pending_erasures()] == ["theirs"]
    assert meanwhile == (HTTPStatus.ACCEPTED, begun_here)


def test_what_can_not_be_noted_and_a_receipt_that_is_none_are_problems(files, log, erasing):
    with pytest.raises(ProblemError, match="number") as met:
        asyncio.run(files.receipt("none"))
    assert met.value.status == HTTPStatus.NOT_FOUND
    log.close()
    erasing.go_on.release()
    with pytest.raises(ProblemError, match="repeat") as met:
        asyncio.run(files.erase("m1"))
    assert met.value.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert "m1" not in met.value.detail
