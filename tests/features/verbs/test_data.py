"""`holdfast ingest` as people type it."""

import re
from datetime import UTC, datetime

import pandas as pd
import pytest

from features.home import Home
from features.snapshots import build

MEMBERS = "member_id,joined_at\nm1,2024-01-01\nm2,2024-01-02\n"
SALES = "receipt;member_id;day;net_total\nt1;m1;01/02/2024;10.00\nt2;m2;02/02/2024;5.00\n"


@pytest.fixture
def run(tmp_path, typist):
    (tmp_path / "m.csv").write_text(MEMBERS)
    (tmp_path / "sales.csv").write_text(SALES)

    def ingest(*arguments):
        return typist("ingest", *arguments, "--home", tmp_path / "home")

    return ingest


def test_named_files_and_options_from_rehearsal_to_nothing_changed(run, tmp_path):
    typed = ["--members", f"{tmp_path / 'm.csv'}", "--transactions", f"{tmp_path / 'sales.csv'}"]
    refused = run(*typed)
    assert refused.returncode == 2
    assert "type --separator ';'" in refused.stderr
    (tmp_path / "mapping.toml").write_text("[transactions]\nseparator = ';'\ndate_format = '%d/%m/%Y'\n")
    typed += ["--mapping", str(tmp_path / "mapping.toml"), "--major-units", "--currency", "EUR"]
    typed += ["--timezone", "Europe/Berlin", "--map", "transactions.transaction_id=receipt"]
    typed += ["--map", "transactions.occurred_at=day", "--map", "transactions.amount=net_total"]
    rehearsal = run(*typed, "--dry-run")
    assert (rehearsal.returncode, rehearsal.stderr) == (0, "")
    assert "nothing was written" in rehearsal.stdout
    assert not (tmp_path / "home").exists()
    assert "next: holdfast features build" in run(*typed).stdout
    assert 'currency = "EUR"' in (tmp_path / "home" / "holdfast.toml").read_text()
    assert "nothing changed" in run(*typed).stdout


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        (["--members", "none.csv"], "none.csv is no file"),
        (["--from", "sqlite:none.db"], "--from sqlite:shop.db"),
        (["--from", "a.db", "--members", "m.csv"], "one or the other"),
        (["somewhere", "--map", "amount=net"], "--map transactions.amount=net_total"),
        (["somewhere", "--allow", "anything"], "median: a median is 5 times"),
        (["somewhere", "--mapping", "none.toml"], "--init"),
        (["complete-journey", "--dry-run"], "take no mapping, no rehearsal and no addition"),
        (["complete-journey", "--add"], "take no mapping, no rehearsal and no addition"),
        (["--init", "nowhere"], "to look at"),
        (["synthetic", "--members", "m.csv"], "such as --members 10000"),
        (["synthetic", "--members", "10"], "members from 1,000 to 10,000,000"),
        (["synthetic", "--shape", "round"], "wanted retail, subscription, both"),
        (["synthetic", "--currency", "EUR"], "take no mapping, no rehearsal and no addition"),
        (["somewhere", "--seed", "1"], "holdfast ingest synthetic --shape"),
    ],
)
def test_what_was_typed_wrong_is_one_line_that_says_what_to_type(run, tmp_path, typed, wanted):
    refused = run(*typed)
    assert refused.returncode == 2
    assert wanted in refused.stderr
    assert refused.stderr.startswith("error: ")
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "home").exists()


def test_a_world_comes_with_its_settings_and_a_second_time_nothing_changes(run, tmp_path):
    told = run("synthetic", "--members", "1000", "--shape", "both")
    assert (told.returncode, told.stderr) == (0, "")
    assert "next: holdfast features build" in told.stdout
    assert 'churn = "lapse"' in (tmp_path / "home" / "holdfast.toml").read_text()
    assert "nothing changed" in run("synthetic", "--members", "1000", "--shape", "both").stdout


def test_a_late_row_that_is_added_recomputes_what_it_touches_and_a_second_time_nothing(run, tmp_path):
    days = pd.date_range("2024-01-01", "2024-06-30", freq="D").strftime("%Y-%m-%d")
    lines = pd.DataFrame({"transaction_id": days, "member_id": "m1", "occurred_at": days, "amount": 100})
    lines.to_csv(tmp_path / "sales.csv", index=False)
    home, late = Home(tmp_path / "home"), tmp_path / "late.csv"
    run("--members", f"{tmp_path / 'm.csv'}", "--transactions", f"{tmp_path / 'sales.csv'}")
    dates = build(home, progress=lambda *_: None)
    before = _written(home)
    lines.iloc[[-10]].assign(transaction_id="late").to_csv(late, index=False)
    rehearsal = run("--transactions", str(late), "--add", "--dry-run")
    assert re.search(r"transactions +182 +183 +0", rehearsal.stdout)
    assert "next: holdfast features build" in run("--transactions", str(late), "--add").stdout
    assert build(home, progress=lambda *_: None) == dates
    after = _written(home)
    touched = {name for name in after if after[name] != before[name]}
    assert touched == {f"{as_of:%Y-%m-%dT%H%MZ}" for as_of in dates if as_of > datetime(2024, 6, 21, tzinfo=UTC)}
    assert 0 < len(touched) < len(dates) / 4
    assert "nothing changed since the last ingest" in run("--transactions", str(late), "--add").stdout
    build(home, progress=lambda *_: None)
    assert _written(home) == after


def _written(home):
    return {path.stem: path.stat().st_mtime_ns for path in home.features.glob("*.parquet")}
