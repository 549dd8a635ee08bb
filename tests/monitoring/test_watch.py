"""What monitoring compares: whole weeks, each member once in each."""

from datetime import UTC, datetime

import pytest

from features.errors import NotFoundError
from features.home import Home
from monitoring.watch import current_window

MONDAYS = [datetime(2017, 5, day, 4, tzinfo=UTC) for day in (1, 8, 15, 22, 29)]


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path)
    home.settings.write_text('timezone = "America/New_York"\n')
    home.features.mkdir()
    return home


def _stand(home, dates):
    for as_of in dates:
        home.snapshot(as_of).touch()


@pytest.mark.parametrize("served", [[], [datetime(2017, 5, 30, 4, tzinfo=UTC)], [datetime(2017, 6, 4, 4, tzinfo=UTC)]])
def test_the_snapshot_that_is_served_is_no_week_of_its_own(home, served):
    _stand(home, MONDAYS + served)
    assert current_window(home, weeks=4) == MONDAYS[1:]
    assert current_window(home, weeks=9) == MONDAYS


def test_a_grid_without_a_snapshot_is_named(home):
    _stand(home, [datetime(2017, 5, 30, 4, tzinfo=UTC)])
    with pytest.raises(NotFoundError, match=r"no snapshot of the grid that holdfast\.toml lays, one every 7 days"):
        current_window(home, weeks=4)
