"""A tiny release of real boosters on random data, and a feature source in memory."""

import json
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
import xgboost as xgb

from features.errors import ContractError
from features.files import sha256
from features.home import Home
from features.offers import catalogue_of
from features.programme import Campaign, Policy, Programme
from features.rules import known_facts
from serving.decide import Decider, released_offers
from serving.shadow.keeper import command_of
from training.artifacts import Models, load_release, write_release
from training.calibration import Platt
from training.learning.effects import EffectBands, Effects, Student
from training.policy import HELD_OUT, arms
from training.promotion import Verdict
from training.releases.ledger import champion_id, promote
from training.releases.manifest import FeatureSpec, Manifest, OfferSpec, identity

NOW = datetime(2017, 12, 1, 12, tzinfo=UTC)
AS_OF = NOW - timedelta(days=2)
FEATURES = (
    FeatureSpec("recency_days", "Days since the last visit.", "days", 0),
    FeatureSpec("visits_28d", "Visits in the last 28 days.", "visits", 0),
    FeatureSpec("spend_28d", "Spend in the last 28 days.", "money", 0),
    FeatureSpec("weekend_share_84d", "Share of visits on weekends.", "share", 0, 1),
)
OFFERS = (
    OfferSpec("A", "Coupon", "mail", 50, 100, "2017-01-01T00:00:00+00:00", "2018-01-01T00:00:00+00:00"),
    OfferSpec("B", "Points", "app", 5, 20, "2017-01-01T00:00:00+00:00", "2018-01-01T00:00:00+00:00"),
    OfferSpec("OLD", "Gone", "mail", 0, 0, "2016-01-01T00:00:00+00:00", "2017-01-01T00:00:00+00:00"),
)
PROGRAMME = Programme(replay_from=NOW)


@dataclass(frozen=True)
class Row:
    """One answer of the store, as features.store.MemberFeatures, whose module takes seconds to import."""

    member_ids: tuple
    X: np.ndarray
    known: np.ndarray
    segment: tuple
    lifecycle_stage: tuple
    event_timestamp: tuple
    facts: dict


class Memory:
    """Members m0, m1, ... with random features; "down" makes the read fail, "infinite" has an infinite feature.

    Those whose id ends in "no" opted out.
    """

    def online(self, member_ids, features, *, facts):
        if features != tuple(feature.name for feature in FEATURES):
            raise ContractError(f"{features}: not among the numbers that a decision reads")
        if "down" in member_ids:
            raise ConnectionError(f"cannot read {member_ids}")
        known = np.array([name.startswith("m") or name == "infinite" for name in member_ids])
        X = np.array(
            [
                random_row(name) if fine else [np.nan] * len(features)
                for name, fine in zip(member_ids, known, strict=True)
            ]
        )
        X[[name == "infinite" for name in member_ids], 0] = np.inf
        words = [("loyal", "active", AS_OF) if fine else (None, None, None) for fine in known]
        told = {name: fact(name, member_ids, X, known) for name in facts}
        return Row(tuple(member_ids), X.astype(np.float32), known, *zip(*words, strict=True), told)

    def vectors(self, member_ids):
        """Of nobody is there a whole vector."""
        return replace(self.online(member_ids, tuple(one.name for one in FEATURES), facts=()), known=np.zeros(1))

    def erase(self, member_ids):
        """There is nothing to erase."""
        return 0 * len(member_ids)


def fact(name, member_ids, X, known):
    if known_facts().get(name) == "number":
        return X[:, [feature.name for feature in FEATURES].index(name)].astype(np.float64)
    said = {"lifecycle_stage": "active", "segment": "loyal"}
    words = [said.get(name, "no" if one.endswith("no") else "yes") for one in member_ids]
    return np.array([word if fine else None for word, fine in zip(words, known, strict=True)], dtype=object)


def random_row(member_id):
    rng = np.random.default_rng(sum(member_id.encode()) * 31 + len(member_id))
    return [rng.integers(0, 60), rng.integers(0, 9), rng.integers(0, 90_00), rng.random()]


def booster(y, X, objective):
    return xgb.train({"objective": objective, "max_depth": 3, "nthread": 1}, xgb.DMatrix(X, y, nthread=1), 20)


def effects(margin, redemption, X):
    """Effects on margin as given, on retention none, and known for certain; chances of redemption as given."""
    n, said = margin.shape[1], booster(np.hstack([margin, 0 * margin, redemption]), X, "reg:squarederror")
    student = Student(said, (0.0,) * 3 * n, (1.0,) * 3 * n, (-1e6,) * 2 * n + (0.0,) * n, (1e6,) * 2 * n + (1.0,) * n)
    sure = (EffectBands(edges=(), effect=(0.0,), error=(0.0,)),) * n
    return Effects(student, sure, sure)


@pytest.fixture(scope="session")
def release_root(tmp_path_factory):
    return made_release(tmp_path_factory.mktemp("releases"), np.random.default_rng(7))


@pytest.fixture(scope="session")
def other_root(tmp_path_factory):
    """Another release of the same features and offers, which scores otherwise."""
    return made_release(tmp_path_factory.mktemp("others"), np.random.default_rng(8))


@pytest.fixture
def home(tmp_path, release_root, other_root, promoted):
    """Two releases, of which the first is champion."""
    home = Home(tmp_path)
    for root in (release_root, other_root):
        shutil.copytree(root, home.releases / root.name)
    promoted(home, release_root.name)
    return home


def made_release(folder, rng):
    X = np.array([random_row(f"m{i}") for i in range(800)], dtype=np.float32)
    churned = (rng.random(800) < 1 / (1 + np.exp(-(X[:, 0] - 30) / 10))).astype(float)
    effect = np.column_stack([40 * X[:, 0] - 900, 10 * X[:, 1] + 10, np.full(800, 5000.0)])
    models = Models(
        churn=booster(churned, X, "binary:logistic"),
        value=booster(X[:, 2], X, "reg:squarederror"),
        uplift=effects(effect, np.column_stack([X[:, 0] / 100, 0 * X[:, 0], np.full(800, 0.5)]), X),
        calibration=Platt(1.0, 0.0),
    )
    manifest = Manifest(
        features=FEATURES,
        offers=OFFERS,
        programme=PROGRAMME.model_dump(mode="json"),
        reference_as_of=("2017-11-01",),
        experiment="simulated",
        evidence={},
    )
    return folder / write_release(folder, manifest, models, X[:64]).release_id


@pytest.fixture(scope="session")
def decider(release_root):
    release = load_release(release_root)
    return Decider(release, catalogue_of(released_offers(release), PROGRAMME))


@pytest.fixture(scope="session")
def constrained(decider):
    """Decide under caps, a rule, a budget, stock, precedence and a fallback."""
    offers = {offer.offer_id: offer for offer in decider.catalogue.offers}
    bound = [
        replace(offers["A"], stock=40, min_days_between_contacts=3, excludes=("B",), eligible="spend_28d > 2000"),
        replace(offers["B"], eligible="lifecycle_stage in ('active', 'new')", points=10),
        offers["OLD"],
        replace(offers["B"], offer_id="LETTER", contact_cost=7),  # of no release: the fallback
    ]
    policy = Policy(
        min_days_between_contacts=1, contacts_per_period=3, period_days=7, fallback="LETTER", point_cost=1.5
    )
    spring = Campaign(budget=4_000, starts=NOW - timedelta(days=7), ends=NOW + timedelta(days=28))
    programme = PROGRAMME.model_copy(update={"policy": policy, "campaigns": {"spring": spring, "summer": Campaign()}})
    return Decider(decider.release, catalogue_of(bound, programme))


@pytest.fixture(scope="session")
def held_out():
    ids = [f"m{i}" for i in range(400)]
    experiment = PROGRAMME.experiment
    flags = arms(ids, salt=experiment.salt, hold_out=experiment.hold_out, random_arm=0.0) == HELD_OUT
    return [name for name, flag in zip(ids, flags, strict=True) if flag]


@pytest.fixture(scope="session")
def members():
    return Memory()


def sign(root):
    """Describe a folder's files as they are now and name it so, as one who writes a release could."""
    read = json.loads((root / "manifest.json").read_bytes())
    for name in read["files"]:
        path = root / name
        read["files"][name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    named = root.with_name(identity(Manifest(**read)))
    (root / "manifest.json").write_text(json.dumps(read | {"release_id": named.name}))
    return root.rename(named)


@pytest.fixture(scope="session")
def signed():
    return sign


def crown(home, release_id):
    """Make a release champion, whatever it is worth."""
    promote(home, release_id, expected=champion_id(home), who="test", now=NOW, verdict=Verdict(promote=True, said=()))


@pytest.fixture(scope="session")
def promoted():
    return crown


def hasty_shadow(home, release_id, missed_since):
    """Begin a shadow's process that gives way to nobody: on a busy machine it would have to wait for minutes."""
    program = "from serving.shadow import process; process.give_way = lambda: None; process.main(*process.sys.argv[1:])"
    return [sys.executable, "-c", program, *command_of(home, release_id, missed_since)[3:]]


@pytest.fixture(scope="session")
def hasty():
    return hasty_shadow


@pytest.fixture(scope="session")
def start(release_root):
    return partial(_started, release_root)


@contextmanager
def _started(release_root, log):
    """Run the real service in a process of its own on a free port."""
    program = Path(__file__).with_name("run_service.py")
    process = subprocess.Popen(
        [sys.executable, program, release_root, log], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    address = process.stdout.readline().strip()
    try:
        assert address.startswith("http://127.0.0.1:"), process.communicate()
        yield process, address
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def service(start, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "decisions.db"
    with start(log) as (_, address), httpx.Client(base_url=address, timeout=10) as client:
        client.log = log
        yield client
