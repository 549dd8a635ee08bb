"""The shadow's process: gives way to everybody, decides beside the champion, and goes when who started it is gone.

It speaks in lines of JSON: that it is ready, how far it is, or why it is no shadow.
"""

import ctypes
import json
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final

from features.errors import HoldfastError
from features.home import Home
from serving.shadow.child import Told
from training.releases.trial import confine

TICK: Final = 0.5  # seconds between two looks at a log that had nothing new
REST: Final = 3  # times as long as it was at work: memory and caches are shared, whoever has the processor
SAY: Final = 1.0  # seconds after which it says that it lives, whatever there is to say
PARENT_DEATH_SIGNAL: Final = 1  # of prctl(2)
OOM_SCORE: Final = "1000"  # where memory runs out, this goes first


def main(root: str, release_id: str, missed_since: str = "") -> None:
    """Follow a home's log until the standard input ends."""
    give_way()
    _go_along()
    threading.Thread(target=_follow_parent, name="parent", daemon=True).start()
    try:
        _follow(Home(Path(root)), release_id, int(missed_since) if missed_since else None)
    except HoldfastError as error:
        say(Told(refused=str(error)))
    except Exception as error:  # noqa: BLE001 (its traceback may hold ids)
        logging.getLogger("holdfast").error("the shadow's process failed: %s", type(error).__name__)  # noqa: TRY400
        raise SystemExit(1) from None


def give_way() -> None:
    """Run only when nobody else wants to, as far as the system knows how; who started it says when it ends."""
    for one in (signal.SIGINT, signal.SIGTERM):  # they are sent to everybody who was started from one terminal or unit
        signal.signal(one, signal.SIG_IGN)
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    if hasattr(os, "SCHED_IDLE"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, encoding="ascii")


def say(told: Told) -> None:
    """Write a line to who started this."""
    sys.stdout.write(json.dumps(asdict(told)) + "\n")
    sys.stdout.flush()


def _follow(home: Home, release_id: str, missed_since: int | None) -> None:
    import training.lean  # noqa: F401  (before XGBoost itself)

    # isort: split
    from serving.lines import write_lines  # after it has given way: all of these take time
    from serving.shadow.understudy import Understudy
    from training.artifacts import open_release
    from training.releases.shelf import bring

    write_lines(sys.stderr)
    confine()
    bring(home, release_id)
    understudy = Understudy(home, open_release(home.releases, release_id), missed_since=missed_since)
    said = 0.0
    while True:
        began = time.monotonic()
        advanced = understudy.step()
        if advanced or time.monotonic() - said > SAY:
            said = time.monotonic()
            say(understudy.told())
        time.sleep(max(REST * (time.monotonic() - began), 0.0 if advanced else TICK))


def _go_along() -> None:
    """Let the system end this with who started it, where it can: even when it is stopped, or hangs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _follow_parent() -> None:
    sys.stdin.buffer.read()  # ends with the parent
    os._exit(0)  # whatever it is at: what it has not written nobody misses


if __name__ == "__main__":
    main(*sys.argv[1:])
