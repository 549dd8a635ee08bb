"""A home with a budget, stock and caps; services that start by fork; and one table of what was tried.

The same tests run short in the suite and, with CHAOS=long, as `make chaos`.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.decisions import read_decisions
from tests.chaos import shim
from tests.chaos.history import Limits, read_diaries, violations
from tests.serving.conftest import release_root as release_root  # noqa: PLC0414 (a fixture)
from tests.serving.conftest import start as start  # noqa: PLC0414 (another)

LONG = os.environ.get("CHAOS") == "long"
NOW = datetime(2017, 12, 1, 12, tzinfo=UTC)
BUDGET, STOCK, DAYS = 6_000, 60, 3
SETTINGS = f"""
[policy]
min_days_between_contacts = {DAYS}
[campaigns.spring]
budget = {BUDGET}
"""
LIMITS = Limits(budgets={"spring": BUDGET}, stock={"B": STOCK}, days_between=DAYS)
TABLE = "chaos"


@pytest.fixture(scope="session")
def effort():
    """Choose how much of something is done: little in the suite, much in `make chaos`."""
    return lambda short, long: long if LONG else short


@pytest.fixture(scope="session")
def hang():
    """Say how many seconds are too many; in the suite the machine may be busy with other tests."""
    return 1.0 if LONG else 10.0


@pytest.fixture(scope="session")
def slow(hang):
    """Count answers that hung, and one more where not 99 of 100 came in a tenth of the time in which one hangs."""
    return lambda times: sum(took > hang for took in times) + int(np.quantile(times, 0.99) > hang / 10)


@pytest.fixture
def tell(request):
    """Put a line into the table: what, how many, violations, and what else is worth knowing."""

    def told(what, count, violations, note=""):
        request.node.user_properties.append((TABLE, (what, count, violations, note)))
        assert violations == 0, (what, violations, note)

    return told


def pytest_terminal_summary(terminalreporter):
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    rows = [row for report in reports if report.when == "call" for name, row in report.user_properties if name == TABLE]
    if not LONG or not rows:
        return
    width = max(len(row[0]) for row in rows)
    terminalreporter.write_line(f"\n{'what':{width}}  {'how many':>10}  violations")
    for what, count, wrong, note in rows:
        terminalreporter.write_line(f"{what:{width}}  {count:>10,}  {wrong:>10}  {note}".rstrip())


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """Make a home whose budget, stock and caps run out."""
    from features.home import Home
    from features.ingest import ingest
    from features.programme import Programme

    home = Home(tmp_path_factory.mktemp("template"))
    home.settings.write_text(SETTINGS)
    offers = {
        "offer_id": ["A", "B"], "name": ["Coupon", "Points"], "channel": ["mail", "app"], "contact_cost": [50, 5],
        "redemption_cost": [100, 20], "valid_from": datetime(2017, 1, 1, tzinfo=UTC),
        "valid_until": datetime(2018, 1, 1, tzinfo=UTC), "stock": [None, STOCK],
    }  # fmt: skip
    bought = {"transaction_id": ["t"], "member_id": ["m1"], "occurred_at": [NOW - timedelta(days=9)], "amount": [100]}
    tables = {
        "members": pd.DataFrame({"member_id": ["m1"], "joined_at": [NOW - timedelta(days=99)]}),
        "transactions": pd.DataFrame(bought),
        "offers": pd.DataFrame(offers),
    }
    ingest(tables, home=home, programme=Programme(), source="test", key="first")
    return home.root


class House:
    """A home of its own, the diaries of those who ask its service, and where the service complains."""

    def __init__(self, template, root):
        self.root, self.diaries, self.errors = root, root / "diaries", root / "errors.txt"
        root.mkdir(parents=True, exist_ok=True)
        for path in template.iterdir():  # what is only read is shared
            if not (root / path.name).exists():
                (root / path.name).symlink_to(path)
        self.diaries.mkdir()
        self.log = root / "decisions.db"

    def violations(self):
        """Check what was promised against what is there."""
        return violations(read_diaries(self.diaries), read_decisions(self.log), LIMITS)


@pytest.fixture
def house(template, tmp_path):
    """Give a home of one's own."""
    return House(template, tmp_path / "home")


@pytest.fixture
def houses(template, tmp_path):
    """Give what makes homes, each fresh."""
    return lambda number: House(template, tmp_path / f"home{number}")


class Nursery:
    """Start services by fork."""

    def __init__(self, release_root, library):
        environment = os.environ | ({"LD_PRELOAD": str(library)} if library else {})
        command = [sys.executable, "-m", "tests.chaos.nursery"]
        self.release_root, self.can_fail = release_root, library is not None
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=Path(__file__).parents[2],
        )

    def order(self, **order):
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    @contextmanager
    def service(self, house, **order):
        """Run a service until the block ends or somebody kills it."""
        born = self.order(release=str(self.release_root), log=str(house.log), errors=str(house.errors), **order)
        try:
            yield born["pid"], born["at"]
        finally:
            with suppress(ProcessLookupError):
                os.kill(born["pid"], signal.SIGKILL)
            self.order(reap=born["pid"])

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture
def control(nursery, tmp_path):
    """Give what strikes at a service's writes and flushes."""
    if not nursery.can_fail:
        pytest.skip("no C compiler")
    control = shim.Control(tmp_path / "control")
    yield control
    control.close()


@pytest.fixture(scope="session")
def nursery(release_root, tmp_path_factory):
    nursery = Nursery(release_root, shim.compiled(tmp_path_factory.mktemp("shim")))
    yield nursery
    nursery.close()
