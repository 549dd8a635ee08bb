"""Append decisions until told to stop, and say of each that it is stored: what test_shared starts."""

import itertools
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from features.decisions import SharedLog
from features.errors import UnwrittenError

sys.path.insert(0, str(Path(__file__).parents[2]))
from conftest import _decision

NOW = datetime(2017, 12, 1, tzinfo=UTC)


def main(path, name):
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    with SharedLog(Path(path)) as log:
        for number in itertools.count():
            if told:
                return
            decision = _decision(f"{name}-{number}", member_id=f"m{number}")
            try:
                log.append([decision], now=NOW).result()
            except UnwrittenError:
                continue  # nobody was told that it is stored
            print(decision.decision_id, flush=True)  # noqa: T201 (the test reads it)


if __name__ == "__main__":
    main(*sys.argv[1:])
