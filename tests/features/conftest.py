"""A small programme whose members do everything that makes features hard: refunds, two visits a day, midnights."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import ibis
import numpy as np
import pandas as pd
import pytest

from features.as_of.computing import in_session
from features.home import Home
from features.ingest import ingest
from features.programme import Programme
from features.warehouse import quietly

# A clock change lies in the 28 days before it, in America/New_York and in Europe/Berlin
AS_OF = datetime(2017, 4, 2, 4, tzinfo=UTC)  # a local midnight in America/New_York
LATE = (timedelta(microseconds=-1), timedelta(0), timedelta(microseconds=1), timedelta(days=3))  # around as_of


def frames(rng, *, as_of=AS_OF, members=25, days=130):
    """Make the tables of a company; rows fall before, at, and after `as_of`."""
    ids = [f"m{number:02d}" for number in range(members)]
    joined = [as_of - timedelta(days=int(d)) for d in rng.integers(1, days + 30, members)]
    joined[-2:] = [as_of - timedelta(days=9), as_of]  # one who never does anything, one who joins too late
    return {
        "members": pd.DataFrame({"member_id": ids, "joined_at": joined}),
        "transactions": _transactions(rng, ids[:-2], as_of, days),
        "contacts": _contacts(rng, ids[:-3], as_of, days),
        "redemptions": _redemptions(rng, ids[:-3], as_of, days),
    }


def everything(rng, *, as_of=AS_OF, days=130):
    """Make the same tables with every optional column, answers to members' own contacts, events and subscriptions."""
    tables = frames(rng, as_of=as_of, days=days)
    lines, ids = tables["transactions"], tables["members"]["member_id"].tolist()
    return tables | {
        "members": _attributes(tables["members"]),
        "transactions": lines.assign(
            channel=pd.array(
                rng.choice(["shop", "web", "app", None], len(lines), p=[0.3, 0.5, 0.1, 0.1]), dtype="string"
            ),
            margin=pd.array(np.where(rng.random(len(lines)) < 0.1, None, lines["amount"] // 3), dtype="Int64"),
        ),
        "redemptions": _answers(rng, tables["contacts"], as_of, days),
        "events": _events(rng, ids[:-2], as_of, days),
        "subscriptions": _subscriptions(rng, ids[:-2], as_of, days),
    }


def _attributes(members):
    """Say where members live, who they are and whether they want offers, of some nothing."""
    rng = np.random.default_rng(len(members))

    def drawn(values, kind):
        return pd.array(rng.choice(np.array(values, dtype=object), len(members)), dtype=kind)

    return members.assign(
        personalisation=drawn([True, False, None], "boolean"),
        region=drawn(["north", "south", None], "string"),
        gender=drawn(["f", "m", "x", None], "string"),
    )


def _times(rng, size, as_of, days):
    """Spread times over the days, with many in the hour around midnight, and some at the very edge of `as_of`."""
    seconds = rng.integers(0, days * 86_400, size)
    edge = rng.integers(0, days, size) * 86_400 + rng.integers(-1800, 1800, size)
    times = [as_of - timedelta(seconds=int(s)) for s in np.where(rng.random(size) < 0.3, edge, seconds)]
    for place, step in enumerate(LATE[: size // 2]):
        times[place] = as_of + step
    return times


def _transactions(rng, ids, as_of, days):
    visits = 12 * len(ids)
    times = _times(rng, visits, as_of, days)
    # of every member another habit: the last ones come so seldom that they have one visit, or none
    weights = np.geomspace(1, 0.01, len(ids))
    who = rng.choice(ids, visits, p=weights / weights.sum())
    rows = [
        {
            "transaction_id": f"t{number % (visits - 40)}",  # some ids are used again: by another member, or days later
            "member_id": who[number],
            "occurred_at": times[number] + timedelta(seconds=40 * line if number > len(LATE) else 0),
            "amount": int(rng.choice([-500, 0, 99, 250, 1299, 4000])),
            "discount": rng.choice([0, 50, None]),
            "quantity": int(rng.integers(1, 4)),
            "category": rng.choice(["meat", "fish", "bread", None]),
        }
        for number in range(visits)
        for line in range(int(rng.integers(1, 4)))
    ]
    return pd.DataFrame(rows).astype({"discount": "Int64", "category": "string"})


def _contacts(rng, ids, as_of, days):
    times = _times(rng, 3 * len(ids), as_of, days)
    return pd.DataFrame(
        {
            "contact_id": [f"c{number}" for number in range(len(times))],
            "member_id": rng.choice(ids, len(times)),
            "treatment": rng.choice(["control", "A", "B"], len(times)),
            "contacted_at": times,
        }
    )


def _redemptions(rng, ids, as_of, days):
    times = _times(rng, 2 * len(ids), as_of, days)
    return pd.DataFrame(
        {
            "member_id": rng.choice(ids, len(times)),
            "offer_id": rng.choice(["A", "B"], len(times)),
            "occurred_at": times,
            "contact_id": pd.array(rng.choice(["c1", "c2", "c3", None], len(times)), dtype="string"),
        }
    )


def _answers(rng, contacts, as_of, days):
    """Let some answer a contact of the member's own, some one of another member, and some none."""
    answered = contacts.sample(2 * len(contacts) // 3, replace=True, random_state=rng, ignore_index=True)
    contact_id = np.where(rng.random(len(answered)) < 0.2, "c1", answered["contact_id"])
    return pd.DataFrame(
        {
            "member_id": answered["member_id"],
            "offer_id": rng.choice(["A", "B"], len(answered)),
            "occurred_at": _times(rng, len(answered), as_of, days),
            "contact_id": pd.array(np.where(rng.random(len(answered)) < 0.3, None, contact_id), dtype="string"),
        }
    )


def _events(rng, ids, as_of, days):
    times = _times(rng, 20 * len(ids), as_of, days)
    kinds = ["login", "visit", "view", "support", "survey", "points_earned", "points_burnt", "points_expired", "other"]
    return pd.DataFrame(
        {
            "event_id": [f"e{number:04d}" for number in rng.permutation(len(times))],
            "member_id": rng.choice(ids, len(times)),
            "occurred_at": pd.Series(times).dt.floor(rng.choice(["D", "us"])),  # some worlds have ties
            "kind": rng.choice(kinds, len(times)),
            "value": pd.array(rng.choice([None, 0, 3, 10, 40, 100], len(times)), dtype="Int64"),
        }
    )


def _subscriptions(rng, ids, as_of, days):
    started = pd.Series(_times(rng, 2 * len(ids), as_of, days))
    length = pd.to_timedelta(rng.choice([7, 28, 90, 365], len(started)), unit="D")

    def sometimes(share):
        after = pd.to_timedelta(rng.integers(0, days * 86_400, len(started)), unit="s")
        return (started + after).where(rng.random(len(started)) < share)

    return pd.DataFrame(
        {
            "member_id": rng.choice(ids[3:], len(started)),  # some members have no subscription
            "started_at": started,
            "ends_at": started + length,
            "plan": pd.array(rng.choice(["small", "large", None], len(started)), dtype="string"),
            "price": pd.array(rng.choice([999, 1999, None], len(started)), dtype="Int64"),
            "renewed_at": sometimes(0.4),
            "cancelled_at": sometimes(0.4),
            "auto_renew": pd.array(rng.choice([True, False, None], len(started)), dtype="boolean"),
        }
    )


@pytest.fixture(scope="session")
def company(tmp_path_factory):
    """Give what makes small companies: their tables, their ingested home, their snapshot in memory."""
    backend = ibis.duckdb.connect()

    def computed(warehouse, as_of, programme):
        with quietly():
            tables = {n: backend.read_parquet(warehouse.path(n), table_name=n) for n in warehouse.tables}
            rows = in_session(backend.con, tables, programme)(as_of)
            return rows.to_arrow_table().to_pandas().set_index("member_id").sort_index()

    def brought(tables, *, home=None, programme=None, key="batch"):
        home = home or Home(tmp_path_factory.mktemp("home"))
        return ingest(tables, home=home, programme=programme or Programme(), source="test", key=key)

    def features(tables, *, as_of=AS_OF, programme=None):
        programme = programme or Programme()
        return computed(brought(tables, programme=programme), as_of, programme)

    return SimpleNamespace(as_of=AS_OF, frames=frames, everything=everything, ingest=brought, snapshot=features)
