import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from threading import Barrier

import pytest

from features.errors import ContractError, CorruptError, NotFoundError
from features.home import Home
from features.saying import saying
from training.promotion import Verdict
from training.releases import ledger as ledger_of
from training.releases.ledger import champion_id, ledger, promote, rollback

NOW = datetime(2017, 11, 1, 12, tzinfo=UTC)
YES = Verdict(promote=True, said=(saying("for: it pays"),))


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    for name in ("a", "b", "c", *(f"r{i}" for i in range(8))):
        folder = home.releases / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    return home


def raise_to(home, release_id, *, expected):
    return promote(home, release_id, expected=expected, who="ada", now=NOW, verdict=YES)


def test_nothing_is_champion_in_an_empty_home(tmp_path):
    assert champion_id(Home(tmp_path)) is None
    assert ledger(Home(tmp_path)) == ()


def test_a_promotion_is_in_the_ledger_in_utc_and_its_copy_follows(home):
    east = NOW.astimezone(timezone(timedelta(hours=8)))
    promote(home, "a", expected=None, who="ada", now=east, verdict=YES)
    raise_to(home, "b", expected="a")
    assert champion_id(home) == "b"
    first, second = ledger(home)
    assert (first.from_release, first.to_release, second.from_release, second.to_release) == (None, "a", "a", "b")
    assert (first.who, first.at, first.reasons) == ("ada", "2017-11-01T12:00:00+00:00", YES.reasons)
    assert json.loads((home.releases / "champion.json").read_bytes())["release_id"] == "b"


def test_repeating_a_promotion_that_stands_changes_nothing(home):
    change = raise_to(home, "a", expected=None)
    assert raise_to(home, "a", expected="a") == change
    assert len(ledger(home)) == 1


def test_who_expected_another_champion_is_refused_and_told(home):
    raise_to(home, "a", expected=None)
    with pytest.raises(ContractError, match="the champion is a, not None as was expected"):
        raise_to(home, "b", expected=None)
    assert champion_id(home) == "a"


def test_a_refused_verdict_never_promotes(home):
    with pytest.raises(ContractError, match="refused release a: against: it loses"):
        promote(home, "a", expected=None, who="ada", now=NOW, verdict=Verdict(False, ("against: it loses",)))
    assert champion_id(home) is None


def test_a_release_that_is_not_there_is_not_promoted(home):
    with pytest.raises(NotFoundError, match="no release 'zz'"):
        raise_to(home, "zz", expected=None)


def test_of_eight_processes_at_once_exactly_one_wins(home):
    program = """if True:
        import sys
        from datetime import UTC, datetime
        from pathlib import Path
        from features.errors import ContractError
        from features.home import Home
        from training.releases.ledger import promote
        from training.promotion import Verdict
        print("ready", flush=True)
        sys.stdin.readline()
        try:
            promote(Home(Path(sys.argv[1])), sys.argv[2], expected="a", who=sys.argv[2],
                    now=datetime(2017, 11, 2, tzinfo=UTC), verdict=Verdict(True, ()))
        except ContractError:
            print("lost")
        else:
            print("won")
    """
    raise_to(home, "a", expected=None)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(home.root), f"r{i}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for i in range(8)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    answers = [racer.communicate()[0].strip() for racer in racers]
    assert sorted(answers) == ["lost"] * 7 + ["won"]
    assert champion_id(home) == f"r{answers.index('won')}"
    assert len(ledger(home)) == 2


def test_of_eight_threads_at_once_exactly_one_wins_every_time(home):
    raise_to(home, "a", expected=None)
    start = Barrier(8)

    def race(i, expected):
        start.wait()
        try:
            return raise_to(home, f"r{i}", expected=expected).to_release
        except ContractError:
            return None

    with ThreadPoolExecutor(8) as pool:
        for turn in range(10):
            serving = champion_id(home)
            racers = [i for i in range(8) if f"r{i}" != serving]
            start = Barrier(len(racers))
            won = [w for w in pool.map(race, racers, [serving] * 8) if w]
            assert won == [champion_id(home)]
            assert len(ledger(home)) == turn + 2


def test_after_a_crash_between_ledger_and_copy_the_ledger_is_the_truth(home, monkeypatch):
    raise_to(home, "a", expected=None)

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(ledger_of, "write_json", crash)
        with pytest.raises(KeyboardInterrupt):
            raise_to(home, "b", expected="a")
    assert champion_id(home) == "b"
    raise_to(home, "b", expected="b")  # the same again mends the copy
    assert json.loads((home.releases / "champion.json").read_bytes())["release_id"] == "b"
    assert len(ledger(home)) == 2


@pytest.mark.parametrize("cut", [1, 20, -1])
def test_a_torn_last_line_never_happened(home, cut):
    raise_to(home, "a", expected=None)
    path = home.releases / "ledger.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:cut])
    assert champion_id(home) == "a"
    raise_to(home, "b", expected="a")
    assert [change.to_release for change in ledger(home)] == ["a", "b"]
    assert path.read_bytes().startswith(whole)  # append-only


def test_a_whole_line_that_is_no_change_is_corruption_not_history(home):
    raise_to(home, "a", expected=None)
    with (home.releases / "ledger.jsonl").open("ab") as file:
        file.write(b'{"to_release": "b"}\n')
    with pytest.raises(CorruptError, match="no change of champion"):
        champion_id(home)


def test_rolling_back_goes_to_the_champion_before_and_again_to_the_one_before_that(home):
    for before, after in ((None, "a"), ("a", "b"), ("b", "c")):
        raise_to(home, after, expected=before)
    assert rollback(home, who="bob", now=NOW) == champion_id(home) == "b"
    assert rollback(home, who="bob", now=NOW) == champion_id(home) == "a"
    assert [(change.action, change.from_release, change.to_release) for change in ledger(home)[3:]] == [
        ("rollback", "c", "b"),
        ("rollback", "b", "a"),
    ]
    raise_to(home, "c", expected="a")  # forward again: what was taken back is no longer before it
    assert rollback(home, who="bob", now=NOW) == "a"


@pytest.mark.parametrize("promoted", [[], ["a"]])
def test_there_is_nothing_before_the_first(home, promoted):
    for release_id in promoted:
        raise_to(home, release_id, expected=None)
    with pytest.raises(NotFoundError, match="no champion before this one"):
        rollback(home, who="bob", now=NOW)
    assert champion_id(home) == (promoted or [None])[-1]


def test_a_champion_before_whose_folder_is_gone_is_not_gone_back_to(home):
    raise_to(home, "a", expected=None)
    raise_to(home, "b", expected="a")
    (home.releases / "a" / "manifest.json").unlink()
    with pytest.raises(NotFoundError, match="release a, the champion before, is gone"):
        rollback(home, who="bob", now=NOW)
    assert champion_id(home) == "b"


def test_serving_can_import_the_ledger_without_the_trainers_toolkit():
    program = (
        "import sys, training.policy, training.releases.ledger, training.releases.manifest\n"
        "print([name for name in ('sklearn', 'mlflow', 'optuna', 'scipy') if name in sys.modules])"
    )
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"
