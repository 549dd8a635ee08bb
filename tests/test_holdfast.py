"""The front door: what it says to a newcomer, and to somebody who typed something wrong."""

import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.text import Text
from typer.main import get_command

from features.home import Home
from features.programme import Programme
from holdfast import app
from training.promotion import Verdict
from training.releases.ledger import promote

ROOT = Path(__file__).parent.parent
NOW = datetime(2024, 1, 1, tzinfo=UTC)
LINES = "transaction_id,member_id,occurred_at,amount\n"


@pytest.fixture
def holdfast(tmp_path, typist):
    def run(*arguments):
        return typist(*arguments, "--home", tmp_path / "home")

    return run


@pytest.fixture
def process(tmp_path):
    """Run a verb in a process of its own, whose time is measured."""

    def run(*arguments):
        command = [sys.executable, "-m", "holdfast", *arguments]
        return subprocess.run(
            [*command, *(["--home", str(tmp_path / "home")] if "--help" not in arguments else [])],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def tables(tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "members.csv").write_text("member_id,joined_at\nm1,2024-01-01\nm2,2024-01-02\n")
    (folder / "transactions.csv").write_text(
        f"{LINES}t1,m1,2024-02-01T10:00:00Z,1000\nt2,m2,2024-02-02T10:00:00Z,500\n"
    )
    return folder


def helps(command, path=("holdfast",)):
    """Give every text of help, of verbs and of their options, each with where it stands."""
    yield path, command.help or ""
    yield from ((path, parameter.help) for parameter in command.params if getattr(parameter, "help", None))
    for name, verb in getattr(command, "commands", {}).items():
        yield from helps(verb, (*path, name))


def test_no_section_of_the_settings_is_taken_for_markup_in_help():
    named = [(path, text, section) for path, text in helps(get_command(app)) for section in Programme.model_fields]
    found = [
        (path, Text.from_markup(text).plain, f"[{section}]") for path, text, section in named if f"[{section}]" in text
    ]
    assert {section for _, _, section in found} >= {"[alerts]", "[retention]", "[triggers]"}
    assert [path for path, shown, section in found if section not in shown] == []


def test_help_teaches_every_verb_in_under_half_a_second(process):
    process("--help")  # compiled once
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = process("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    for verb in (
        "demo",
        "doctor",
        "ingest",
        "features",
        "train",
        "evaluate",
        "promote",
        "rollback",
        "releases",
        "shadow",
        "retention",
        "serve",
        "monitor",
    ):
        assert verb in shown.stdout
    # of the processor: what a person waits on a machine that does nothing else
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_own_tables_are_ingested_and_twice_changes_nothing(holdfast, tables):
    assert holdfast("ingest", str(tables)).returncode == 0
    assert "nothing changed" in holdfast("ingest", str(tables)).stdout


@pytest.mark.parametrize(
    ("verb", "wanted"),
    [
        (["ingest", "no/such/folder"], "no such folder"),
        (["features", "build"], "holdfast ingest"),
        (["features", "materialize"], "holdfast features build"),
        (["train"], "holdfast ingest"),
        (["evaluate"], "holdfast train"),
        (["evaluate", "no-such-release"], "holdfast releases"),
        (["promote"], "holdfast train"),
        (["rollback"], "holdfast releases"),
        (["serve"], "holdfast demo"),
        (["serve", "--host", "0.0.0.0"], "127.0.0.1"),  # noqa: S104 (it has to be refused)
        (["monitor", "drift"], "holdfast promote"),
    ],
)
def test_what_is_missing_is_one_line_that_says_what_to_type(holdfast, tmp_path, verb, wanted):
    refused = holdfast(*verb)
    assert refused.returncode == 2
    assert wanted in refused.stderr
    assert refused.stderr.startswith("error: ")
    assert refused.stderr.count("\n") == 1
    assert not list((tmp_path / "home").rglob("*.part"))


def test_an_unknown_verb_is_refused_with_the_way_to_help(holdfast):
    refused = holdfast("predict")
    assert refused.returncode == 2
    assert "predict" in refused.stderr
    assert "--help" in refused.stderr


@pytest.mark.parametrize(
    ("bad", "wanted"),
    [
        (("members.csv", "member_id,joined_at\n"), "members is empty"),
        (("members.csv", ""), "members.csv could not be read"),
        (("transactions.csv", f"{LINES.replace('amount', 'amout')}t1,m1,2024-02-01,1\n"), "'amout' came: renamed?"),
        (("transactions.csv", f"{LINES}t1,m1,yesterday,1\n"), "occurred_at is no time"),
    ],
)
def test_a_bad_batch_is_refused_whole_and_the_old_one_stays(holdfast, tables, tmp_path, bad, wanted):
    table, text = bad
    assert holdfast("ingest", str(tables)).returncode == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "home" / "warehouse").iterdir()}
    (tables / table).write_text(text)
    refused = holdfast("ingest", str(tables))
    assert refused.returncode == 2
    assert wanted in refused.stderr
    assert "Traceback" not in refused.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "home" / "warehouse").iterdir()} == before


def test_settings_that_are_wrong_are_all_named(holdfast, tables, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "holdfast.toml").write_text('timezone = "Mars/Olympus"\nhorizon_dayz = 3\n')
    refused = holdfast("ingest", str(tables))
    assert refused.returncode == 2
    assert "Mars/Olympus" in refused.stderr
    assert "horizon_dayz" in refused.stderr


def test_rollback_takes_less_than_two_seconds_of_a_whole_process(process, tmp_path):
    home = Home(tmp_path / "home")
    for before, release_id in ((None, "a"), ("a", "b")):
        (home.releases / release_id).mkdir(parents=True)
        (home.releases / release_id / "manifest.json").write_text("{}")
        promote(home, release_id, expected=before, who="ada", now=NOW, verdict=Verdict(promote=True, said=()))
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = process("rollback")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert shown.stdout.strip() == "a is champion again"
    # of the processor: what a person waits on a machine that does nothing else
    assert after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime < 2
