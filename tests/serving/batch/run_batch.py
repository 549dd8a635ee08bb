"""Decide a batch, and be killed when so many of its parts are in the log and one more is on the disk."""

import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from features.decisions import DecisionLog
from features.home import Home
from serving.batch.plan import Request, plan_batch
from serving.batch.run import decide_batch


def main(root, parts):
    append, calls = DecisionLog.append_part, iter(range(int(parts)))

    def append_or_die(*args, **values):
        if next(calls, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return append(*args, **values)

    DecisionLog.append_part = append_or_die
    plan = plan_batch(Home(Path(root)), Request(campaign_id="c", budget=9_000))
    decide_batch(plan, now=datetime(2017, 12, 1, 12, tzinfo=UTC), progress=lambda *_: None)


if __name__ == "__main__":
    main(*sys.argv[1:])
