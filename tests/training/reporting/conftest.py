"""A programme of two offers, and a campaign in its log whose effects are known."""

from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
import pandas as pd
import pytest

from features.decisions import DecisionLog, Outcome
from features.home import Home
from features.ingest import ingest
from features.programme import Programme

SENT = datetime(2018, 1, 10, 12, tzinfo=UTC)
NOW = datetime(2018, 6, 1, tzinfo=UTC)
GAIN = {"control": 0.0, "A": 800.0, "B": 100.0}  # margin
COST = {"control": 0, "A": 100, "B": 10}  # of a contact
REDEMPTION = 50


@pytest.fixture
def home(tmp_path):
    place = Home(tmp_path / "home")
    place.root.mkdir()
    place.settings.write_text("[experiment]\nhold_out = 0.2\nrandom_arm = 0.2\n")
    _bring(place, {})
    return place


@pytest.fixture
def bring(home):
    return partial(_bring, home)


def _bring(home, tables, n=600):
    """Ingest members who bought once long ago and once lately, and whatever is given."""
    ids = [f"m{i}" for i in range(n)]
    days = [datetime(2017, 6, 1, tzinfo=UTC), datetime(2018, 5, 1, tzinfo=UTC)]
    members = pd.DataFrame({"member_id": ids, "joined_at": datetime(2017, 1, 1, tzinfo=UTC)})
    bought = [(f"t{i}-{day:%m}", f"m{i}", day, 1000) for i in range(n) for day in days]
    names = ["transaction_id", "member_id", "occurred_at", "amount"]
    offers = {
        "offer_id": ["A", "B"], "name": ["a", "b"], "channel": "mail", "redemption_cost": REDEMPTION,
        "contact_cost": [COST["A"], COST["B"]], "valid_from": days[0], "valid_until": days[1],
    }  # fmt: skip
    frames = {"members": members, "transactions": pd.DataFrame(bought, columns=names), "offers": pd.DataFrame(offers)}
    for name, rows in tables.items():
        frames[name] = pd.concat([frames[name], rows]) if name == "transactions" else rows
    return ingest(frames, home=home, programme=Programme(), source="made", key=f"{sorted(tables)}")


def arm_of(number):
    """Hold out a fifth of the members, draw evenly for another, and let the model decide on the others."""
    return ("hold_out", "random", "model", "model", "model")[number % 5]


@pytest.fixture
def run(home, decision):
    """Decide on members once, at a quarter of a day's distance, and let each buy once within the window."""

    def run(n=600, campaign_id="spring", **changes):
        rng = np.random.default_rng(3)
        with DecisionLog(home.decisions) as log:
            for number in range(n):
                one = _decided(decision, number, rng, campaign_id=campaign_id, **changes)
                log.append([one], now=NOW)
                spends = 2000 * rng.random() + one.value + GAIN[one.treatment]
                when = one.decided_at + timedelta(days=3)
                log.record(
                    Outcome(f"o{number}", one.decision_id, None, "purchase", when, 4 * round(spends)), now=NOW
                ).result()

    return run


def _decided(decision, number, rng, **changes):
    arm = arm_of(number)
    likely = (0.1, 0.8, 0.1) if number % 2 else (0.1, 0.1, 0.8)
    chances = {"hold_out": (1.0, 0.0, 0.0), "random": (1 / 3, 1 / 3, 1 / 3), "model": likely}[arm]
    drawn = int(rng.choice(3, p=chances))
    values = {
        "member_id": f"m{number}", "decided_at": SENT + timedelta(minutes=number), "outcome": arm,
        "treatments": ("control", "A", "B"), "treatment": ("control", "A", "B")[drawn], "propensity": chances[drawn],
        "probabilities": chances, "refusals": ("", ""), "churn_probability": rng.random(),
        "value": int(rng.exponential(5000)), "uplift": (800, 100), "cost": (100, 10), "stock_prices": (0.0, 0.0),
        "net_value": (700, 90) if number % 2 else (60, 90), "lifecycle_stage": ("active", "new")[number % 3 == 0],
        "facts": {"tier": "gold"},
    }  # fmt: skip
    return decision(f"d{number}", **values | changes)
