"""The verb as people and machines call it: one table, how to mend what is ill, and an exit code."""

import json
from datetime import UTC, datetime

from typer.testing import CliRunner

from features.home import Home
from holdfast import app
from monitoring.doctor.examination import examine
from monitoring.doctor.machine import disk, place, versions


def asked(*arguments):
    return CliRunner().invoke(app, ["doctor", *map(str, arguments)])


def test_a_new_home_is_well_and_each_part_says_what_makes_it(tmp_path):
    answer = asked("--home", tmp_path / "new", "--json")
    told = {one["part"]: one for one in json.loads(answer.stdout)}
    assert answer.exit_code == 0
    assert list(told) == [
        *("settings", "features", "training", "online", "registry", "tracking", "studies", "decisions", "objects"),
        *("champion", "home", "disk", "versions", "clock"),
    ]
    assert all(one["well"] for one in told.values())
    assert "holdfast features materialize" in told["online"]["found"]
    assert not (tmp_path / "new").exists()


def test_what_is_ill_is_told_with_what_mends_it_and_exit_1(tmp_path):
    address = "postgresql://ada:s3cret@127.0.0.1:1/none"
    Home(tmp_path).settings.write_text(f'[engine]\nstudies = "{address}"\n')
    answer = asked("--home", tmp_path)
    assert answer.exit_code == 1
    assert "nothing listens there" in answer.stdout
    assert "start it, or mend its address" in " ".join(answer.stdout.split())
    assert "s3cret" not in answer.stdout


def test_where_the_settings_are_wrong_every_error_is_said_and_no_part_is_tried(tmp_path):
    Home(tmp_path).settings.write_text('horizn = 1\n[engine]\nprofile = "cluster"\nonline = "redis://127.0.0.1:1"\n')
    found = {one.part: one for one in examine(Home(tmp_path), clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))}
    assert {"settings", "home", "disk", "versions"} == set(found)
    assert not found["settings"].well
    assert "7 wrong settings" in found["settings"].found


def test_a_champion_that_does_not_load_is_ill(tmp_path):
    from features.files import write_json
    from training.promotion import Verdict
    from training.releases.ledger import promote

    home = Home(tmp_path)
    write_json(home.releases / "a" / "manifest.json", {})
    promote(
        home,
        "a",
        expected=None,
        who="ada",
        now=datetime(2026, 1, 1, tzinfo=UTC),
        verdict=Verdict(promote=True, said=()),
    )
    found = {one.part: one for one in examine(home, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))}
    assert not found["champion"].well
    assert found["champion"].setting == "release a"


def test_a_ledger_that_cannot_be_read_is_ill_and_all_else_is_told_too(tmp_path):
    home = Home(tmp_path)
    home.releases.mkdir()
    (home.releases / "ledger.jsonl").write_text("{}\n")
    found = {one.part: one for one in examine(home, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))}
    assert not found["champion"].well
    assert "ledger.jsonl" in found["champion"].found
    assert found["disk"].well


def test_a_home_that_cannot_be_made_is_ill(tmp_path):
    (tmp_path / "file").touch()
    assert not place(Home(tmp_path / "file" / "home")).well


def test_too_little_room_is_ill(tmp_path):
    assert disk(Home(tmp_path), room=0).well
    assert not disk(Home(tmp_path), room=2**62).well


def test_a_library_of_another_version_is_named(monkeypatch):
    assert versions().well
    monkeypatch.setattr("monitoring.doctor.machine.version", lambda name: "0.1" if name == "feast" else "99")
    assert "feast is 0.1, " in versions().found
