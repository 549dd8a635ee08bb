"""The policy learned from a coffee chain's rewards app, beside no offer, a random one and the best fixed one.

At hours 0, 168, 336 and 408 every member got one of ten offers, each with probability 0.075, or none with 0.25. Learned
is from the first two waves and judged on the last two, as a notebook would: `fit_uplift`, then `evaluate_policy`, whose
outcome models and best fixed offer come from the other members each time. The outcome is 72 hours of spend less the
rewards paid, in cents; what is learned from is cut at its 99th percentile, what is judged on is not.

Each of `REWARDS_SEEDS` seeds takes another 80 % of the members, other folds and other trees: what varies between them
is the method's luck, and the sample's is in the intervals of each.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from features.schema import CONTROL
from training.logged.overlap import overlap
from training.ope import BEST_FIXED, GIVEN, NO_CONTACT, RANDOM, evaluate_policy
from training.uplift import fit_uplift

DATA = Path(__file__).parents[3] / "shared/data/rewards"
WAVES, WINDOW = (0, 168, 336, 408), 72  # hours
SHARE, TAIL = 0.8, 0.99
LOGGED = ("member_id", "treatment", "propensity", "outcome", "hour")


def decisions():
    """Write every wave as rows of what was known before it, the offer that was drawn, and what followed."""
    profile = pd.read_parquet(DATA / "profile.parquet").set_index("id")
    events = pd.read_parquet(DATA / "transcript.parquet").drop_duplicates()
    joined = pd.to_datetime(profile["became_member_on"].astype(str), format="%Y%m%d")
    base = pd.DataFrame(
        {
            "age": profile["age"].where(profile["age"] < 118),
            "income": profile["income"],
            "gender": profile["gender"],
            "tenure_days": (joined.max() - joined).dt.days,
        }
    )
    received = events[events["event"] == "offer received"]
    previous, waves = pd.Series("none", index=base.index), []
    for hour in WAVES:
        drawn = received[received["time"] == hour].set_index("person")["offer"].reindex(base.index)
        waves.append(base.join(known(events, hour, base.index)).assign(previous=previous, hour=hour, treatment=drawn))
        waves[-1]["outcome"] = earned(events, hour, base.index)
        previous = drawn.fillna(previous)
    log = pd.concat(waves).rename_axis("member_id").reset_index()
    log["propensity"] = np.where(log["treatment"].isna(), 0.25, 0.075)
    return log.assign(treatment=log["treatment"].fillna(CONTROL))


def known(events, hour, members):
    """Describe what members did before an hour."""
    before = events[events["time"] < hour]
    count = before.groupby(["event", "person"]).size()
    bought = before[before["event"] == "transaction"].groupby("person")
    visits, spend = bought.size().reindex(members, fill_value=0), bought["amount"].sum().reindex(members, fill_value=0)
    none = pd.Series(0, index=members)
    return pd.DataFrame(
        {
            "visits": visits / max(hour, 1),  # an hour: histories differ in length
            "spend": spend / max(hour, 1),
            "basket": spend / visits.where(visits > 0),
            "recency_hours": hour - bought["time"].max().reindex(members),
            "viewed": count.get("offer viewed", none).reindex(members, fill_value=0),
            "completed": count.get("offer completed", none).reindex(members, fill_value=0),
        }
    )


def earned(events, hour, members):
    """Sum up spend less rewards in the window after an hour, in cents."""
    after = events[events["time"].between(hour, hour + WINDOW, inclusive="left")].groupby("person")
    return 100 * (after["amount"].sum() - after["reward"].sum()).reindex(members, fill_value=0)


@pytest.fixture(scope="module")
def log():
    if not DATA.exists():
        pytest.skip(f"{DATA} is not there; it may not be passed on")
    return decisions()


def judge(log, rng):
    """Learn from the first two waves of some members, and judge on the last two."""
    members = log["member_id"].unique()
    some = log[log["member_id"].isin(rng.choice(members, int(SHARE * len(members)), replace=False))]
    features = [name for name in log if name not in LOGGED]
    train, test = some[some["hour"] < WAVES[2]], some[some["hour"] >= WAVES[2]]
    model = fit_uplift(
        train[features],
        train["treatment"],
        train["outcome"].clip(upper=train["outcome"].quantile(TAIL)),
        train["propensity"],
        clusters=train["member_id"],
        rng=rng,
    )
    uplift = np.column_stack([np.zeros(len(test)), model.predict(test[features])])
    policy = np.array([CONTROL, *model.offers])[np.argmax(uplift, axis=1)]
    return model, test, policy, evaluate_policy(test, policy, features=features, rng=rng)


def bench_rewards(log):
    line = "{:<6}{:<26}{:>8}{:>9}{:>28}{:>28}{:>7}".format
    print()  # noqa: T201
    print(line("seed", "learner chosen", "offers", "ESS", "against no contact, cents", "against the best fixed", "SRM"))  # noqa: T201
    gains = []
    for seed in range(int(os.environ.get("REWARDS_SEEDS", "10"))):
        model, test, policy, table = judge(log, np.random.default_rng(seed))
        row = table.loc[(GIVEN, "dr")]
        sent = len(set(policy) - {CONTROL})
        print(  # noqa: T201
            line(
                seed,
                model.record.learner,
                sent,
                f"{row['effective_sample_size']:.0f}",
                shown(row, "against_no_contact"),
                shown(row, "against_best_fixed"),
                f"{row['sample_ratio_p']:.2f}",
            )
        )
        gains.append(table.xs("dr", level="estimator")["against_no_contact"])
    print("\nwhat `evaluate_policy` says of the last seed, by DR, in cents a decision")  # noqa: T201
    columns = ["policy_value", "against_no_contact", "against_best_fixed"]
    last = table.xs("dr", level="estimator")
    print(pd.DataFrame({name: [shown(last.loc[key], name) for key in last.index] for name in columns}, last.index))  # noqa: T201
    print("\nits overlap")  # noqa: T201
    print(overlap(test, policy).query("policy_share > 0").round(2).to_string())  # noqa: T201
    found = pd.DataFrame(gains)[[NO_CONTACT, RANDOM, BEST_FIXED, GIVEN]]
    found["policy less best fixed"] = found[GIVEN] - found[BEST_FIXED]
    reach = t.ppf(0.975, len(found) - 1) * found.std() / np.sqrt(len(found))
    print("\nover all seeds, against no contact, cents by DR: mean and its 95 % interval between seeds")  # noqa: T201
    for name, mean in found.mean().items():
        print(f"{name:<24}{mean:8.0f} [{mean - reach[name]:.0f}, {mean + reach[name]:.0f}]")  # noqa: T201


def shown(row, measure):
    return f"{row[measure]:.0f} [{row[f'{measure}_lower']:.0f}, {row[f'{measure}_upper']:.0f}]"
