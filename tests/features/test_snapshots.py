"""Snapshots: nothing from the future, a row for everybody, ranges that hold, and no work done twice."""

import fcntl
import shutil
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import features.snapshots
from features.as_of.computing import among_these
from features.as_of.expression import of_members
from features.as_of.known import moment
from features.catalogue.entries import CATALOGUE
from features.errors import ContractError, NotFoundError
from features.files import alone
from features.home import Home
from features.programme import Programme, read_programme
from features.snapshots import as_of_dates, as_ofs_between, build, built, on_grid, read_snapshots
from features.warehouse import open_warehouse, quietly

TIME = {"transactions": "occurred_at", "contacts": "contacted_at", "redemptions": "occurred_at"} | {
    "events": "occurred_at",
    "subscriptions": "started_at",
}
NEW_YORK = Programme(timezone="America/New_York")
SETTINGS = 'timezone = "America/New_York"\n'


def _silent(step, done, total):
    """Show no progress."""


@pytest.fixture(scope="module")
def tables(company):
    return company.everything(np.random.default_rng(4))


@pytest.fixture(scope="module")
def known(company, tables):
    return company.snapshot(tables, programme=NEW_YORK)


# What was not known at as_of can't change what is computed for it


def _change_the_future(table, time, as_of, rng):
    """Drop, change and add rows at or after `as_of`, down to the microsecond."""
    future = table[table[time] >= as_of]
    past = table[table[time] < as_of]
    kept = future.sample(frac=rng.random(), random_state=rng)
    steps = rng.choice([0, 1, 10**6, 86_400 * 10**6 * 30], size=5)
    added = past.sample(5, random_state=rng).assign(**{time: [as_of + timedelta(microseconds=int(s)) for s in steps]})
    added = pd.concat([added, kept])
    for column in added.columns.intersection(["amount", "discount"]):
        added[column] = rng.integers(0, 10**6, len(added))
    for own in {"contact_id", "event_id"} & {table.columns[0]}:
        added[own] = [f"later{number}" for number in range(len(added))]
    return pd.concat([past, added]).sample(frac=1, random_state=rng, ignore_index=True)


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), names=st.sets(st.sampled_from(sorted(TIME)), min_size=1))
def test_nothing_at_or_after_as_of_changes_any_feature(company, tables, known, seed, names):
    rng = np.random.default_rng(seed)
    changed = {name: _change_the_future(tables[name], TIME[name], company.as_of, rng) for name in names}
    late = pd.DataFrame({"member_id": ["late"], "joined_at": [company.as_of + timedelta(microseconds=1)]})
    changed["members"] = pd.concat([late, tables["members"]], ignore_index=True)
    pd.testing.assert_frame_equal(company.snapshot(tables | changed, programme=NEW_YORK), known)


@pytest.mark.parametrize(
    ("name", "moved"),
    [("transactions", "visits_total"), ("contacts", "contacts_total"), ("redemptions", "responses_total")],
)
def test_the_last_microsecond_before_as_of_still_counts(company, tables, known, name, moved):
    """Without this, features that see nothing would pass the test above."""
    last = tables[name][tables[name][TIME[name]] < company.as_of].iloc[[0]]
    last = last.assign(
        **{TIME[name]: company.as_of - timedelta(microseconds=1), "contact_id": "fresh", "transaction_id": "fresh"}
    ).assign(treatment="A")
    added = pd.concat([tables[name], last[tables[name].columns]], ignore_index=True)
    changed = company.snapshot(tables | {name: added}, programme=NEW_YORK)
    difference = changed[moved] - known[moved]
    assert difference[difference != 0].to_dict() == {last["member_id"].iloc[0]: 1}


@pytest.mark.parametrize("name", sorted(TIME))
def test_a_backfill_is_not_seen_before_it_was_known(company, tables, known, name):
    """Rows say they are of long ago, but they came at `as_of` or later; a microsecond earlier they count."""
    old = tables[name][tables[name][TIME[name]] < company.as_of].head(8)
    named = {own: [f"late{n}" for n in range(8)] for own in ("contact_id", "event_id", "transaction_id") if own in old}
    old = old.assign(**named | ({"treatment": "A"} if name == "contacts" else {}))

    def filled(known_at):
        rows = pd.concat([tables[name].assign(known_at=pd.NaT), old.assign(known_at=known_at)], ignore_index=True)
        return company.snapshot(tables | {name: rows}, programme=NEW_YORK)

    pd.testing.assert_frame_equal(filled(company.as_of), known)
    assert not filled(company.as_of - timedelta(microseconds=1)).equals(known)


@pytest.mark.parametrize(
    ("column", "feature"), [("cancelled_at", "subscription_cancelled"), ("renewed_at", "subscription_renewed")]
)
def test_what_is_decided_about_a_subscription_later_is_not_seen(company, tables, known, column, feature):
    terms = tables["subscriptions"]
    later = terms.assign(**{column: terms[column].where(terms[column] < company.as_of, company.as_of)})
    pd.testing.assert_frame_equal(company.snapshot(tables | {"subscriptions": later}, programme=NEW_YORK), known)
    now = terms.assign(**{column: company.as_of - timedelta(microseconds=1)})
    seen = company.snapshot(tables | {"subscriptions": now}, programme=NEW_YORK)[feature]
    assert set(seen.dropna()) == {1}


def test_everybody_who_had_joined_has_one_row(company, tables, known):
    joined = tables["members"].loc[tables["members"]["joined_at"] < company.as_of, "member_id"]
    assert known.index.tolist() == sorted(joined)
    assert len(joined) < len(tables["members"])  # one joined at as_of itself
    assert (known["event_timestamp"] == company.as_of).all()
    assert (known["created_timestamp"] == company.as_of).all()


@pytest.mark.parametrize("seed", [11, 12])
def test_every_value_is_within_the_range_that_the_catalogue_gives(company, seed):
    """The tables have refunds, which carry shares of spend below 0 and above 1."""
    values = company.snapshot(company.frames(np.random.default_rng(seed)))
    for name, feature in CATALOGUE.items():
        if not feature.is_text:
            given = values[name].dropna()
            assert np.isfinite(given).all(), name
            assert feature.minimum is None or (given >= feature.minimum).all(), name
            assert feature.maximum is None or (given <= feature.maximum).all(), name


# Words that people act on, for members made by hand


def _member(company, *, joined, bought):
    """Give the words for one member, by days ago."""
    times = [company.as_of - timedelta(days=days - 0.5) for days in bought]
    other = company.as_of - timedelta(days=1)  # a second member, for a programme without a purchase has no tables
    tables = {
        "members": pd.DataFrame(
            {"member_id": ["m", "other"], "joined_at": [company.as_of - timedelta(days=joined - 0.5)] * 2}
        ),
        "transactions": pd.DataFrame(
            {
                "transaction_id": [f"t{number}" for number in range(len(bought) + 1)],
                "member_id": ["m"] * len(bought) + ["other"],
                "occurred_at": [*times, other],
                "amount": 100,
            }
        ),
    }
    return company.snapshot(tables, programme=NEW_YORK).loc["m"]


@pytest.mark.parametrize(
    ("joined", "bought", "stage"),
    [
        (300, [20, 100, 150], "active"),
        (300, [28, 100], "active"),  # the limits belong to the better stage
        (300, [29, 100], "dormant"),
        (300, [84, 100], "dormant"),
        (300, [85, 100], "lapsed"),
        (300, [10, 95], "returned"),  # back after 85 days
        (300, [10, 94], "active"),
        (300, [10, 57, 142], "active"),  # back for more than 8 weeks
        (56, [10], "new"),
        (57, [10], "active"),
        (50, [40], "dormant"),  # even a new member
        (10, [], "new"),  # nobody who joined last week has lapsed, though they have bought nothing yet
        (40, [], "dormant"),
        (200, [], "lapsed"),
    ],
)
def test_life_cycle_stages(company, joined, bought, stage):
    assert _member(company, joined=joined, bought=bought)["lifecycle_stage"] == stage


def test_scores_are_fifths_of_the_membership_and_words_follow_from_them(company):
    """Of 11 members, member k bought k times, k times as much, last 11 - k days ago: so all scores are one."""
    visits = [(member, visit) for member in range(11) for visit in range(member + 1)]
    tables = {
        "members": pd.DataFrame(
            {"member_id": [f"m{k:02d}" for k in range(11)], "joined_at": company.as_of - timedelta(days=100)}
        ),
        "transactions": pd.DataFrame(
            {
                "transaction_id": [f"t{visit}" for _, visit in visits],
                "member_id": [f"m{member:02d}" for member, _ in visits],
                "occurred_at": [company.as_of - timedelta(days=11 - member) for member, _ in visits],
                "amount": [100 * (member + 1) for member, _ in visits],
            }
        ),
    }
    values = company.snapshot(tables, programme=NEW_YORK)
    for score in ("recency_score", "frequency_score", "monetary_score"):
        assert values[score].tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5], score
    assert values["segment"].tolist() == ["hibernating"] * 4 + ["regular"] * 2 + ["best"] * 5


# The folder of snapshots


@pytest.fixture(scope="module")
def brought(company, tmp_path_factory):
    home = Home(tmp_path_factory.mktemp("brought"))
    home.settings.write_text(SETTINGS)
    company.ingest(company.everything(np.random.default_rng(5), days=110), home=home, programme=NEW_YORK)
    return home


@pytest.fixture
def home(brought, tmp_path):
    """Tables of which no snapshot was built."""
    shutil.copytree(brought.root, tmp_path / "home")
    return Home(tmp_path / "home")


@pytest.fixture(scope="module")
def built_once(brought, tmp_path_factory):
    home = Home(tmp_path_factory.mktemp("built") / "home")
    shutil.copytree(brought.root, home.root)
    build(home, progress=_silent)
    return home


@pytest.fixture
def built_home(built_once, tmp_path):
    """The same tables and their snapshots."""
    shutil.copytree(built_once.root, tmp_path / "built")
    return Home(tmp_path / "built")


def _state(home):
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in home.features.iterdir()}


def test_what_a_killed_build_left_is_cleared_away(built_home):
    home = built_home
    before = _state(home)
    (home.features / "..2017.parquet.7.part.x.part" / "parts").mkdir(parents=True)
    (home.features / ".2017.parquet.7.part").touch()
    build(home, progress=_silent)
    assert _state(home) == before


def test_nobody_else_builds_meanwhile(home):
    def is_free():
        with pytest.MonkeyPatch.context() as patch, suppress(BlockingIOError):
            patch.setattr(fcntl, "LOCK_EX", fcntl.LOCK_EX | fcntl.LOCK_NB)
            with alone(home.features):
                return True
        return False

    found = []
    build(home, progress=lambda *_: found.append(is_free()))
    assert not any(found[:-1])  # the last word comes when it is done
    assert is_free()


def test_as_ofs_are_local_midnights_a_week_apart_across_a_clock_change_and_the_last_one():
    first, last = datetime(2016, 12, 1, 15, tzinfo=UTC), datetime(2017, 4, 6, 3, 59, 59, 999_999, tzinfo=UTC)
    dates = as_ofs_between(first, last, NEW_YORK)
    local = [date.astimezone(NEW_YORK.zone) for date in dates]
    assert {(date.hour, date.minute) for date in local} == {(0, 0)}
    assert {date.weekday() for date in local[:-1]} == {0}
    assert {(b.date() - a.date()).days for a, b in pairwise(local[:-1])} == {7}
    assert len({date.utcoffset() for date in local}) == 2
    assert all(date.tzinfo is UTC for date in dates)
    assert dates[-1] == last + timedelta(microseconds=1)
    history = timedelta(days=NEW_YORK.history_days)
    assert history <= dates[0] - first < history + timedelta(days=7)


def test_as_ofs_are_those_of_the_first_and_the_last_purchase(home):
    warehouse = open_warehouse(home)
    times = warehouse.frame("transactions")["occurred_at"]
    assert as_of_dates(warehouse, NEW_YORK) == as_ofs_between(times.min(), times.max(), NEW_YORK)


@given(span=st.integers(2400, 4800), more=st.integers(0, 20), days=st.integers(1, 30))
def test_newer_and_older_data_move_no_as_of_of_the_grid(span, more, days):
    programme = Programme(timezone="America/New_York", snapshot_days=days)
    first = datetime(2017, 1, 5, 0, 30, tzinfo=UTC)
    last = first + timedelta(hours=span)
    before = as_ofs_between(first, last, programme)
    after = as_ofs_between(first, last + timedelta(days=more), programme)
    longer = as_ofs_between(first - timedelta(days=more), last, programme)
    grid = {as_of for as_of in before if on_grid(as_of, programme)}
    assert set(before) - grid <= {before[-1]}
    assert grid == {as_of for as_of in after if on_grid(as_of, programme) and as_of <= before[-1]}
    assert grid == {as_of for as_of in longer if on_grid(as_of, programme) and as_of >= before[0]}
    assert after[-1] == programme.days_before(before[-1], -more)


def test_a_midnight_that_a_clock_change_leaves_out_moves_no_other():
    """In Santiago the clock goes from 23:59:59 to 01:00 on August 13th 2017."""
    programme = Programme(timezone="America/Santiago", history_days=28, snapshot_days=1)
    last = datetime(2017, 8, 14, 12, tzinfo=UTC)
    dates = as_ofs_between(last - timedelta(days=31), last, programme)
    local = [f"{date.astimezone(programme.zone):%m-%d %H:%M}" for date in dates]
    assert local == ["08-12 00:00", "08-13 01:00", "08-14 00:00", "08-15 00:00"]
    assert all(on_grid(date, programme) for date in dates)


def test_a_short_history_is_refused_with_what_was_wanted(company, tables):
    lines = tables["transactions"]
    lines = lines[lines["occurred_at"] > company.as_of - timedelta(days=32)]
    warehouse = company.ingest(tables | {"transactions": lines}, programme=NEW_YORK)
    with pytest.raises(ContractError, match=r"span 34 days; history_days \(84\) were wanted"):
        as_of_dates(warehouse, NEW_YORK)


def test_a_second_build_writes_nothing(built_home):
    before, dates = _state(built_home), built(built_home)
    assert build(built_home, progress=_silent) == dates
    assert _state(built_home) == before
    assert len(before) == len(dates) + 1


def test_other_data_or_settings_rebuild_and_leave_no_old_snapshot(company, built_home):
    home = built_home
    before = _state(home)
    company.ingest(company.everything(np.random.default_rng(6), days=100), home=home, programme=NEW_YORK, key="other")
    dates = build(home, progress=_silent)
    after = _state(home)
    assert {name[:10] for name in after if name != "manifest.json"} == {f"{date:%Y-%m-%d}" for date in dates}
    assert all(before.get(name) != state for name, state in after.items())
    home.settings.write_text(SETTINGS + "snapshot_days = 14\n")
    assert {dates[-1]} < set(build(home, progress=_silent)) < set(dates)
    assert set(_state(home)) < set(after)


def test_tables_that_were_read_in_another_time_zone_are_not_built_on(home):
    home.settings.write_text('timezone = "Asia/Tokyo"\n')
    with pytest.raises(ContractError, match=r"timezone was .* and is 'Asia/Tokyo' since the tables were read"):
        build(home, progress=_silent)


def test_a_build_that_was_killed_goes_on_where_it_stopped(home, monkeypatch):
    write, written = features.snapshots.write_whole, []

    def killed(path, fill):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, fill)

    with monkeypatch.context() as patched:
        patched.setattr(features.snapshots, "write_whole", killed)
        with pytest.raises(KeyboardInterrupt):
            build(home, progress=_silent)
    stopped = _state(home)
    dates = build(home, progress=_silent)
    assert len(dates) > 1
    assert built(home) == dates
    del stopped["manifest.json"]
    assert len(stopped) == 1
    assert stopped.items() <= _state(home).items()


def test_what_is_read_is_what_was_computed(built_home):
    home, dates = built_home, built(built_home)
    frame = read_snapshots(home, dates[-2:])
    programme = read_programme(home.settings)
    warehouse, at = open_warehouse(home), moment(dates[-1], programme)  # as literals, which a build has as variables
    tables = {name: warehouse.expression(name) for name in warehouse.tables}
    with quietly():
        whole = among_these(of_members(tables, at=at, programme=programme), at=at, programme=programme)
        again = whole.to_pandas().set_index("member_id").sort_index()
    read = frame[frame["as_of"] == dates[-1]].set_index("member_id").sort_index()
    pd.testing.assert_frame_equal(read[list(CATALOGUE)], again[list(CATALOGUE)])
    assert frame.groupby("as_of").size().index.tolist() == [pd.Timestamp(date) for date in dates[-2:]]


def test_snapshots_that_are_not_there_are_named(home):
    with pytest.raises(NotFoundError, match="holds no snapshots yet; `holdfast features build`"):
        built(home)
    with pytest.raises(NotFoundError, match="no snapshots of 2017-01-07; `holdfast features build`"):
        read_snapshots(home, [datetime(2017, 1, 7, tzinfo=UTC)])
