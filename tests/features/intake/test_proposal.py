"""`holdfast ingest --init`: the first mapping is right where the files are clear, and says so where they are not."""

import tomllib

import pandas as pd
import pytest

from features.errors import ContractError, NotFoundError
from features.home import Home
from features.ingest import bring, write_proposal
from features.intake.look import look_at
from features.intake.mapping import read_mapping
from features.intake.proposal import propose
from features.intake.sources import Source


@pytest.fixture
def shop(tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    customers = "CustomerNo;SignupDate;City\n0001;2024-01-01;Köln\n0002;2024-01-02;Bonn\n"
    (folder / "customers.csv").write_bytes(customers.encode("cp1252"))
    orders = "order_id,customer_no,order_date,net_total\nA-1,0001,2024-02-25,12.50\nA-2,0002,2024-02-03,7\n"
    (folder / "orders.csv").write_text(orders)
    return folder


def test_clear_files_are_ingested_by_the_proposal_as_it_is(shop, tmp_path):
    write_proposal(shop, tmp_path / "mapping.toml")
    mapping = read_mapping(tmp_path / "mapping.toml")
    held = bring(Home(tmp_path / "home"), Source(folder=shop), mapping).warehouse
    assert held.frame("members")["City"].tolist() == ["Köln", "Bonn"]
    assert held.frame("transactions")["amount"].tolist() == [1250, 700]
    assert held.frame("transactions")["member_id"].tolist() == ["0001", "0002"]


def test_every_guess_says_why(shop):
    text = propose(shop)
    assert 'amount = "net_total"  # by its name and its values; 7 to 12.5, 0% missing' in text
    assert "major_units = true  # net_total has values such as 12.5" in text
    assert "# City: kept as it is; Bonn to K\\xf6ln" in text
    assert "not in the files: say yours" in text


def test_days_and_months_that_look_alike_are_not_decided(shop, tmp_path):
    (shop / "orders.csv").write_text("order_id,customer_no,date,total\nA-1,0001,03/04/2024,12.50\n")
    text = write_proposal(shop, tmp_path / "mapping.toml")
    assert '# date_format = "%d/%m/%Y"  # of date; %m/%d/%Y fits as well: decide' in text
    mapping = read_mapping(tmp_path / "mapping.toml")
    with pytest.raises(ContractError, match="occurred_at is no time"):
        bring(Home(tmp_path / "home"), Source(folder=shop), mapping)


def test_one_day_above_the_twelfth_decides(shop):
    (shop / "orders.csv").write_text("order_id,customer_no,date,total\nA-1,0001,03/25/2024,12.50\n")
    assert '\ndate_format = "%m/%d/%Y"  # of date' in propose(shop)


def test_a_column_whose_days_are_clear_decides_for_the_ones_beside_it(shop):
    (shop / "contracts.csv").write_text("customer_no,start,end\n0001,01/02/2024,02/02/2024\n0002,02/02/2024,04/25/2024")
    assert tomllib.loads(propose(shop))["subscriptions"]["date_format"] == "%m/%d/%Y"


def test_times_are_shown_from_the_first_to_the_last_however_they_are_written(shop):
    rows = "A-1,0001,25.03.2024 08:30,1\nA-2,0001,01.04.2024 09:00,1\nA-3,0002,31.12.2023 10:00,1\n"
    (shop / "orders.csv").write_text(f"order_id,customer_no,date,total\n{rows}")
    assert "2023-12-31 10:00:00 to 2024-04-01 09:00:00, 0% missing" in propose(shop)


def test_contracts_are_subscriptions_by_their_usual_names(shop):
    row = "C-1;0001;2024-01-01;2024-02-01;gold;7.50;2024-01-20"
    (shop / "contracts.csv").write_text(f"ContractNo;CustomerNo;Start;End;Tariff;Fee;Cancelled\n{row}\n")
    columns = tomllib.loads(propose(shop))["subscriptions"]["columns"]
    assert columns == {
        "member_id": "CustomerNo", "started_at": "Start", "ends_at": "End", "plan": "Tariff", "price": "Fee",
        "cancelled_at": "Cancelled",
    }  # fmt: skip


@pytest.fixture(scope="module")
def year():
    """A year's orders in order, of which the first thousands are of the first days."""
    days = pd.date_range("2024-01-01", "2024-12-31", periods=200_000).strftime("%d/%m/%Y")
    return pd.DataFrame({"order_id": range(len(days)), "customer_no": 7, "date": days, "total": "12.50", "note": ""})


def test_a_long_file_in_order_is_looked_at_further_on(shop, year):
    year.to_csv(shop / "orders.csv", index=False)
    assert '\ndate_format = "%d/%m/%Y"  # of date\n' in propose(shop)
    assert "0 to 199999, 0% missing" in propose(shop)


@pytest.mark.parametrize("row", [0, 199_990])
def test_a_long_file_whose_values_go_over_lines_is_looked_at_where_it_can_be(shop, year, row):
    notes = year["note"].where(~year.index.isin([row, row + 1]), '1\n2,3"4,5,6,7,8,9\n,,,,,,')
    year.assign(note=notes).to_csv(shop / "orders.csv", index=False)
    assert '\ndate_format = "%d/%m/%Y"  # of date\n' in propose(shop)
    assert 'amount = "total"  # by its name and its values; 12.5 to 12.5, 0% missing' in propose(shop)


def test_waves_of_mailings_are_contacts_and_a_promotion_without_costs_says_what_it_lacks(tmp_path):
    sent = "person,offer,when\n" + "".join(f"p{n},ten_off,01/08/2018 00:00\n" for n in range(50))
    (tmp_path / "mailshots.csv").write_text(sent.replace("01/08", "15/08", 1))
    (tmp_path / "promotions.csv").write_text("id,difficulty\nten_off,10\n")
    (tmp_path / "purchases.csv").write_text("person,when,amount\np1,15/08/2018 10:00,3.5\n")
    text = propose(tmp_path)
    assert 'contacted_at = "when"' in text
    wanted = "name, channel, contact_cost, redemption_cost, valid_from, valid_until"
    assert f"#   if it is your offers, bring columns for {wanted} as well" in text
    assert tomllib.loads(text)["contacts"]["date_format"] == "%d/%m/%Y %H:%M"


def test_offers_without_their_costs_are_laid_out_with_what_is_to_be_said(shop, tmp_path):
    (shop / "offers.csv").write_text("id,title,medium,start,end,cost\nten,Ten off,app,2024-01-01,2024-12-31,0.05\n")
    mailed = "customer_no,coupon,sent\n" + "".join(f"000{n},{'ten' * (n % 2)},2024-02-0{n}\n" for n in (1, 2))
    (shop / "mailings.csv").write_text(mailed)
    text = propose(shop)
    assert '# redemption_cost = "?"  # needed' in text
    assert "wanted: money, or the same for all: \"'5'\"" in text
    said = text.replace('# contact_cost = "?"', 'contact_cost = "cost"')
    said = said.replace('# redemption_cost = "?"', "redemption_cost = \"'5'\"").replace("# major_units", "major_units")
    (tmp_path / "mapping.toml").write_text(said)
    brought = bring(Home(tmp_path / "home"), Source(folder=shop), read_mapping(tmp_path / "mapping.toml"))
    (offer,) = brought.warehouse.frame("offers").to_dict("records")
    assert offer["channel"] == "app"
    assert (offer["contact_cost"], offer["redemption_cost"]) == (5, 500)
    assert sorted(brought.warehouse.frame("contacts")["treatment"]) == ["control", "ten"]


def test_members_whose_file_does_not_say_when_they_joined_did_so_with_their_first_purchase(shop, tmp_path):
    (shop / "customers.csv").write_text("CustomerNo,City\n0001,Bonn\n0002,Berlin\n")
    write_proposal(shop, tmp_path / "mapping.toml")
    brought = bring(Home(tmp_path / "home"), Source(folder=shop), read_mapping(tmp_path / "mapping.toml"))
    assert [f"{time:%m-%d}" for time in brought.warehouse.frame("members")["joined_at"]] == ["02-25", "02-03"]


def test_a_file_without_names_is_shown_column_by_column(tmp_path):
    (tmp_path / "cd.txt").write_text(" 00004 0001 19970101  2   29.33\r\n 00021 0002 19970112  3   63.34\r\n")
    values = tomllib.loads(propose(tmp_path))
    assert values["transactions"]["names"] == [f"column_{number}" for number in range(1, 6)]
    assert values["transactions"]["separator"] == "whitespace"
    assert values["members"]["columns"]["joined_at"] == "first transaction"
    assert '# member_id = "?"  # needed, and nothing is like it; wanted: id' in propose(tmp_path)
    assert "# column_4: kept as it is; 2 to 3" in propose(tmp_path)
    assert values["transactions"]["columns"]["occurred_at"] == "column_3"
    assert 'amount = "column_5"  # by its values alone: no other column holds such; 29.33 to 63.34' in propose(tmp_path)


def test_of_files_in_another_language_dates_and_cents_are_told_by_their_values(tmp_path):
    terms = "Rufnummer;Beginn;Ende;Preis\n0171;01.12.2023;31.12.2023;9,90\n0172;13.12.2023;12.01.2024;19,90\n"
    bills = "Rechnung;Rufnummer;Datum;Betrag\nR1;0171;25.02.2024;1.012,50\nR2;0172;03.02.2024;7,00\n"
    (tmp_path / "vertraege.csv").write_text(terms * 9)  # the longer file, but it has two times
    (tmp_path / "rechnungen.csv").write_text(bills)
    values = tomllib.loads(propose(tmp_path))["transactions"]
    assert values == {
        "file": "rechnungen.csv", "separator": ";", "decimal": ",", "major_units": True, "date_format": "%d.%m.%Y",
        "columns": {"transaction_id": "row hash", "occurred_at": "Datum", "amount": "Betrag"},
    }  # fmt: skip
    assert "# Rufnummer: kept as it is; 171 to 172" in propose(tmp_path)
    assert "# vertraege.csv is like no table of the contract (columns: Rufnummer, Beginn, Ende, Preis)" in propose(
        tmp_path
    )


def test_ids_that_look_like_numbers_beyond_all_bounds_are_ids(tmp_path):
    (tmp_path / "people.csv").write_text("id,became_member_on\n78e2147483648,20170212\n1e99,20170213\n")
    assert tomllib.loads(propose(tmp_path))["transactions"]["file"] == "people.csv"


def test_lines_of_a_shop_without_totals_become_a_product(tmp_path):
    lines = {"InvoiceNo": ["1", "2"], "CustomerID": [17850.0, None], "InvoiceDate": pd.Timestamp("2024-01-01")}
    frame = pd.DataFrame(lines | {"Quantity": [2, -1], "UnitPrice": [1.25, 3.0]})
    frame.to_parquet(tmp_path / "lines.parquet")
    values = tomllib.loads(propose(tmp_path))["transactions"]
    assert (values["columns"]["amount"], values["guests"], values["major_units"]) == (
        "Quantity * UnitPrice",
        True,
        True,
    )
    assert "quantity" not in values["columns"]  # the contract's is never negative


def test_what_a_till_exports_is_read_with_its_signs_its_groups_and_its_short_years(tmp_path):
    rows = 'aX1,C1,01/25/24,"$1,012.50","$1,011.50"\naX2,C2,02/03/24,($12.50),$12.50\n'
    (tmp_path / "till.csv").write_text(f"Transaction ID,Customer ID,Date,Gross Sales,Net Sales\n{rows}")
    write_proposal(tmp_path, tmp_path / "mapping.toml")
    held = bring(Home(tmp_path / "home"), Source(folder=tmp_path), read_mapping(tmp_path / "mapping.toml")).warehouse
    assert held.frame("transactions")["amount"].tolist() == [101150, 1250]
    assert [f"{time:%Y-%m-%d}" for time in held.frame("transactions")["occurred_at"]] == ["2024-01-25", "2024-02-03"]


def test_what_a_web_shop_exports_says_its_currency_and_knows_customers_by_their_mail(tmp_path):
    first = "#1,ann@example.com,usd,26.60,2024-01-05 10:00:00 -0500"
    second = "#2,bob@example.com,usd,12.50,2024-01-06 10:00:00 -0500"
    (tmp_path / "orders.csv").write_text(f"Name,Email,Currency,Total,Created at\n{first}\n{second}\n")
    values = tomllib.loads(write_proposal(tmp_path, tmp_path / "mapping.toml"))
    assert values["currency"] == "USD"
    assert values["transactions"]["columns"] == {
        "transaction_id": "row hash", "member_id": "Email", "occurred_at": "Created at", "amount": "Total",
        "currency": "Currency",
    }  # fmt: skip
    (tmp_path / "orders.csv").write_text(
        f"Name,Email,Currency,Total,Created at\n{first}\n{second.replace('usd', 'eur')}"
    )
    assert '# currency = "USD" ' in propose(tmp_path)
    assert "the files say EUR, USD: say yours" in propose(tmp_path)
    with pytest.raises(ContractError, match="currency is EUR, the programme's is USD"):
        bring(Home(tmp_path / "home"), Source(folder=tmp_path), read_mapping(tmp_path / "mapping.toml"))


def test_a_currency_that_is_no_code_is_not_proposed(shop):
    (shop / "orders.csv").write_text("order_id,customer_no,date,total,currency code\nA-1,0001,2024-02-25,1,US Dollar\n")
    text = propose(shop)
    assert "not in the files: say yours" in text
    assert "# currency code: kept as it is; US Dollar to US Dollar" in text


@pytest.mark.parametrize(
    ("came", "form"),
    [
        (["1,234", "987"], {"decimal": "."}),
        (["1,234", "2,345"], {"decimal": "."}),  # thousands: hardly ever has money three digits of cents
        (["1.234,50", "987,00"], {"decimal": ","}),
        (["$5", "$6.25"], {"symbol": "$"}),
        (["5 €", "1.006,25 €"], {}),  # one of two says no cents: too little to go by
        (["12,5 €", "1.006,25 €"], {"symbol": "€", "decimal": ","}),
        (["$5", "€6"], {}),
        (["a,b", "c"], {}),
    ],
)
def test_how_numbers_are_written_is_told_where_they_tell_it(tmp_path, came, form):
    pd.DataFrame({"member_id": "m1", "x": came}).to_csv(tmp_path / "some.csv", index=False)
    assert look_at(tmp_path / "some.csv").form == form


HOSTILE = ['a"b', "a\\nb", "x = 1", "# no", "'''", "ü\u2028", "\u202e", "[members]", "a\tb"]


def test_names_that_try_to_break_the_file_do_not(tmp_path):
    frame = pd.DataFrame([HOSTILE], columns=HOSTILE).assign(order_id="1", user_id='"\n[x]', date="2024-01-01", total=1)
    frame.to_parquet(tmp_path / "orders.parquet")
    (tmp_path / 'x"\n[members].csv').write_text('"x""\n[y]"\n1\n')
    assert set(tomllib.loads(propose(tmp_path))) == {"members", "transactions"}


def test_a_proposal_overwrites_nothing_and_needs_a_file_to_look_at(shop, tmp_path):
    write_proposal(shop, tmp_path / "mapping.toml")
    with pytest.raises(ContractError, match="is there already; move it away"):
        write_proposal(shop, tmp_path / "mapping.toml")
    with pytest.raises(NotFoundError, match="to look at"):
        propose(tmp_path / "nowhere")
    (tmp_path / "orders.xlsx").touch()
    with pytest.raises(NotFoundError, match=r"to look at; save orders\.xlsx as CSV"):
        propose(tmp_path)


def test_who_was_sent_nothing_is_control_where_a_file_leaves_it_empty(shop, tmp_path):
    sent = "MailID;CustomerNo;Coupon;SentAt\nc1;0001;A;2024-01-05\nc2;0002;;2024-01-05\nc3;0002; ;2024-01-05\n"
    (shop / "mailings.csv").write_text(sent)
    (shop / "coupons.csv").write_text("CouponID;Name;Channel\nA;ten off;mail\n")
    text = propose(shop)
    assert "treatment = \"Coupon else 'control'\"" in text
    (tmp_path / "m.toml").write_text(text)
    held = bring(Home(tmp_path / "home"), Source(folder=shop), read_mapping(tmp_path / "m.toml")).warehouse
    sent = held.frame("contacts").sort_values("contact_id")["treatment"]
    assert sent.tolist() == ["A", "control", "control"]
