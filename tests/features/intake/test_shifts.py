"""A batch that differs too much from the last one is refused whole, by the name of what would let it pass."""

import numpy as np
import pandas as pd
import pytest

from features.errors import ContractError
from features.home import Home
from features.ingest import bring
from features.intake.mapping import SourceMapping
from features.intake.shifts import parse_allowances
from features.intake.sources import Source

N = 200


def _rows(rng):
    return pd.DataFrame(
        {
            "transaction_id": [f"t{number}" for number in range(N)],
            "member_id": "m1",
            "occurred_at": "2024-01-05",
            "amount": rng.integers(500, 5000, N),
            "shop": rng.integers(1, 9, N),
        }
    )


@pytest.fixture
def rows():
    return _rows(np.random.default_rng(3))


@pytest.fixture
def take(tmp_path, rows):
    (tmp_path / "members.csv").write_text("member_id,joined_at\nm1,2024-01-01\n")
    home = Home(tmp_path / "home")

    def run(table, *allow, rehearse=False):
        table.to_parquet(tmp_path / "transactions.parquet")
        source = Source(folder=tmp_path)
        return bring(home, source, SourceMapping(), allow=frozenset(allow), rehearse=rehearse)

    run.home = home
    run(rows)
    return run


SHIFTS = {
    "shrink": (lambda t: t.head(N // 2 - 1), "transactions shrank from 200 to 99 rows"),
    "median": (lambda t: t.assign(amount=t["amount"] * 100), "the median of transactions.amount moved from .*dollars"),
    "columns": (lambda t: t.rename(columns={"shop": "shops"}), r"lacks 'shop', .*\('shops' came: renamed\?\)"),
    "types": (lambda t: t.assign(shop=t["shop"].astype(str)), "transactions.shop was int64 and is (large_)?string"),
    "bad-rows": (lambda t: t.assign(member_id=["m1"] * 195 + ["m9"] * 5), "5 of 200 rows are bad"),
}


@pytest.mark.parametrize(("allowance", "spoil", "message"), [(k, *v) for k, v in SHIFTS.items()], ids=SHIFTS)
def test_a_shift_is_refused_unless_it_is_meant(take, rows, allowance, spoil, message):
    before = sorted(take.home.warehouse.rglob("*"))
    spoilt = spoil(rows)
    others = [name for name in SHIFTS if name != allowance]
    with pytest.raises(ContractError, match=f"{message}.*type --allow {allowance}"):
        take(spoilt, *others)
    assert sorted(take.home.warehouse.rglob("*")) == before
    assert take(spoilt, allowance).fresh


def test_every_shift_is_said_at_once(take, rows):
    with pytest.raises(ContractError, match="type --allow columns,median,shrink"):
        take(rows.head(50).assign(amount=1).drop(columns="shop"))


def test_half_of_the_rows_and_an_ordinary_season_pass(take, rows):
    assert take(rows.head(N // 2)).fresh
    assert take(rows.assign(amount=rows["amount"] * 4)).fresh


def test_ids_that_are_gone_are_not_silently_made_up(take, rows):
    with pytest.raises(ContractError, match="came without 'transaction_id', which the warehouse has"):
        take(rows.drop(columns="transaction_id"))


def test_a_table_that_is_not_brought_any_more_has_shrunk(take, rows, tmp_path):
    (tmp_path / "events.csv").write_text("event_id,member_id,occurred_at,kind\ne,m1,2024-01-01,visit\n")
    take(rows)
    (tmp_path / "events.csv").unlink()
    with pytest.raises(ContractError, match="events had 1 rows and was not brought"):
        take(rows.head(150))


def test_a_rehearsal_shows_what_would_happen_and_writes_nothing(take, rows):
    def state():
        return {path: path.stat().st_mtime_ns for path in take.home.root.rglob("*")}

    before = state()
    shown = take(rows.head(150), rehearse=True)
    assert shown.sheet.rows[1][:4] == ("transactions", "200", "150", "0")
    assert shown.warehouse is None
    with pytest.raises(ContractError, match="type --allow shrink"):
        take(rows.head(9), rehearse=True)
    assert state() == before


def test_an_allowance_that_does_not_exist_is_told_with_those_that_do():
    with pytest.raises(ContractError, match="knows no everything; wanted of shrink: a table"):
        parse_allowances("shrink,everything")
