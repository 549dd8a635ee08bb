"""Start services by fork, after all imports are done once, so that a thousand of them take minutes.

Reads lines of JSON: `{"release", "log", "errors"}` starts a service and answers with its pid and address; with `point`
and `after` it kills itself at the n-th passing of that point, with `shim` a write or a flush of the disk is struck.
`{"reap": pid}` waits for one that was killed.
"""

import gc
import json
import os
import signal
import sys
from contextlib import suppress

from features.decisions import DecisionLog
from features.log.commits import Commits
from serving.clerk import Clerk
from tests.chaos import shim
from tests.serving import run_service


def main():
    gc.collect()
    gc.freeze()  # or every child looks through all of it when it starts
    for line in sys.stdin:
        order = json.loads(line)
        if "reap" in order:
            with suppress(ChildProcessError):
                os.waitpid(order["reap"], 0)
            _say({"reaped": order["reap"]})
        else:
            _say(_born(order))


def _born(order):
    """Wait for a service to be ready; one that died before that has no address."""
    hears, says = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.close(hears)
            _serve(order, lambda address: os.write(says, address.encode()))
        finally:
            os._exit(0)
    os.close(says)
    address = os.read(hears, 200).decode()
    os.close(hears)
    return {"pid": pid, "at": address}


def _serve(order, ready):
    os.setsid()
    errors = os.open(order["errors"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(errors, 2)
    if order.get("shim"):
        shim.obey(order["log"], order["shim"])
    if order.get("point"):
        POINTS[order["point"]](order["after"])
    run_service.main(order["release"], order["log"], ready=ready)


def _say(answer):
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _dying(calls, work, *, before):
    """Do the work, and die at its n-th call: before it or after it."""
    left = [calls]

    def done(*args, **named):
        left[0] -= 1
        if before and left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        result = work(*args, **named)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return done


class _Statements:
    """Stand before the log's connection, and die before or after a statement."""

    def __init__(self, db, word, calls, *, before):
        self._db = db
        self._word, self._dying = word, _dying(calls, db.execute, before=before)

    def execute(self, statement, *args):
        return (self._dying if statement.startswith(self._word) else self._db.execute)(statement, *args)

    def __getattr__(self, name):
        return getattr(self._db, name)


def _at_statement(word, *, before):
    def plant(calls):
        opened = Commits.__init__

        def init(self, *args, **named):
            opened(self, *args, **named)
            self._db = _Statements(self._db, word, calls, before=before)

        Commits.__init__ = init

    return plant


def _at_method(owner, name, *, before):
    def plant(calls):
        setattr(owner, name, _dying(calls, getattr(owner, name), before=before))

    return plant


POINTS = {
    "before a decision is taken": _at_method(Clerk, "_decide", before=True),
    "before a decision is drawn": _at_method(Clerk, "_draw", before=True),
    "before it is handed to the log": _at_method(DecisionLog, "append", before=True),
    "after it is handed to the log": _at_method(DecisionLog, "append", before=False),
    "before the transaction": _at_statement("BEGIN", before=True),
    "in the transaction": _at_statement("BEGIN", before=False),
    "in an entry": _at_statement("SAVEPOINT", before=False),
    "after an entry": _at_statement("RELEASE", before=False),
    "before the commit": _at_statement("COMMIT", before=True),
    "after the commit": _at_statement("COMMIT", before=False),
    "after the commit, before the answer": _at_method(Commits, "_commit", before=False),
    "while the answer is looked up": _at_method(DecisionLog, "answer", before=False),
}

if __name__ == "__main__":
    main()
