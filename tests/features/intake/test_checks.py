import pandas as pd
import pytest

from features.intake.checks import MOST_BAD_ROWS, check_values, table_diff, too_many, unknown_tables
from features.schema import TABLES

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
    frame = pd.DataFrame([GOOD[table] | changes], dtype="string[pyarrow]")
    return check_values(TABLES[table], frame)


@pytest.mark.parametrize(
    ("table", "column", "value", "reason"),
    [
        ("transactions", "amount", "12.50", "amount is no money"),  # dollars where cents were wanted
        ("transactions", "amount", "1,250", "amount is no money"),
        ("transactions", "amount", "", "amount is no money"),
        ("transactions", "amount", None, "amount is missing"),
        ("transactions", "amount", "inf", "amount is no money"),
        ("transactions", "amount", "1e30", "amount is no money"),
        ("transactions", "amount", "9223372036854775808", "amount is no money"),
        ("transactions", "discount", "-1", "discount: wanted 0 or more"),
        ("transactions", "quantity", "1.5", "quantity is no count"),
        ("transactions", "transaction_id", "", "transaction_id: wanted 1 to 128 characters"),
        ("transactions", "transaction_id", "x" * 129, "transaction_id: wanted 1 to 128 characters"),
        ("transactions", "member_id", None, "member_id is missing"),
        ("transactions", "occurred_at", "01/02/2017", "occurred_at is no time"),
        ("transactions", "occurred_at", "2017-02-30", "occurred_at is no time"),
        ("transactions", "occurred_at", "now", "occurred_at is no time"),  # pandas would ask the clock
        ("transactions", "occurred_at", "Today", "occurred_at is no time"),
        ("transactions", "occurred_at", "9999-12-31", "occurred_at is no time"),
        ("members", "personalisation", "maybe", "personalisation is no flag"),
        ("contacts", "propensity", "1.01", "propensity: wanted 0 to 1"),
        ("contacts", "propensity", "nan", "propensity is no share"),
        ("contacts", "propensity", "inf", "propensity: wanted 0 to 1"),
        ("contacts", "treatment", None, "treatment is missing"),
    ],
)
def test_a_bad_value_is_refused_with_its_reason(table, column, value, reason):
    _, reasons = _check(table, **{column: value})
    assert reason in reasons[0]


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
    rows, reasons = _check(table, **{column: value})
    assert reasons.isna().all()
    came = rows[column].iloc[0]
    assert pd.isna(came) if typed is pd.NA else came == typed


def test_every_reason_of_a_row_is_given():
    _, reasons = _check("transactions", amount="much", discount="-1")
    assert reasons[0] == "amount is no money; discount: wanted 0 or more"


def test_numbers_that_are_numbers_already_meet_the_same_contract():
    frame = pd.DataFrame([GOOD["transactions"]] * 5).assign(amount=[1.0, 1.5, float("inf"), 1e30, float("nan")])
    rows, reasons = check_values(TABLES["transactions"], frame)
    assert rows["amount"][reasons.isna()].tolist() == [1]
    assert reasons.str.contains("amount").sum() == 4


def test_columns_outside_the_contract_are_kept():
    rows, _ = _check("members", shoe_size="44")
    assert rows["shoe_size"].tolist() == ["44"]


def test_the_frame_that_is_checked_is_left_alone():
    frame = pd.DataFrame([GOOD["transactions"] | {"amount": "x"}], dtype="string")
    before = frame.copy()
    check_values(TABLES["transactions"], frame)
    pd.testing.assert_frame_equal(frame, before)


def test_a_missing_column_is_told_with_the_one_it_may_be():
    frame = pd.DataFrame([GOOD["transactions"]]).rename(columns={"occurred_at": "occured_on", "amount": "total"})
    renamed, lost = table_diff("transactions", list(frame.columns))
    assert "lacks the column 'occurred_at' ('occured_on' came: renamed?)" in renamed
    assert "lacks the column 'amount' (came: transaction_id, " in lost
    assert "wanted: transaction_id, member_id, occurred_at, amount" in lost


def test_a_share_of_bad_rows_above_the_limit_is_a_broken_export():
    assert pytest.approx(0.01) == MOST_BAD_ROWS
    assert too_many("members", 100, [("worse", 1)]) == []
    assert "2 of 199 rows are bad (1.0%; most often: worse)" in too_many("members", 199, [("worse", 1), ("bad", 1)])[0]


def test_a_fault_that_the_mapping_may_have_says_what_the_mapping_can_say():
    (said,) = too_many("transactions", 10, [("amount is no money; occurred_at is no time", 9), ("else", 1)])
    assert "most often: amount is no money; occurred_at is no time; amounts are whole minor units" in said
    assert said.endswith("mapping says major_units; times are ISO 8601, unless the mapping says date_format)")


def test_tables_that_are_not_the_contracts_and_tables_that_are_missing_are_both_named():
    said = unknown_tables(["members", "tickets"])
    assert ["'tickets' is no table" in said[0], said[1]] == [True, "transactions is missing"]
