"""The trial of a release: it is loaded in a process of its own first, which may crash, hang or eat memory.

XGBoost's parser is C++: a file that it can't bear takes its process along (seen in 12 % of 2,000 corrupted binary
models). What a trial has read whole and scored, the service loads a moment later, by the same id, so the same bytes.
"""

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Final

from features.errors import CorruptError, HoldfastError

SECONDS: Final = 30.0  # a release of 1 MB takes one
CPU_SECONDS: Final = 20
MEMORY: Final = 2 << 30  # beyond what the process has once it can score
REFUSED: Final = 3


def try_release(root: Path) -> None:
    """Load a release and score its golden rows in a process of its own.

    Raises
    ------
    CorruptError
        If the process refuses it, crashes, or takes too long.
    """
    command = [sys.executable, "-m", "training.releases.trial", str(root.absolute())]
    frugal = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(  # noqa: S603 (this program)
            command,
            env=os.environ | frugal,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CorruptError(f"release {root.name} was not loaded within {SECONDS:.0f} s; train another") from None
    if done.returncode == REFUSED:
        raise CorruptError(done.stdout.strip())
    if done.returncode:
        ended = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        raise CorruptError(f"release {root.name} ended the process that tried to load it ({ended}); train another")


def main(root: str) -> None:
    """Be that process."""
    import training.lean  # noqa: F401  (before XGBoost itself)

    # isort: split
    from training.artifacts import load_release

    confine()
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    try:
        load_release(Path(root))
    except HoldfastError as error:
        print(error)  # noqa: T201 (the parent reads it)
        raise SystemExit(REFUSED) from None


def confine() -> None:
    """Let this process have little more memory than it has, and leave no image of it behind."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) if sys.platform == "linux" else 0
    most = pages * resource.getpagesize() + MEMORY
    for limit, value in ((resource.RLIMIT_AS, most), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (value, value))


if __name__ == "__main__":
    main(sys.argv[1])
