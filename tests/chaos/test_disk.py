"""A disk that fails at any write or flush, or is full: nothing promised is lost, and all goes on once it is mended."""

import asyncio
import os
import subprocess
import time
from collections import Counter

import pytest

from tests.chaos.client import Client, decide
from tests.chaos.history import Diary


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of two megabytes."""
    place = tmp_path / "small"
    place.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place]
    if os.geteuid() != 0 or subprocess.run(mounting, check=False, capture_output=True).returncode:
        pytest.skip("a small disk is mounted by root alone")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


async def ask_each_until_answered(house, address, requests):
    """Ask, and where the log refuses ask again, as an honest client does; give the statuses."""
    client, diary, statuses = Client(address), Diary(house.diaries / "client.jsonl"), []
    for number in range(requests):
        for _ in range(20):
            answer = await decide(client, diary, f"k{number}", [f"m{number}", f"m{number + 400}"], campaign_id="spring")
            statuses.append(answer.status)
            if answer.status == 200:
                break
    client.close()
    diary.close()
    return Counter(statuses)


@pytest.mark.parametrize("kind", ["eio", "enospc", "short"])
def test_the_nth_write_or_flush_fails_until_none_does(nursery, control, house, effort, tell, kind):  # noqa: PLR0917
    """Every write and flush of a commit, again and again, so that the log's checkpoints come under it too."""
    found, struck, refused, nth = Counter(), 0, 0, 1
    with nursery.service(house, shim=str(control.path)) as (_, address):
        for number in range(effort(80, 1500)):
            control.arm(nth, kind)
            first = asyncio.run(ask_once(house, address, number))
            passed = control.seen < nth
            control.arm(0, kind)
            struck, refused, nth = struck + (not passed), refused + (first == 503), 1 if passed else nth + 1
            again = asyncio.run(ask_once(house, address, number))
            found += Counter(
                {"other than 200 and 503": first not in (200, 503), "unanswered once mended": again != 200}
            )
    assert struck > 40
    found += house.violations()
    tell(f"a write or flush fails: {kind}", struck, found.total(), f"{refused} refused; {dict(+found) or ''}")


def test_a_service_that_can_not_write_when_it_starts_says_so_and_starts_later(nursery, control, houses, effort, tell):
    found, count, nth = Counter(), 0, 1
    while True:
        house = houses(nth)
        control.arm(nth, "eio")
        with nursery.service(house, shim=str(control.path)) as (_, address):
            born = address != ""
        seen = control.seen
        with nursery.service(house) as (_, address):
            found["does not start once mended"] += not address or asyncio.run(ask_once(house, address, 1)) != 200
        found += house.violations()
        count += 1
        if born and seen < nth:  # nothing failed
            break
        nth += effort(25, 1)
    tell("a write or flush fails at the start", count, found.total(), str(dict(+found) or ""))


async def ask_once(house, address, number):
    client, diary = Client(address), Diary(house.diaries / f"{number}-{time.monotonic_ns()}.jsonl")
    members = [f"m{number}", f"m{number + 4000}"]
    answer = await decide(client, diary, f"k{number}", members, campaign_id="spring")
    client.close()
    diary.close()
    return answer.status if answer else None


def test_a_full_disk_refuses_and_goes_on_once_there_is_room(nursery, small_disk, houses, tell):
    house = houses("full")
    house.log = small_disk / "decisions.db"
    for name in ("holdfast.toml", "warehouse"):
        (small_disk / name).symlink_to(house.root / name)
    ballast = small_disk / "ballast"
    with nursery.service(house) as (_, address):
        before = asyncio.run(ask_each_until_answered(house, address, 5))
        with ballast.open("wb") as file:  # to the last byte
            while True:
                try:
                    os.write(file.fileno(), b"\0" * 4096)
                except OSError:
                    break
        full = asyncio.run(ask_each_until_answered(house, address, 30))
        ballast.unlink()
        after = asyncio.run(ask_each_until_answered(house, address, 30))
    assert before[200] == 5
    assert full[503] > 0  # it was full
    found = house.violations() + Counter(
        unanswered=30 - after[200], other=(full - Counter({200: 999, 503: 999})).total()
    )
    tell("a full disk of 2 MB", full.total(), found.total(), f"{full[503]} refused; {dict(+found) or ''}")
