"""Only what a late row touches is computed again: built on what stood equals built from nothing."""

import shutil
from datetime import UTC, datetime, timedelta

import ibis
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import features.snapshots
from features.as_of.inputs import fingerprints
from features.as_of.known import READ
from features.home import Home
from features.programme import Programme
from features.snapshots import as_of_dates, build, on_grid
from features.warehouse import open_warehouse

NEW_YORK = Programme(timezone="America/New_York")
SETTINGS = 'timezone = "America/New_York"\n'
OWN_ID = {"members": "member_id", "transactions": "transaction_id", "contacts": "contact_id", "events": "event_id"}
STEPS = (timedelta(microseconds=-1), timedelta(0), timedelta(microseconds=1), timedelta(days=2, hours=5))
DATES = [datetime(2017, 3, day, 4 + (day < 12), tzinfo=UTC) for day in (6, 13, 20, 27)]  # local midnights
AROUND = (timedelta(microseconds=-1), timedelta(0), timedelta(hours=30))


def _silent(step, done, total):
    """Show no progress."""


def _everything(company, *, seed=5, backfills=False):
    """Make a company's tables; with `backfills` each but members says when some of its rows became known."""
    rng = np.random.default_rng(seed)
    tables = company.everything(rng, days=110)
    if not backfills:
        return tables
    late = {name: pd.to_timedelta(rng.integers(0, 40, len(table)), unit="D") for name, table in tables.items()}
    return {
        name: table
        if name == "members"
        else table.assign(known_at=(table[READ[name][0]] + late[name]).where(rng.random(len(table)) < 0.3))
        for name, table in tables.items()
    }


def _with_late_row(tables, name, at, known_at=None):
    """Add a row like the first one, with an id of its own, that happened at a time and was perhaps known later."""
    row = tables[name].head(1).assign(**{READ[name][0]: at})
    if name in OWN_ID:
        row[OWN_ID[name]] = "late"
    if "known_at" in row:
        row["known_at"] = pd.to_datetime([known_at], utc=True)
    return tables | {name: pd.concat([tables[name], row.astype(tables[name].dtypes)], ignore_index=True)}


def _brought(company, root, tables):
    home = Home(root)
    root.mkdir(exist_ok=True)
    home.settings.write_text(SETTINGS)
    company.ingest(tables, home=home, programme=NEW_YORK, key=str(pd.util.hash_pandas_object(tables["members"]).sum()))
    return home


@pytest.fixture(scope="module")
def whole(company):
    return _everything(company)


@pytest.fixture(scope="module")
def stood(company, whole, tmp_path_factory):
    """What was built of a company's tables, once for all tests, and when."""
    home = _brought(company, tmp_path_factory.mktemp("stood") / "home", whole)
    return home, build(home, progress=_silent)


@pytest.fixture
def home(stood, tmp_path):
    """The same, to go on from."""
    shutil.copytree(stood[0].root, tmp_path / "home")
    return Home(tmp_path / "home")


@pytest.fixture
def dates(stood):
    return stood[1]


def _state(home):
    return {path.stem: (path.stat().st_mtime_ns, path.read_bytes()) for path in home.features.glob("*.parquet")}


def _values(home):
    return {path.stem: pq.read_table(path) for path in sorted(home.features.glob("*.parquet"))}


def _seen_by(tables, programme=NEW_YORK, code=()):
    in_memory = {name: ibis.memtable(table) for name, table in tables.items()}
    return fingerprints(in_memory, DATES, programme=programme, code=code)


def _touched(before, after):
    return [as_of for as_of in before if before[as_of] != after[as_of]]


@pytest.fixture(scope="module")
def tables(company):
    return _everything(company, backfills=True)


@pytest.fixture(scope="module")
def seen(tables):
    return _seen_by(tables)


@settings(max_examples=40)
@given(
    name=st.sampled_from(sorted(READ)),
    at=st.builds(lambda day, step: day + step, st.sampled_from(DATES), st.sampled_from(STEPS)),
    later=st.none() | st.builds(lambda day, step: day + step, st.sampled_from(DATES), st.sampled_from(STEPS)),
)
def test_a_late_row_is_seen_by_the_snapshots_after_it_happened_and_was_known(tables, seen, *, name, at, later):
    """Also one that was known, by a wrong clock, before it happened."""
    after = _seen_by(_with_late_row(tables, name, at, later))
    since = max(at, later) if later and name != "members" else at
    assert _touched(seen, after) == [as_of for as_of in DATES if as_of > since]


@pytest.mark.parametrize("column", ["renewed_at", "cancelled_at"])
def test_a_decision_about_a_term_is_seen_from_when_it_is_taken(tables, seen, column):
    terms = tables["subscriptions"]
    row = terms.index[
        (terms["started_at"] < DATES[0] - timedelta(days=1)) & terms[column].isna() & terms["known_at"].isna()
    ][0]

    def decided(at):
        return _seen_by(
            tables | {"subscriptions": terms.assign(**{column: terms[column].where(terms.index != row, at)})}
        )

    assert _touched(seen, decided(DATES[1])) == DATES[2:]
    assert _touched(seen, decided(DATES[1] - timedelta(microseconds=1))) == DATES[1:]
    assert _touched(decided(DATES[0]), decided(DATES[2])) == DATES[1:3]  # later ones only see that it was decided


def test_neither_the_order_of_rows_and_columns_nor_what_no_feature_reads_is_an_input(tables, seen):
    rng = np.random.default_rng(0)
    shuffled = {
        name: table.sample(frac=1, random_state=rng)[list(rng.permutation(table.columns))].assign(note=rng.random())
        for name, table in tables.items()
    }
    assert _seen_by(shuffled) == seen


def test_a_null_is_not_zero(tables):
    lines = tables["transactions"].sort_values("occurred_at", ignore_index=True)  # the first row is seen by all
    zero, null = (lines.assign(discount=lines["discount"].where(lines.index > 0, value)) for value in (0, pd.NA))
    assert _touched(_seen_by(tables | {"transactions": zero}), _seen_by(tables | {"transactions": null})) == DATES


@pytest.mark.parametrize("change", ["swapped", "twice", "less", "another type"])
def test_every_change_of_a_value_is_an_input(tables, seen, change):
    lines = tables["transactions"].sort_values("occurred_at", ignore_index=True)
    other = lines.index[lines["discount"].ne(lines["discount"][0]).fillna(True)][0]
    changed = {
        "swapped": lines.assign(discount=lines["discount"].rename({0: other, other: 0}).sort_index()),
        "twice": pd.concat([lines, lines.head(1)]),
        "less": lines.iloc[1:],
        "another type": lines.astype({"amount": "float64"}),
    }[change]
    assert _touched(seen, _seen_by(tables | {"transactions": changed})) == DATES


def test_settings_code_and_columns_are_inputs(tables, seen, tmp_path):
    code = tmp_path / "code.py"
    code.write_text("")
    other = Programme(timezone="America/New_York", tier_days=30)
    no_margin = tables | {"transactions": tables["transactions"].drop(columns="margin")}
    for others in (
        _seen_by(tables, programme=other),
        _seen_by(tables, code=[code]),
        _seen_by(no_margin),
        _seen_by({name: table for name, table in tables.items() if name != "events"}),
    ):
        assert _touched(seen, others) == DATES


@settings(max_examples=4)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1), backfills=st.booleans())
def test_built_on_what_stood_equals_built_from_nothing(company, tmp_path_factory, *, data, seed, backfills):
    root, tables = tmp_path_factory.mktemp("late"), _everything(company, seed=seed, backfills=backfills)
    home = _brought(company, root / "home", tables)
    dates = build(home, progress=_silent)
    before = _state(home)
    name = data.draw(st.sampled_from(sorted(READ)))
    at = data.draw(st.sampled_from(dates)) + data.draw(st.sampled_from(AROUND))
    later = data.draw(st.none() | st.sampled_from(dates)) if backfills and name != "members" else None
    changed = _with_late_row(tables, name, at, later)
    company.ingest(changed, home=home, programme=NEW_YORK, key="late")
    stay = {f"{as_of:%Y-%m-%dT%H%MZ}" for as_of in build(home, progress=_silent) if as_of <= max(at, later or at)}
    untouched = stay & set(before)
    after = _state(home)
    assert {name for name, state in before.items() if after.get(name) == state} == untouched
    scratch = _brought(company, root / "scratch", changed)
    build(scratch, progress=_silent)
    ours, theirs = _values(home), _values(scratch)
    assert list(ours) == list(theirs)
    assert all(ours[name].equals(theirs[name]) for name in ours)


def test_a_purchase_of_the_last_days_moves_only_the_last_snapshots(company, whole, home, dates):
    before = _state(home)
    last = dates[-1] + timedelta(hours=5)
    company.ingest(_with_late_row(whole, "transactions", last), home=home, programme=NEW_YORK, key="late")
    again = build(home, progress=_silent)
    after = _state(home)
    assert again[:-1] == dates[:-1]
    assert again[-1] == dates[-1] + timedelta(days=1)
    assert {name for name in after if before.get(name) != after[name]} == {f"{again[-1]:%Y-%m-%dT%H%MZ}"}


def test_only_the_newest_snapshot_follows_what_members_are_now(company, whole, home, dates):
    before, newest = _state(home), f"{dates[-1]:%Y-%m-%dT%H%MZ}"
    moved = whole | {"members": whole["members"].assign(region="east", personalisation=False)}
    company.ingest(moved, home=home, programme=NEW_YORK, key="moved")
    build(home, progress=_silent)
    after = _state(home)
    assert {name for name in before if before[name] != after[name]} == {newest}
    assert set(_values(home)[newest]["region"].to_pylist()) == {"east"}
    assert set(_values(home)[newest]["personalisation"].to_pylist()) == {"no"}


def test_what_was_the_newest_snapshot_stays_when_a_newer_one_comes(company, whole, home, dates):
    """It has the attributes of its time, and no model reads them."""
    grid = dates[-2] + timedelta(days=NEW_YORK.snapshot_days)
    bought = _with_late_row(whole, "transactions", grid - timedelta(hours=1))
    company.ingest(bought, home=home, programme=NEW_YORK, key="on the grid")
    dates = build(home, progress=_silent)
    assert on_grid(dates[-1], NEW_YORK)
    before = _state(home)
    later = _with_late_row(bought, "transactions", dates[-1] + timedelta(days=3))
    moved = later | {"members": whole["members"].assign(region="east")}
    company.ingest(moved, home=home, programme=NEW_YORK, key="later")
    stood = [f"{as_of:%Y-%m-%dT%H%MZ}" for as_of in build(home, progress=_silent) if as_of in dates]
    assert all(before[name] == _state(home)[name] for name in stood)


@pytest.mark.parametrize("killed_at", [1, 2, 3])
def test_a_kill_leaves_no_snapshot_of_other_inputs_that_counts(company, whole, home, dates, *, monkeypatch, killed_at):
    """The hard case: killed while the new inputs' snapshots were written, and then the old inputs come back."""
    before = _values(home)
    note, noted = features.snapshots.write_json, []

    def killed(path, value):
        noted.append(path)
        if len(noted) == killed_at:
            raise KeyboardInterrupt
        note(path, value)

    company.ingest(
        _with_late_row(whole, "transactions", dates[0] - timedelta(days=9)), home=home, programme=NEW_YORK, key="late"
    )
    with monkeypatch.context() as patched:
        patched.setattr(features.snapshots, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            build(home, progress=_silent)
    company.ingest(whole, home=home, programme=NEW_YORK, key="back")
    build(home, progress=_silent)
    after = _values(home)
    assert list(after) == list(before)
    assert all(after[name].equals(before[name]) for name in before)


def test_a_build_says_how_far_it_is(company, whole, tmp_path):
    home, said = _brought(company, tmp_path / "home", whole), []
    build(home, progress=lambda *step: said.append(step))
    n = len(as_of_dates(open_warehouse(home), NEW_YORK))
    computing = [step for step in said if step[0] == "computing features"]
    assert [done for _, done, _ in computing] == [*range(n), 1]
    said.clear()
    build(home, progress=lambda *step: said.append(step))
    assert said == [("looking for what changed", 0, 1), ("computing features", 1, 1)]
