"""The shadow's process: whatever becomes of it, the champion answers, and what becomes of the service becomes of it."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from features.decisions import Erasure, Preference, read_decisions
from features.shadow import ShadowFile
from serving.meters import Meters
from serving.shadow.keeper import Shadow, command_of
from training.releases.shadow import end_shadow

SECONDS = 120.0  # until a test gives up
SAYS = 'import sys; print(\'{"place": 1, "behind": 2, "counts": {"same": 3}}\', flush=True); '


def speaks(text):
    """Begin a program of a few words in place of the shadow's process."""
    return lambda *_: [sys.executable, "-c", text]


def drive(shadow, until):
    """Do what the thread does until something is so."""
    end = time.monotonic() + SECONDS
    while not until():
        assert time.monotonic() < end
        shadow.look()
        shadow.listen()


@pytest.fixture
def keep(home, hasty):
    """Make a shadow that a test drives in place of its thread."""
    kept = []

    def keep(**settings):
        kept.append(Shadow(home, **{"tick": 0.05, "command": hasty} | settings))
        kept[-1]._meters = Meters()
        return kept[-1]

    yield keep
    for shadow in kept:
        shadow.stop()
        shadow._work()  # what its thread would end with


def counted(shadow, result):
    return shadow._meters._shadowed.labels(result)._value.get()


def lost(shadow):
    return shadow._meters._lost._value.get()


@pytest.fixture
def stays(begin, other_root):
    begin(other_root.name)
    return other_root.name


def test_without_a_shadow_there_is_no_process_and_no_file(home, keep):
    shadow = keep()
    shadow.look()
    shadow.listen()
    assert shadow._child is None
    assert [*home.root.glob("shadow*")] == []


def test_it_decides_beside_the_champion_and_comes_and_goes(home, asked, keep, begin, *, rows_of, other_root, promoted):
    with asked() as callers:
        shadow = callers.desk._shadow = keep()
        callers.ask({"members": ["m1"]})
        begin(other_root.name)
        drive(shadow, lambda: shadow.release_id)
        before = counted(shadow, "same") + counted(shadow, "another")
        callers.ask(*({"members": [f"m{i}"]} for i in range(2, 30)))
        drive(shadow, lambda: counted(shadow, "same") + counted(shadow, "another") == before + 28)
        told, text = callers.get("/v1/release"), shadow._meters.text().decode()
        assert (told["shadow"], told["refused_shadow"]) == (other_root.name, None)
        assert f'holdfast_shadow{{release_id="{other_root.name}"}} 1.0' in text
        assert "holdfast_shadow_behind 0.0" in text
        assert end_shadow(home)
        drive(shadow, lambda: shadow._child is None)
        assert shadow.release_id is None
        begin(other_root.name)
        drive(shadow, lambda: shadow.release_id)
        promoted(home, other_root.name)
        drive(shadow, lambda: shadow._child is None)
        assert f'holdfast_shadow{{release_id="{other_root.name}"}} 0.0' in shadow._meters.text().decode()
    assert [row.member_id for row in rows_of(other_root.name)] == [f"m{i}" for i in range(2, 30)]


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="the system has no such class")
@pytest.mark.usefixtures("stays")
def test_it_runs_only_when_nobody_else_wants_to(asked, keep):
    with asked():
        shadow = keep(command=command_of)
        drive(shadow, lambda: shadow._child and os.sched_getscheduler(shadow._child.number) == os.SCHED_IDLE)
        assert os.getpriority(os.PRIO_PROCESS, shadow._child.number) == 19


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_is_killed_or_stopped_keeps_nobody_waiting_and_is_begun_again(blow, asked, keep, stays, rows_of):
    with asked() as callers:
        shadow = keep()
        drive(shadow, lambda: shadow.release_id)
        number, before, dropped = shadow._child.number, lost(shadow), counted(shadow, "dropped")
        os.kill(number, blow)
        answers = callers.ask(*({"members": [f"m{i}"]} for i in range(300)))
        drive(shadow, lambda: lost(shadow) > before)
        assert shadow.release_id is None
        drive(shadow, lambda: shadow.release_id)
        assert not Path(f"/proc/{number}").exists()
        assert counted(shadow, "dropped") == dropped + 300
        drive(shadow, lambda: callers.ask({"members": ["m1"]}) and rows_of(stays))
    assert {answer.status_code for answer in answers} == {200}
    assert {row.member_id for row in rows_of(stays)} == {"m1"}


@pytest.mark.usefixtures("stays")
def test_one_that_says_nothing_before_it_is_the_shadow_is_waited_for_and_then_refused(keep):
    shadow = keep(command=speaks("import sys; sys.stdin.read()"), silent=0.0, loading=0.3)
    drive(shadow, lambda: shadow.refused)
    assert "said nothing in the process that tried to load it" in shadow.refused.reason


@pytest.mark.usefixtures("stays")
def test_one_that_says_no_more_is_begun_again(keep):
    shadow = keep(command=speaks(f"{SAYS}sys.stdin.read()"), silent=0.3)
    before = lost(shadow)
    drive(shadow, lambda: lost(shadow) > before)
    drive(shadow, lambda: shadow.release_id)


@pytest.mark.usefixtures("stays")
def test_one_that_ends_is_begun_again_later_each_time(keep):
    shadow = keep(command=speaks(SAYS))
    before, waits = lost(shadow), []
    for number in range(3):
        drive(shadow, lambda number=number: lost(shadow) == before + number + 1)
        waits.append(shadow._backoff._wait)
    assert waits == [0.2, 0.4, 0.8]
    assert shadow.refused is None


@pytest.mark.usefixtures("stays")
def test_one_that_talks_nonsense_is_taken_down(keep):
    shadow = keep(command=speaks('import sys; print(\'{"place": "m17"}\', flush=True); sys.stdin.read()'))
    drive(shadow, lambda: shadow.refused)
    assert "ended in the process that tried to load it (signal 9)" in shadow.refused.reason


@pytest.mark.parametrize(
    ("text", "how"), [("import os; os.kill(os.getpid(), 11)", "signal 11"), ("raise SystemExit(7)", "exit code 7")]
)
def test_one_that_takes_its_process_along_is_refused(text, how, keep, stays):
    shadow = keep(command=speaks(text))
    drive(shadow, lambda: shadow.refused)
    assert shadow.refused.release_id == stays
    assert f"ended in the process that tried to load it ({how})" in shadow.refused.reason
    shadow.look()
    assert shadow._child is None


def test_a_release_that_is_not_what_was_released_is_no_shadow(home, asked, keep, stays):
    (home.releases / stays / "churn.json").write_text("{}")
    with asked() as callers:
        shadow = callers.desk._shadow = keep()
        drive(shadow, lambda: shadow.refused)
        told = callers.get("/v1/release")
    assert told["shadow"] is None
    assert told["refused_shadow"]["release_id"] == stays
    assert "churn.json is not the file that was released" in told["refused_shadow"]["reason"]


def test_one_that_cannot_stand_beside_the_champion_is_refused_by_what_it_lacks(
    home, asked, keep, begin, *, signed, other_root
):
    path = home.releases / other_root.name / "manifest.json"
    path.write_text(path.read_text().replace("recency_days", "recency_weeks"))
    begin(signed(path.parent).name)
    with asked() as callers:
        shadow = keep()
        drive(shadow, lambda: shadow.release_id)
        drive(shadow, lambda: callers.ask({"members": ["m1"]}) and shadow.refused)
    assert "which lacks recency_weeks" in shadow.refused.reason
    assert shadow.release_id is None


def test_of_several_workers_one_has_the_process_and_all_know_how_it_stands(home, asked, keep, begin, stays):
    with asked():
        one, other = keep(), keep()
        drive(one, lambda: one.release_id)
        drive(other, lambda: other.release_id)
        assert other._child is None
        one.stop()
        one._work()
        drive(other, lambda: other._child)
        drive(other, lambda: other.release_id)
        third = keep()
        (home.releases / stays / "churn.json").write_text("{}")
        begin(stays)
        drive(other, lambda: other.refused)
        drive(third, lambda: third.refused)
    assert third.refused == other.refused
    assert third._child is None


def test_who_opts_out_or_is_erased_while_it_decides_is_never_written_again(home, asked, keep, stays, rows_of):
    names = [f"m{i}" for i in range(40)]
    with asked() as callers:
        shadow, log, said = keep(), callers.desk._log, {}
        drive(shadow, lambda: shadow.release_id)
        asking = threading.Thread(target=lambda: callers.ask(*({"members": names} for _ in range(60))))
        asking.start()
        drive(shadow, lambda: rows_of(stays))
        for number, name in enumerate(names[:20]):
            erased = bool(number % 2)
            gone = Erasure(name, (name,)) if erased else Preference(name, personalisation=False)
            (log.begin_erasure if erased else log.prefer)(gone, now=callers.desk._world.clock()).result()
            with ShadowFile(home.shadow) as file:
                if erased:
                    file.erase([name])
                with file.writing():  # what was being written is written
                    said[name] = len(file.of_members([name]))
        asking.join()
        drive(shadow, lambda: shadow._meters._behind._value.get() == 0 and shadow._place == last_of(home))
    with ShadowFile(home.shadow) as file:
        assert {name: len(file.of_members([name])) for name in said} == said
        assert {said[name] for name in names[1:20:2]} == {0}
        assert len(file.of_members(names[20:])) == 20 * 60


def last_of(home):
    return len(read_decisions(home.decisions))


def child_of(process, address):
    """Wait until a service has a shadow, and give the number of its process."""
    end = time.monotonic() + SECONDS
    with httpx.Client(base_url=address, timeout=10) as client:
        while client.get("/v1/release").json()["shadow"] is None:
            assert time.monotonic() < end
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    return int(found.stdout)


def test_the_process_goes_with_a_service_that_is_killed_even_when_it_is_stopped(home, start, begin, other_root):
    begin(other_root.name)
    with start(home.decisions) as (process, address):
        number = child_of(process, address)
        os.kill(number, signal.SIGSTOP)
        ended = os.pidfd_open(number)
        try:
            process.kill()
            assert select.select([ended], [], [], SECONDS)[0]
        finally:
            os.close(ended)


def test_the_process_goes_with_a_service_that_is_told_to_stop(home, start, begin, other_root):
    begin(other_root.name)
    with start(home.decisions) as (process, address):
        number = child_of(process, address)
        process.terminate()
        assert process.wait(timeout=30) == 0
        assert not Path(f"/proc/{number}").exists()
