import pandas as pd
import pytest

from features.checks import MOST_BAD_ROWS, check_rows, table_diff, too_many, unknown_tables
from features.schema import TABLES

MEMBERS = pd.Series(["m1"], dtype="string")
GOOD = {
    "transactions": {
        "transaction_id": "t1",
        "member_id": "m1",
        "occurred_at": "2017-01-01T10:00:00Z",
        "amount": "100",
        "discount": "0",
        "quantity": "1",
    },
    "members": {"member_id": "m1", "joined_at": "2017-01-01", "personalisation": "true"},
    "contacts": {
        "contact_id": "c1",
        "member_id": "m1",
        "treatment": "A",
        "contacted_at": "2017-01-01",
        "propensity": ".5",
    },
}


def _check(table, **changes):
    frame = pd.DataFrame([GOOD[table] | changes], dtype="string")
    return check_rows(TABLES[table], frame, members=MEMBERS)


@pytest.mark.parametrize(
    ("table", "column", "value", "reason"),
    [
        ("transactions", "amount", "12.50", "amount is no money"),  # dollars where cents were wanted
        ("transactions", "amount", "1,250", "amount is no money"),
        ("transactions", "amount", "", "amount is no money"),
        ("transactions", "amount", None, "amount: not_nullable"),
        ("transactions", "amount", "inf", "amount is no money"),
        ("transactions", "amount", "1e30", "amount is no money"),
        ("transactions", "amount", "9223372036854775808", "amount is no money"),
        ("transactions", "discount", "-1", "discount: wanted 0 or more"),
        ("transactions", "quantity", "1.5", "quantity is no count"),
        ("transactions", "transaction_id", "", "transaction_id: wanted 1 to 128 characters"),
        ("transactions", "transaction_id", "x" * 129, "transaction_id: wanted 1 to 128 characters"),
        ("transactions", "member_id", None, "member_id: not_nullable"),
        ("transactions", "member_id", "stranger", "member_id is not in members"),
        ("transactions", "occurred_at", "01/02/2017", "occurred_at is no time"),
        ("transactions", "occurred_at", "2017-02-30", "occurred_at is no time"),
        ("transactions", "occurred_at", "now", "occurred_at is no time"),  # pandas would ask the clock
        ("transactions", "occurred_at", "Today", "occurred_at is no time"),
        ("transactions", "occurred_at", "9999-12-31", "occurred_at is no time"),
        ("members", "personalisation", "maybe", "personalisation is no flag"),
        ("contacts", "propensity", "1.01", "propensity: wanted 0 to 1"),
        ("contacts", "propensity", "nan", "propensity is no share"),
        ("contacts", "propensity", "inf", "propensity: wanted 0 to 1"),
        ("contacts", "treatment", None, "treatment: not_nullable"),
    ],
)
def test_a_bad_value_is_refused_with_its_reason_and_comes_back_as_it_came(table, column, value, reason):
    good, bad = _check(table, **{column: value})
    assert good.empty
    assert reason in bad["reason"].iloc[0]
    came = bad[column].iloc[0]
    assert pd.isna(came) if value is None else came == value


@pytest.mark.parametrize(
    ("table", "column", "value", "typed"),
    [
        ("transactions", "amount", "-100", -100),  # a refund
        ("transactions", "amount", "100.0", 100),
        ("transactions", "amount", str(2**53), 2**53),
        ("transactions", "discount", None, pd.NA),
        ("transactions", "transaction_id", "x" * 128, "x" * 128),
        ("transactions", "transaction_id", "=1+1", "=1+1"),
        ("transactions", "occurred_at", "2017-01-01", pd.Timestamp("2017-01-01", tz="UTC")),
        ("transactions", "occurred_at", "2017-01-01T00:30:00+02:00", pd.Timestamp("2016-12-31 22:30", tz="UTC")),
        ("members", "personalisation", "No", False),
        ("members", "personalisation", None, pd.NA),
        ("contacts", "propensity", "1", 1.0),
    ],
)
def test_a_good_value_is_typed(table, column, value, typed):
    good, bad = _check(table, **{column: value})
    assert bad.empty
    came = good[column].iloc[0]
    assert pd.isna(came) if typed is pd.NA else came == typed


def test_every_reason_of_a_row_is_given():
    _, bad = _check("transactions", amount="much", discount="-1", member_id="stranger")
    reason = bad["reason"].iloc[0]
    assert all(part in reason for part in ("amount is no money", "discount: wanted", "member_id is not in members"))


def test_of_rows_with_one_id_the_first_stands():
    row = GOOD["contacts"]
    frame = pd.DataFrame([row, row | {"treatment": "B"}, row | {"contact_id": "c2"}], dtype="string")
    good, bad = check_rows(TABLES["contacts"], frame, members=MEMBERS)
    assert good["treatment"].tolist() == ["A", "A"]
    assert bad["treatment"].tolist() == ["B"]
    assert bad["reason"].tolist() == ["contact_id came before"]


def test_lines_of_one_receipt_share_its_id():
    frame = pd.DataFrame([GOOD["transactions"]] * 3, dtype="string")
    good, bad = check_rows(TABLES["transactions"], frame, members=MEMBERS)
    assert (len(good), len(bad)) == (3, 0)


def test_numbers_that_are_numbers_already_meet_the_same_contract():
    frame = pd.DataFrame([GOOD["transactions"]] * 5).assign(amount=[1.0, 1.5, float("inf"), 1e30, float("nan")])
    good, bad = check_rows(TABLES["transactions"], frame, members=MEMBERS)
    assert good["amount"].tolist() == [1]
    assert bad["reason"].str.contains("amount").sum() == 4


def test_columns_outside_the_contract_are_kept():
    frame = pd.DataFrame([GOOD["members"] | {"shoe_size": "44"}], dtype="string")
    good, _ = check_rows(TABLES["members"], frame, members=MEMBERS)
    assert good["shoe_size"].tolist() == ["44"]


def test_the_frame_that_is_checked_is_left_alone():
    frame = pd.DataFrame([GOOD["transactions"] | {"amount": "x"}], dtype="string")
    before = frame.copy()
    check_rows(TABLES["transactions"], frame, members=MEMBERS)
    pd.testing.assert_frame_equal(frame, before)


def test_a_missing_column_is_told_with_the_one_it_may_be():
    frame = pd.DataFrame([GOOD["transactions"]]).rename(columns={"occurred_at": "occured_on", "amount": "total"})
    renamed, lost = table_diff("transactions", frame)
    assert "lacks the column 'occurred_at' ('occured_on' came: renamed?)" in renamed
    assert "lacks the column 'amount' (came: transaction_id, " in lost
    assert "wanted: transaction_id, member_id, occurred_at, amount" in lost


def test_a_share_of_bad_rows_above_the_limit_is_a_broken_export():
    good, bad = pd.DataFrame(index=range(99)), pd.DataFrame({"reason": ["worse"]})
    assert pytest.approx(0.01) == MOST_BAD_ROWS
    assert too_many("members", good, bad) == []
    assert "1 of 99 rows are bad (1.0%; most often: worse)" in too_many("members", good.iloc[1:], bad)[0]


def test_tables_that_are_not_the_contracts_and_tables_that_are_missing_are_both_named():
    said = unknown_tables({"members": pd.DataFrame(), "tickets": pd.DataFrame()})
    assert ["'tickets' is no table" in said[0], said[1]] == [True, "transactions is missing"]
