"""Real Feast over a small home: what a row sees is what was known at its time, on both ways out of the store."""

import shutil
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from features.definitions import VIEW
from features.errors import ContractError, NotFoundError
from features.home import Home
from features.programme import Programme
from features.snapshots import build, built, read_snapshots

ASKED = ("visits_28d", "overdue_ratio", "recency_days", "spend_84d")


@pytest.fixture(scope="module")
def store(company, tmp_path_factory):
    from features.store import open_store

    home = Home(tmp_path_factory.mktemp("store"))
    home.settings.write_text('timezone = "America/New_York"\n')
    programme = Programme(timezone="America/New_York")
    company.ingest(company.frames(np.random.default_rng(9), days=125), home=home, programme=programme)
    dates = build(home, progress=lambda *_: None)
    assert len(dates) >= 5
    store = open_store(home)
    store.apply()
    store.materialize(dates[-1])
    return store


@pytest.fixture(scope="module")
def snapshots(store):
    return read_snapshots(store.home, built(store.home))


@pytest.fixture
def copy(store, tmp_path):
    """Give a store of one's own to spoil."""
    from features.store import open_store

    home = Home(tmp_path / "copy")
    shutil.copytree(store.home.root, home.root)
    other = open_store(home)
    other.apply()
    return other


def _asked(snapshots, size, seed=0):
    """Ask for members at random times from their first snapshot on, in no order, some twice, some at an `as_of`."""
    rng = np.random.default_rng(seed)
    rows = snapshots[["member_id", "as_of"]].sample(size, replace=True, random_state=rng, ignore_index=True)
    steps = rng.choice([0, 1, 3600, 86_400 * 3, 86_400 * 7 - 7200, 86_400 * 400], size)
    rows["as_of"] = (rows["as_of"] + pd.to_timedelta(steps, unit="s")).astype(snapshots["as_of"].dtype)
    return rows


def test_feast_does_not_rewrite_its_source_when_it_is_imported(store):
    made = type(store.feast.get_feature_view(VIEW)).__init__
    assert "typeguard" not in made.__code__.co_names


def test_a_row_sees_the_last_snapshot_of_its_time_and_rows_stay_as_they_were(store, snapshots):
    """The oracle is pandas' own as-of merge over the files."""
    rows = _asked(snapshots, 200).assign(outcome=np.arange(200) * 1.5, treatment="A")
    rows = pd.concat([rows, rows.head(20)], ignore_index=True)  # the same row again
    joined = store.training_frame(rows)
    pd.testing.assert_frame_equal(
        joined[["member_id", "outcome", "treatment"]], rows[["member_id", "outcome", "treatment"]]
    )
    assert (joined["as_of"] == rows["as_of"]).all()
    numbers = [name for name in joined.columns if name not in rows.columns]
    wanted = pd.merge_asof(
        rows.assign(place=range(len(rows))).sort_values("as_of"),
        snapshots.sort_values("as_of"),
        on="as_of",
        by="member_id",
    ).sort_values("place", ignore_index=True)
    # a column that is missing everywhere has no type of its own in a file
    pd.testing.assert_frame_equal(joined[numbers], wanted[numbers].astype("float64"), check_exact=True)
    assert {"visits_28d", "visits_total", "monetary_score"} <= set(numbers)


def test_a_later_snapshot_never_leaks_and_its_own_moment_counts(store, snapshots):
    last, before = sorted(snapshots["as_of"].unique())[-1:-3:-1]
    differs = snapshots[snapshots["as_of"].isin([before, last])].pivot_table(
        index="member_id", columns="as_of", values="spend_84d"
    )
    member = (differs[last] - differs[before]).abs().idxmax()
    times = [last - timedelta(microseconds=1), last]
    seen = store.training_frame(pd.DataFrame({"member_id": [member] * 2, "as_of": times}))["spend_84d"]
    assert seen.tolist() == [differs.loc[member, before], differs.loc[member, last]]
    assert seen[0] != seen[1]


def test_a_dormant_members_old_snapshot_is_found(store, snapshots):
    """No time to live: a year later the last that is known is still the answer, and never a lost row."""
    last = snapshots[snapshots["as_of"] == snapshots["as_of"].max()].set_index("member_id")["recency_days"]
    rows = pd.DataFrame({"member_id": last.index, "as_of": snapshots["as_of"].max() + timedelta(days=365)})
    assert store.training_frame(rows)["recency_days"].equals(last.reset_index(drop=True))


@pytest.mark.parametrize("case", ["before_the_first", "unknown"])
def test_a_row_without_a_snapshot_is_refused_and_counted(store, snapshots, case):
    rows = _asked(snapshots, 3)
    if case == "unknown":
        rows.loc[1, "member_id"] = "nobody"
    else:
        rows.loc[1, "as_of"] = snapshots["as_of"].min() - timedelta(seconds=1)
    with pytest.raises(ContractError, match="1 of 3 rows have no snapshot as old as their as_of; `holdfast features"):
        store.training_frame(rows)


def test_a_row_that_was_written_later_is_not_seen_before_it_was_written(copy, snapshots):
    """The leakage canary: a backfill says it is of a time long ago, but nobody could have known it then."""
    first, second, third = sorted(snapshots["as_of"].unique())[:3]
    path = next(path for path in copy.home.features.glob("*.parquet") if path.stem[:10] == f"{second:%Y-%m-%d}")
    row = pd.read_parquet(path).head(1)
    member, when = row["member_id"].iloc[0], first + timedelta(days=3)
    canary = row.assign(event_timestamp=when, created_timestamp=third, visits_28d=999.0)
    canary = canary.astype({"event_timestamp": "datetime64[us, UTC]", "created_timestamp": "datetime64[us, UTC]"})
    canary.to_parquet(copy.home.features / "backfill.parquet", index=False)
    rows = pd.DataFrame({"member_id": [member], "as_of": [when + timedelta(days=1)]})
    honest = snapshots.set_index(["as_of", "member_id"]).loc[(first, member), "visits_28d"]
    assert copy.training_frame(rows)["visits_28d"].tolist() == [honest]
    # written in time it is seen: the canary lives
    canary.assign(created_timestamp=when).to_parquet(copy.home.features / "backfill.parquet", index=False)
    assert copy.training_frame(rows)["visits_28d"].tolist() == [999]


def test_online_equals_offline_for_every_member_and_feature(store, snapshots):
    from features.definitions import MODEL_FEATURES

    last = snapshots["as_of"].max()
    members = snapshots.loc[snapshots["as_of"] == last, "member_id"].tolist()
    offline = store.training_frame(pd.DataFrame({"member_id": members, "as_of": last}))
    online = store.online(members, MODEL_FEATURES)
    assert online.X.dtype == np.float32
    np.testing.assert_array_equal(online.X, offline[list(MODEL_FEATURES)].to_numpy(dtype=np.float32))
    words = snapshots[snapshots["as_of"] == last]
    assert (list(online.segment), list(online.lifecycle_stage)) == (
        words["segment"].tolist(),
        words["lifecycle_stage"].tolist(),
    )
    assert online.known.all()
    assert set(online.event_timestamp) == {last.to_pydatetime()}


def test_facts_are_what_the_snapshot_says_whatever_is_asked_beside_them(store, snapshots):
    last = snapshots[snapshots["as_of"] == snapshots["as_of"].max()].set_index("member_id")
    members, named = (
        [*last.index, "nobody"],
        ("tier", "visits_28d", "lifecycle_stage", "visits_total", "personalisation"),
    )
    read = store.online(members, ASKED, facts=named)
    assert set(read.facts) == set(named)
    np.testing.assert_array_equal(read.X, store.online(members, ASKED).X)
    for name in ("visits_28d", "visits_total"):
        np.testing.assert_array_equal(read.facts[name], [*last[name], np.nan])
    for name in ("tier", "lifecycle_stage", "personalisation"):
        assert read.facts[name].tolist() == [*last[name].astype(object).where(last[name].notna(), None), None]
    assert read.lifecycle_stage == tuple(read.facts["lifecycle_stage"])
    nobody = store.online([], ASKED, facts=named).facts
    assert {name: column.shape for name, column in nobody.items()} == dict.fromkeys(named, (0,))


def test_columns_come_in_the_order_asked_and_rows_too(store, snapshots):
    members = sorted(set(snapshots["member_id"]))[:5]
    there, back = store.online(members, ASKED), store.online(members[::-1], ASKED[::-1])
    assert back.member_ids == tuple(members[::-1])
    np.testing.assert_array_equal(back.X, there.X[::-1, ::-1])
    twice = store.online([members[0], members[0]], ASKED)
    np.testing.assert_array_equal(twice.X, there.X[[0, 0]])


def test_an_unknown_member_is_said_to_be_unknown_and_disturbs_no_other(store, snapshots):
    member = snapshots["member_id"].iloc[0]
    alone, among = store.online([member], ASKED), store.online(["nobody", member, "' OR 1=1 --"], ASKED)
    assert among.known.tolist() == [False, True, False]
    np.testing.assert_array_equal(among.X[1], alone.X[0])
    assert np.isnan(among.X[[0, 2]]).all()
    assert among.segment[::2] == among.lifecycle_stage[::2] == among.event_timestamp[::2] == (None, None)


def test_a_fact_that_is_no_feature_is_refused_by_name(store):
    with pytest.raises(ContractError, match="visits_29d: not among"):
        store.online(["m00"], ASKED, facts=("tier", "visits_29d"))


@pytest.mark.parametrize("name", ["segment", "visits_total", "visits_29d", "member_id"])
def test_a_word_or_what_no_decision_reads_is_refused_by_name(store, name):
    with pytest.raises(ContractError, match=f"{name}: not among the numbers .* `holdfast features list`"):
        store.online(["m00"], [*ASKED, name])


def test_an_older_snapshot_never_replaces_a_newer_one(copy, snapshots):
    """So a late or repeated job can't take members back in time."""
    older, newer = sorted(snapshots["as_of"].unique())[-2:]
    by_time = snapshots.set_index(["as_of", "member_id"])["spend_84d"]
    members = by_time[older].index.tolist()
    for as_of in (newer, older):
        copy.materialize(as_of.to_pydatetime())
        online = copy.online(members, ["spend_84d"])
        assert set(online.event_timestamp) == {newer.to_pydatetime()}
        np.testing.assert_array_equal(online.X[:, 0], by_time[newer][members].to_numpy(np.float32))


def test_applying_again_changes_no_answer(copy, snapshots):
    rows = _asked(snapshots, 10)
    before = copy.training_frame(rows)
    copy.apply()
    pd.testing.assert_frame_equal(copy.training_frame(rows), before)


def test_a_store_that_was_never_applied_says_what_to_type(tmp_path):
    from features.store import open_store

    store = open_store(Home(tmp_path))
    with pytest.raises(NotFoundError, match=r"no online store .*`holdfast features materialize`"):
        store.online(["m00"], ASKED)


def test_models_read_what_history_fills_and_what_says_anything(snapshots):
    """A year's windows need a year before the first snapshot; a column with one value for everybody teaches nothing."""
    from features.definitions import MODEL_FEATURES, model_features

    rows = snapshots.assign(visits_7d=2.0, support_84d=np.nan)
    chosen = model_features(rows, Programme())
    assert list(chosen) == [name for name in MODEL_FEATURES if name in set(chosen)]
    assert {"recency_days", "visits_84d", "visits_56d", "gap_sd_days"} <= set(chosen)
    assert not {"visits_7d", "support_84d", "spend_364d", "tier_level", "category_1_share_84d"} & set(chosen)
    long = model_features(rows, Programme(history_days=400))
    assert {"spend_364d", "visits_pace_364d", "tier_level", "tier_change"} <= set(long)
    assert not {"tenure_days", "spend_total", "points_balance"} & set(long)
