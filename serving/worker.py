"""One worker of several: serves on the socket it was handed, and stops when its parent says so or is gone."""

import training.lean  # noqa: F401  (before XGBoost itself)

# isort: split

import os
import signal
import socket
import sys
import threading
from pathlib import Path

from features.errors import HoldfastError
from features.home import Home
from serving.service import open_desk, run
from serving.workers import READY


def main(root: str, descriptor: str, number: str) -> None:
    """Serve a home; the first line on the standard output says that requests are taken, or why they can't be."""
    threading.Thread(target=_follow_parent, name="parent", daemon=True).start()
    listening = socket.socket(fileno=int(descriptor))
    try:
        desk = open_desk(home := Home(Path(root)), worker=int(number))
    except HoldfastError as error:
        _say(f"error {error}")
        raise SystemExit(2) from None
    run(desk, listening, home=home, ready=lambda address: _say(f"{READY} {address}"))


def _follow_parent() -> None:
    sys.stdin.read()  # ends with the parent
    os.kill(os.getpid(), signal.SIGTERM)


def _say(line: str) -> None:
    print(" ".join(line.split()), flush=True)  # noqa: T201 (the parent reads it)


if __name__ == "__main__":
    main(*sys.argv[1:])
