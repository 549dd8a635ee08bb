"""Who waits sees what is being done, how far it is, and what is done already; a pipe sees nothing of it."""

import io

import pytest
from rich.console import Console

from features.verbs import terminal


@pytest.fixture
def shown(monkeypatch):
    """What the bars show at the end of some steps."""

    def show(*steps, is_terminal=True):
        console = Console(file=io.StringIO(), force_terminal=is_terminal, width=100, legacy_windows=False)
        monkeypatch.setattr(terminal, "err", console)
        with terminal.working() as progress:
            for step in steps:
                progress(*step)
        return console.file.getvalue()

    return show


def test_a_step_that_begins_ends_the_one_before(shown):
    said = shown(("looking", 0, 1), ("computing", 3, 41))
    assert "✓" in said
    assert "3/41" in said


def test_a_step_that_goes_on_ends_not_before_it_does(shown):
    assert "✓" not in shown(("computing", 3, 41))


def test_of_a_step_whose_length_nobody_knows_no_figure_is_made_up(shown):
    assert "0/1" not in shown(("looking", 0, 1))


def test_a_pipe_sees_nothing(shown):
    assert shown(("looking", 0, 1), ("computing", 3, 41), is_terminal=False) == ""
