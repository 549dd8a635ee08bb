"""From files to `holdfast report campaign`: a coffee chain's rewards app, in which everybody drew one of ten offers.

The files are written, ingested, and learned from until the last wave; the last two waves are reported. A champion that
had learned before the last wave stands beside the best fixed offer on it. Beside the report's figures stand those of a
difference of plain means from the raw files. At hours 0, 168, 336 and 408 each offer came with probability 0.075, none
with 0.25; the outcome is 72 hours of spend, less the rewards paid.
"""

import os
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.home import Home
from features.ingest import ingest_source
from features.programme import read_programme
from features.saying import saying
from features.schema import CONTROL
from features.snapshots import build
from features.store import open_store
from training.pipeline import train
from training.preparation import Settings
from training.promotion import Verdict
from training.releases.ledger import promote
from training.reporting.campaign import report_campaign
from training.reporting.sheet import sheets

pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")

DATA = Path(__file__).parents[3] / "shared/data/rewards"
WAVES, WINDOW = (0, 168, 336, 408), 72  # hours
BEGAN = datetime(2018, 7, 27, tzinfo=UTC)
NOW = BEGAN + timedelta(days=40)
SETTINGS = """
name = "rewards"
margin_rate = 1.0
horizon_days = 3
snapshot_days = 1
history_days = 1
test_days = 4
activity_days = 17
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    if not DATA.exists():
        pytest.skip(f"{DATA} is not there; it may not be passed on")
    files, home = tmp_path_factory.mktemp("files"), Home(tmp_path_factory.mktemp("home"))
    for name, table in tables().items():
        table.to_parquet(files / f"{name}.parquet", index=False)
    home.settings.write_text(SETTINGS)
    ingest_source(home, str(files))
    return home


def tables():
    """Write the app's profile, portfolio and transcript as the tables that a company brings."""
    profile = pd.read_parquet(DATA / "profile.parquet")
    offers = pd.read_json(DATA / "portfolio.json", lines=True)
    events = pd.read_parquet(DATA / "transcript.parquet").drop_duplicates()
    events = events.assign(occurred_at=BEGAN + pd.to_timedelta(events["time"], unit="h"), member_id=events["person"])
    bought, redeemed = (events[events["event"] == kind] for kind in ("transaction", "offer completed"))
    ends = {"valid_from": BEGAN, "valid_until": NOW}
    return {
        "members": pd.DataFrame(
            {
                "member_id": profile["id"],
                "joined_at": pd.to_datetime(profile["became_member_on"].astype(str), format="%Y%m%d", utc=True),
                "gender": profile["gender"],
                "birth_year": BEGAN.year - profile["age"].where(profile["age"] < 118).astype("Int64"),
            }
        ),
        "transactions": bought[["member_id", "occurred_at"]].assign(
            transaction_id=[f"t{i}" for i in range(len(bought))], amount=np.rint(100 * bought["amount"]).astype(int)
        ),
        "offers": pd.DataFrame(
            {
                "offer_id": offers["id"],
                "name": [f"{row.offer_type} {row.difficulty}/{row.reward}" for row in offers.itertuples()],
                "channel": "app",
                "contact_cost": 0,
                "redemption_cost": 100 * offers["reward"],
                **ends,
            }
        ),
        "contacts": pd.concat([wave(events, profile["id"], hour) for hour in WAVES]),
        "redemptions": redeemed[["member_id", "occurred_at"]].assign(offer_id=redeemed["offer"]),
    }


def wave(events, members, hour):
    """Write who drew what at an hour."""
    received = events[(events["event"] == "offer received") & (events["time"] == hour)].set_index("person")["offer"]
    drawn = received.reindex(members).fillna(CONTROL)
    return pd.DataFrame(
        {
            "contact_id": [f"{hour}-{member}" for member in members],
            "member_id": members.to_numpy(),
            "treatment": drawn.to_numpy(),
            "contacted_at": BEGAN + timedelta(hours=hour),
            "campaign_id": f"wave-{hour}",
            "propensity": np.where(drawn == CONTROL, 0.25, 0.075),
        }
    )


def plain_means(hour):
    """Give each offer's spend in the window above that of who drew none, in cents, from the raw files."""
    raw = tables()
    drawn = raw["contacts"].query("campaign_id == @name", local_dict={"name": f"wave-{hour}"}).set_index("member_id")
    start = BEGAN + timedelta(hours=hour)
    bought = raw["transactions"]
    within = bought[(bought["occurred_at"] >= start) & (bought["occurred_at"] < start + timedelta(hours=WINDOW))]
    spend = within.groupby("member_id")["amount"].sum().reindex(drawn.index, fill_value=0)
    means = spend.groupby(drawn["treatment"]).mean()
    return (means - means[CONTROL]).drop(CONTROL)


def learned(home):
    """Learn until the last wave, and let that release be champion, whatever the gate says."""
    build(home, progress=lambda *_: None)
    open_store(home).apply()
    until = BEGAN + timedelta(hours=WAVES[-1])
    settings = Settings(trials=1, as_of=until)
    manifest, _ = train(home, settings=settings, progress=lambda *_: None)
    verdict = Verdict(promote=True, said=(saying("a benchmark"),))
    promote(home, manifest.release_id, expected=None, who="bench", now=until, verdict=verdict)


def bench_rewards_loop(home):
    started = time.perf_counter()
    if os.environ.get("HOLDFAST_REWARDS_TRAIN", "1") == "1":
        learned(home)
    trained = time.perf_counter()
    programme, report = read_programme(home.settings), partial(report_campaign, home, now=NOW)
    for hour in WAVES[2:]:
        found = report(f"wave-{hour}", rng=np.random.default_rng(0))
        print(f"\n{'offer':<36}{'report, cents a contact':>30}{'plain means':>14}")  # noqa: T201
        rivals = plain_means(hour)
        for offer, effect in found.groups["offer"].items():
            margin = effect.incremental_margin
            shown = f"{margin.value:.0f} [{margin.lower:.0f}, {margin.upper:.0f}]"
            print(f"{offer:<36}{shown:>30}{rivals[offer]:>14.0f}")  # noqa: T201
        for sheet in sheets(found, programme):
            print(f"\n{sheet.markdown()}")  # noqa: T201
    took = time.perf_counter() - trained
    print(f"\nlearned in {trained - started:.0f} s, two reports in {took:.0f} s")  # noqa: T201
