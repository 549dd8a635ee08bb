"""A process that types verbs, one after the other: each in a process of its own would import Feast and MLflow anew."""

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parent.parent
SECONDS = 400  # for a verb; the longest takes a tenth where nothing else runs


class Typist:
    """The front door as a terminal sees it: words in; exit code, output and error stream out."""

    def __init__(self, **environment):
        command = [sys.executable, "-m", "tests.typist"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self._process = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, text=True, **pipes)

    def __call__(self, *words, folder=ROOT, home=None):
        """Type a verb in a folder, and give what a process that has ended would."""
        asked = {"words": [*map(str, words)], "folder": str(folder), "home": home and str(home)}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        late = threading.Timer(SECONDS, self._process.kill)
        late.start()
        line = self._process.stdout.readline()
        late.cancel()
        try:
            code, out, err = json.loads(line)
        except ValueError:  # what a library says past Python's own streams, or the end
            raise AssertionError(f"{words}: {line}{self._process.communicate()[0]}") from None
        return subprocess.CompletedProcess(words, code, out, err)

    def end(self):
        self._process.communicate()


def answer(words, *, folder, home):
    """Run a verb of the real front door."""
    from holdfast import main

    os.chdir(folder)
    os.environ.pop("HOLDFAST_HOME", None)
    os.environ.update({"HOLDFAST_HOME": home} if home else {})
    sys.argv = ["holdfast", *words]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
    return code, out.getvalue(), err.getvalue()


if __name__ == "__main__":
    for asked in sys.stdin:
        sys.stdout.write(json.dumps(answer(**json.loads(asked))) + "\n")
        sys.stdout.flush()
