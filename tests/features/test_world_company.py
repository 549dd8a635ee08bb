"""A company in memory has the features that its ingested tables have, at the start and after a wave of decisions."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from features.world.company import found_company, joined, world_programme
from features.world.history import history
from features.world.law import WAVE_DAYS, World
from features.world.members import TRAITS
from features.world.respond import respond
from features.world.tables import member_ids


@pytest.mark.parametrize("shape", ["retail", "subscription"])
def test_features_in_memory_are_those_of_the_ingested_tables(company, shape):
    world = World(1_000, shape=shape, waves=4, first_campaign=1)
    chunk = history(world, np.random.default_rng(0))
    ours = found_company(world, chunk.tables).features(world.waves)
    tables = {name: table.to_pandas() for name, table in chunk.tables.items()}
    end = world.start + timedelta(days=world.days)
    ingested = company.snapshot(tables, as_of=end, programme=world_programme(world))
    pd.testing.assert_frame_equal(ours.sort_index(), ingested[ours.columns].astype(np.float32), check_names=False)
    ids = member_ids(chunk.members).take(pa.array(joined(chunk.members, world.waves)))
    assert list(ours.index) == ids.to_pylist()


def test_a_snapshot_has_the_features_of_its_moment_and_the_words_that_people_read():
    world = World(1_000, waves=4, first_campaign=1)
    company = found_company(world, history(world, np.random.default_rng(0)).tables)
    features, snapshot = company.features(3), company.snapshot(3).set_index("member_id")
    pd.testing.assert_frame_equal(snapshot[features.columns].astype(np.float32), features)
    assert set(snapshot["as_of"]) == {pd.Timestamp(world.as_of(3))}
    assert (
        {"active", "dormant"} <= set(snapshot["lifecycle_stage"]) <= {"new", "active", "dormant", "lapsed", "returned"}
    )


def test_traits_that_can_be_observed_stand_after_the_products_own_features_and_change_nothing_else():
    world = World(1_000, shape="subscription", waves=3, first_campaign=1)
    hidden = history(world, np.random.default_rng(0))
    shown = history(replace(world, observable=True), np.random.default_rng(0))
    ours = found_company(replace(world, observable=True), shown.tables).features(world.waves)
    pd.testing.assert_frame_equal(ours.drop(columns=list(TRAITS)), found_company(world, hidden.tables).features(3))
    there = joined(shown.members, world.waves)
    for name in TRAITS:
        exact = 100 * getattr(shown.members, name)[there]
        np.testing.assert_allclose(ours[name], exact, atol=0.501)  # whole hundredths


def test_a_wave_adds_what_it_brought_and_leaves_the_company_before_it_as_it_was():
    world = World(1_000, shape="both", waves=3, first_campaign=1)
    chunk = history(world, np.random.default_rng(0))
    before = found_company(world, chunk.tables)
    asked = member_ids(chunk.members).take(pa.array(joined(chunk.members, world.waves))).to_pylist()
    decisions = pd.DataFrame({"member_id": asked, "treatment": "points", "propensity": 0.5})
    answer = respond(world, chunk.members, decisions, wave=world.waves, rng=np.random.default_rng(1))
    old = before.features(world.waves)
    after = before.after(answer, world.waves)
    seen = after.features(world.waves + 1)
    assert (seen["contacts_28d"] == 1).all()
    days = (answer.tables["transactions"].to_pandas()["occurred_at"] - pd.Timestamp(world.start)).dt.days
    assert days.between(world.waves * WAVE_DAYS, (world.waves + 1) * WAVE_DAYS - 1).all()
    assert seen["visits_28d"].sum() == answer.tables["transactions"].num_rows
    pd.testing.assert_frame_equal(before.features(world.waves), old)
    renewed = after.tables["subscriptions"]["renewed_at"].to_pandas()
    assert (renewed < pd.Timestamp(world.start) + pd.Timedelta(days=(world.waves + 1) * WAVE_DAYS)).sum() > 0
