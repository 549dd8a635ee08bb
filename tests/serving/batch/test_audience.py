from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.errors import ContractError, NotFoundError
from features.population import latest_population
from features.programme import Programme
from serving.batch.audience import find_audience


@pytest.fixture(scope="module")
def population(filled):
    return latest_population(filled)


def chosen(population, asked, programme=None):
    audience = find_audience(population, asked, programme or Programme())
    flags = np.concatenate([audience.chosen(population, part) for part in range(len(population.sizes))])
    return population.read(["member_id"])["member_id"].filter(pa.array(flags)).to_pylist()


def test_a_file_names_members_once_and_every_other_row_comes_back_with_its_reason(population, tmp_path):
    path = tmp_path / "some.csv"
    path.write_text("member_id,note\nm00007,a\nstranger,b\nm00001,c\nm00007,d\n,e\n")
    audience = find_audience(population, str(path), Programme())
    assert chosen(population, str(path)) == ["m00001", "m00007"]
    assert audience.refused.to_pylist() == [
        {"row": 2, "member_id": "stranger", "reason": "nobody of this id had joined by 2017-12-01 00:00 UTC"},
        {"row": 4, "member_id": "m00007", "reason": "it came before"},
        {"row": 5, "member_id": None, "reason": "there is no member_id"},
    ]
    assert len(chosen(population, str(path))) + audience.refused.num_rows == 5


def test_ids_of_a_file_are_read_as_those_of_a_table_are(population, tmp_path):
    text, floats = tmp_path / "some.csv", tmp_path / "some.parquet"
    text.write_text("member_id\nm00007\n17850.0\n")
    pq.write_table(pa.table({"member_id": [17850.0, None]}), floats)
    assert find_audience(population, str(text), Programme()).refused["member_id"].to_pylist() == ["17850"]
    with pytest.raises(ContractError, match="is known of 2 that came"):
        find_audience(population, str(floats), Programme())


def test_a_file_is_another_audience_once_its_content_is(population, tmp_path):
    path = tmp_path / "some.parquet"
    pq.write_table(pa.table({"member_id": ["m00001"]}), path)
    before = find_audience(population, str(path), Programme()).identity
    pq.write_table(pa.table({"member_id": ["m00002"]}), path)
    assert find_audience(population, str(path), Programme()).identity != before


@pytest.mark.parametrize(
    ("asked", "column", "holds"),
    [
        ("loyal", "segment", lambda word: word == "loyal"),
        ("dormant", "lifecycle_stage", lambda word: word == "dormant"),
        ("spend_28d > 5000", "spend_28d", lambda spend: spend is not None and spend > 5000),
        (None, "recency_days", lambda days: days <= 56),
    ],
)
def test_a_name_a_rule_or_nothing_chooses_by_the_snapshot(population, asked, column, holds):
    rows = population.read(["member_id", column]).to_pylist()
    assert chosen(population, asked) == [row["member_id"] for row in rows if holds(row[column])]


def test_a_programme_of_contracts_is_about_who_has_one(population):
    rows = population.read(["member_id", "subscription_days_to_end"]).to_pylist()
    wanted = [row["member_id"] for row in rows if row["subscription_days_to_end"] > 0]
    assert chosen(population, None, Programme(churn="contract")) == wanted


def test_parts_are_the_whole(population):
    parts = [population.read(["member_id"], part)["member_id"].to_pylist() for part in range(len(population.sizes))]
    assert len(parts) > 1
    assert list(chain(*parts)) == population.read(["member_id"])["member_id"].to_pylist()
    assert [population.start(part) for part in range(len(parts))] == np.cumsum([0, *map(len, parts[:-1])]).tolist()


def test_what_names_nobody_says_what_would(population, tmp_path):
    with pytest.raises(ContractError, match=r"nobody is 'lojal': .*loyal.* were wanted, or a file, or a rule"):
        find_audience(population, "lojal", Programme())
    with pytest.raises(ContractError, match="recency_day is no feature; did you mean recency_days"):
        find_audience(population, "recency_day > 3", Programme())
    with pytest.raises(NotFoundError, match=r"there is no file nowhere\.csv"):
        find_audience(population, "nowhere.csv", Programme())
    (tmp_path / "other.csv").write_text("id\nm00001\n")
    with pytest.raises(ContractError, match=r"has the columns id; member_id was wanted"):
        find_audience(population, str(tmp_path / "other.csv"), Programme())
