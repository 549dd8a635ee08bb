"""The whole of a training, on a home so small that it takes seconds; and data that nothing can be learned from."""

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from features.errors import ContractError, UnavailableError
from features.home import Home
from features.ingest import ingest
from features.log.standing import nobody_contacted
from features.offers import catalogue_of
from features.programme import Programme
from features.saying import saying
from features.snapshots import build
from features.store import MemberFeatures, Store, open_store
from features.stores.objects import Objects
from features.warehouse import open_warehouse
from holdfast import quiet_dependencies
from serving.decide import Decider, Occasion, Purse
from serving.record import Request, open_file, record
from training import pipeline, steps
from training.artifacts import load_release
from training.churn import PURCHASES
from training.judging.comparison import compare_releases
from training.pipeline import promote_release, train
from training.preparation import Settings, prepare
from training.promotion import Verdict
from training.registry import save_pictures
from training.releases import names, shelf
from training.releases.ledger import champion_id, promote
from training.releases.manifest import read_manifest
from training.tuning import tune

# MLflow, about its own types, when its `pyfunc` is imported
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
    pytest.mark.usefixtures("few_rounds"),
]
NOW = datetime(2024, 1, 1, tzinfo=UTC)
START = pd.Timestamp("2023-01-02 12:00", tz="UTC")
QUICK = Settings(trials=1)
LEARNT = ("fit_churn", "fit_value", "judge_worth", "fit_uplift", "observe")


def shop(members=160, *, weeks=40, leaves=True, seed=0):
    """Members who buy in most weeks, half of whom leave one day."""
    rng = np.random.default_rng(seed)
    ids = np.array([f"m{i}" for i in range(members)])
    rate = np.clip(rng.gamma(2.0, 0.3, members), 0.1, 0.95) if leaves else np.ones(members)
    left = np.where(rng.random(members) < leaves * 0.5, rng.uniform(10, 60, members), weeks)
    week, who = (grid.ravel() for grid in np.meshgrid(np.arange(weeks), np.arange(members)))
    bought = (week < left[who]) & (rng.random(len(week)) < rate[who])
    week, who = week[bought], who[bought]
    transactions = pd.DataFrame(
        {
            "transaction_id": [f"t{i}" for i in range(len(who))],
            "member_id": ids[who],
            "occurred_at": START + pd.to_timedelta(7 * week + rng.integers(0, 6, len(who)), unit="D"),
            "amount": rng.gamma(2.0, 1500.0, len(who)).astype(int),
        }
    )
    return {
        "members": pd.DataFrame({"member_id": ids, "joined_at": START - pd.Timedelta(days=30)}),
        "transactions": transactions,
    }


def made(home, tables):
    ingest(tables, home=home, programme=Programme(), source="my shop", key="key")
    build(home, progress=lambda *_: None)
    open_store(home).apply()
    return home


def trained(home, settings=QUICK, **more):
    return train(home, settings=settings, progress=lambda *_: None, **more)


def raise_(home, which="challenger"):
    return promote_release(home, which, who="ada", now=NOW)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    quiet_dependencies()
    home = made(Home(tmp_path_factory.mktemp("shop")), shop())
    trained(home, name="first")
    return home


@pytest.fixture
def once(monkeypatch):
    """Count which models are learned."""
    seen = []
    for name in LEARNT:
        fit = getattr(steps, name)
        monkeypatch.setattr(steps, name, lambda *a, _fit=fit, _name=name, **k: seen.append(_name) or _fit(*a, **k))
    return seen


def test_a_shop_without_offers_learns_who_leaves_and_what_they_are_worth(home):
    manifest = read_manifest(home.releases / names.resolve(home, "first"))
    assert (manifest.experiment, manifest.offers) == ("none", ())
    assert sorted(manifest.files) == ["calibration.json", "churn.json", "golden.json", "value.json"]
    assert manifest.evidence["policies"] is None
    assert manifest.evidence["log"]["reasons"] == ["there are no offers: nothing says what an offer would bring"]
    assert manifest.evidence["churn"]["rows"]["model"]["auc"]["value"] > 0.6


def test_who_bought_before_they_joined_is_learned_from_once_they_had(tmp_path):
    tables = shop(80)
    joined = START + pd.to_timedelta(7 * (np.arange(80) % 30), unit="D")
    home = made(Home(tmp_path), tables | {"members": tables["members"].assign(joined_at=joined)})
    prepared = prepare(open_warehouse(home), open_store(home), Programme(), QUICK)
    since = prepared.frame["member_id"].map(dict(zip(tables["members"]["member_id"], joined, strict=True)))
    assert (since < prepared.frame["as_of"]).all()
    assert (since > prepared.frame["as_of"].min()).any()  # who joined after the first snapshot is there later


def test_no_feature_of_it_knows_the_future_and_one_that_does_is_named(home, tmp_path):
    first = read_manifest(home.releases / names.resolve(home, "first"))
    assert first.evidence["gate"]["data"]["foreknown"] == []
    spoilt = Home(tmp_path / "home")
    shutil.copytree(home.root, spoilt.root)
    for path in spoilt.features.glob("*.parquet"):
        rows = pd.read_parquet(path)
        rows.assign(visits_28d=rows["visits_28d"] + 1).to_parquet(path)
    found = steps.look_ahead(spoilt, np.random.default_rng(0), lambda *_: None)
    assert found.record == {"foreknown": ["visits_28d"]}


def test_of_purchases_alone_churn_is_judged_beside_bg_nbd(home):
    churn = read_manifest(home.releases / names.resolve(home, "first")).evidence["churn"]
    assert PURCHASES in churn["rows"]
    assert PURCHASES in churn["lead"]
    assert churn["notes"] == []


def test_where_hardly_anybody_came_back_the_rival_is_absent_and_a_note_says_why():
    visits = pd.DataFrame({"member_id": list("abcdefghi"), "occurred_at": START, "margin": 100})
    test = pd.DataFrame({"member_id": list("abc"), "as_of": START + pd.Timedelta(days=30)})
    prepared = SimpleNamespace(warehouse=SimpleNamespace(tables=["members"]), visits=visits, programme=Programme())
    expected, notes = steps._expected_purchases(prepared, test)
    assert expected is None
    assert notes == [f"{PURCHASES} is not among the rivals: 0 of 9 members came back; at least 10 were wanted"]
    more = SimpleNamespace(warehouse=SimpleNamespace(tables=["members", "events"]))
    assert steps._expected_purchases(more, test) == (None, [])


def test_lifetime_value_is_judged_on_days_that_have_passed(home):
    lifetime = read_manifest(home.releases / names.resolve(home, "first")).evidence["lifetime"]
    # 40 weeks, and 84 days before the first snapshot: a window of as many can be learned from half a year on
    assert lifetime["days"] >= 28
    assert 84 <= lifetime["window_days"] <= lifetime["days"] + 28
    assert list(lifetime["table"]["rows"]) == ["model", "last period", "BG/NBD with Gamma-Gamma"]
    assert 0.9 < lifetime["within_interval"] <= 1.0


def test_segments_are_worth_what_their_members_brought(home):
    economics = read_manifest(home.releases / names.resolve(home, "first")).evidence["economics"]
    assert set(economics["worth"]) == {"lifecycle_stage", "tier", "segment"}
    stages = economics["worth"]["lifecycle_stage"]
    assert stages["active"]["arpu"]["value"] > stages["lapsed"]["arpu"]["value"]
    assert stages["active"]["lifetime_value"]["value"] > stages["lapsed"]["lifetime_value"]["value"]
    assert economics["returns"] == {}  # no offers, no contacts


def test_labels_are_counted_where_they_are_known_and_nowhere_else(home):
    evidence = read_manifest(home.releases / names.resolve(home, "first")).evidence
    known = [row["members"] for row in evidence["labels"] if row["mature"]]
    assert sum(known) == evidence["data"]["rows"]
    assert {row["members"] for row in evidence["labels"] if not row["mature"]} == {None}


def test_lifetime_value_that_cannot_be_known_is_a_finding_and_the_training_goes_on(home, monkeypatch):
    def refused(*_, **__):
        raise ContractError("129 days of purchases are too few")

    monkeypatch.setattr(steps.lifetime, "back_test", refused)
    fresh = Settings(trials=1, as_of=datetime(2023, 9, 25, tzinfo=UTC))  # of which no other test has kept a step
    manifest, _ = trained(home, fresh)
    assert manifest.evidence["lifetime"] == {"reason": "129 days of purchases are too few"}
    stages = manifest.evidence["economics"]["worth"]["lifecycle_stage"]
    assert stages["active"]["lifetime_value"] is None
    assert stages["active"]["arpu"]["value"] > 0


def test_the_champions_parameters_are_tried_and_are_an_input_of_churn(home, once, monkeypatch):
    monkeypatch.setattr(pipeline.registry, "set_champion", lambda *_: None)
    first = trained(home, Settings(trials=2, folds=2))[0]
    yes = Verdict(promote=True, said=(saying("for: by hand"),))
    promote(home, first.release_id, expected=champion_id(home), who="ada", now=NOW, verdict=yes)
    assert trained(home, Settings(trials=2, folds=2))[1] is False  # it is champion itself: nothing to do
    once.clear()
    starts = []
    monkeypatch.setattr(steps, "tune", lambda *a, start, **k: starts.append(start) or tune(*a, start=start, **k))
    second = trained(home, Settings(trials=2))[0]
    assert once == ["fit_churn"]
    assert starts == [first.evidence["tuning"]["parameters"]]
    (home.releases / "trained.json").unlink()
    assert trained(home, Settings(trials=2))[0].release_id == second.release_id


def test_only_the_champions_recipe_on_newer_data_is_a_refresh(home, monkeypatch):
    early = Settings(trials=1, as_of=datetime(2023, 8, 28, tzinfo=UTC))
    first, before = trained(home, early)[0], champion_id(home)
    by_hand = Verdict(promote=True, said=(saying("for: by hand"),))
    promote(home, first.release_id, expected=before, who="ada", now=NOW, verdict=by_hand)

    def refreshes(settings):
        (home.releases / "trained.json").unlink(missing_ok=True)
        return trained(home, settings)[0].evidence["gate"]["refreshes"]

    assert refreshes(QUICK)
    assert not refreshes(early)  # no newer data
    monkeypatch.setattr(pipeline, "_code", lambda: ["other"])
    assert not refreshes(QUICK)


def test_its_service_explains_and_sends_nothing(home):
    release = load_release(home.releases / names.resolve(home, "first"))
    X = np.zeros((2, len(release.feature_names)), dtype=np.float32)
    decider = Decider(release, catalogue_of((), Programme()))
    words, facts = ((None, None),) * 2, dict.fromkeys(decider.facts, np.array([None, None], dtype=object))
    features = MemberFeatures(("a", "b"), X, np.array([True, True]), *words, (NOW, NOW), facts)
    file = open_file(decider, features, nobody_contacted(2, 0))
    worth = decider.weigh(file.members, None)
    when = Occasion(NOW, None, None, Purse(np.inf, decider.stock, 0.0, np.zeros(0)))
    choice = decider.choose(file.members, worth, occasion=when, uniform=np.full(2, 0.5))
    assert choice.probabilities.tolist() == [[1.0], [1.0]]
    request = Request(when, np.full(2, 0.5), ({}, {}), (None, None), iter("12").__next__)
    for one in record(decider, file, worth=worth, choice=choice, request=request):
        assert (one.treatment, one.uplift) == ("control", ())
        assert one.reasons


def picture(home):
    run_id = names.trained(home)["run_id"]
    return run_id, (home.artifacts / run_id / "artifacts" / "churn_reliability.png").read_bytes()


def test_nothing_is_learned_twice(home, once):
    before, _ = anew(home)
    run_id, drawn = picture(home)
    once.clear()
    assert trained(home)[1] is False
    (home.releases / "trained.json").unlink()
    manifest, fresh = trained(home)
    assert fresh
    assert manifest.release_id == before.release_id  # the same data and seed, the same release
    again, drawn_again = picture(home)
    assert (again != run_id, drawn_again) == (True, drawn)  # a run of its own, with the same picture
    assert once == []


def anew(home):
    """Train with every step kept, whatever another test, perhaps one that was refused, left half done."""
    (home.releases / "trained.json").unlink(missing_ok=True)
    return trained(home)


def test_more_trials_learn_churn_alone_and_a_name_comes_with_them(home, once):
    anew(home)
    once.clear()
    manifest, _ = trained(home, Settings(trials=2), name="longer")
    assert once == ["fit_churn"]
    assert manifest.evidence["tuning"]["trials"] == 2
    assert names.resolve(home, "longer") == manifest.release_id == names.resolve(home, "challenger")


def test_a_run_that_was_killed_goes_on_where_it_stood(home, once, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    anew(home)
    once.clear()
    with monkeypatch.context() as broken:
        broken.setattr(pipeline, "release", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(home, Settings(trials=3))
    assert once == ["fit_churn"]
    trained(home, Settings(trials=3))
    assert once == ["fit_churn"]


@pytest.fixture
def far(home, s3, tmp_path, monkeypatch):
    """That home without a champion, whose releases and MLflow's files are in object storage."""
    far = Home(tmp_path / "far")
    shutil.copytree(home.root, far.root)
    for name in ("trained.json", "ledger.jsonl", "champion.json"):
        (far.releases / name).unlink(missing_ok=True)
    far.settings.write_text(f'[engine]\nobjects = "{s3.address}"\n')
    with closing(sqlite3.connect(far.tracking)) as db, db:
        db.execute("UPDATE experiments SET artifact_location = ?", (f"{s3.address}/mlartifacts",))
        db.execute("DELETE FROM tags WHERE key = 'release_id'")  # of runs whose files are elsewhere
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    return far


def statuses(home):
    query = "SELECT status FROM runs JOIN tags USING (run_uuid) WHERE tags.key = 'release_id' ORDER BY start_time"
    with closing(sqlite3.connect(home.tracking)) as db:
        return [status for (status,) in db.execute(query)]


@pytest.mark.parametrize(
    ("put", "told"),
    [
        (False, "is in this home, and not where other machines look: .* then `holdfast promote"),
        (True, "MLflow does not answer .*Error.*, whose files are at s3://holdfast/.* the same command goes on"),
    ],
    ids=["before the release is there", "after it"],
)
def test_a_training_whose_object_storage_goes_away_says_so_and_goes_on(far, s3, once, monkeypatch, *, put, told):
    def goes_away(*given):
        if put:
            shelf.put(*given)
        s3.away()
        if not put:
            shelf.put(*given)

    with monkeypatch.context() as broken:
        broken.setattr(pipeline, "put", goes_away)
        with pytest.raises(UnavailableError, match=told):
            trained(far, name="late")
    s3.back()
    other = Home(far.root.with_name("other"))
    other.root.mkdir()
    shutil.copy(far.settings, other.settings)
    there = {name.split("/")[1] for name in Objects(s3.address).names("releases")}
    assert (len(there), statuses(far), names.trained(far)) == (put, ["FAILED"] * put, {})
    for release_id in there:
        shelf.bring(other, release_id)  # and holds it against its id
    once.clear()
    manifest, fresh = trained(far, name="late")
    assert (fresh, once) == (True, [])
    assert there <= {manifest.release_id}
    assert names.resolve(far, "late") == manifest.release_id
    assert statuses(far) == ["FAILED"] * put + ["FINISHED"]
    shelf.bring(other, manifest.release_id)
    assert save_pictures(far, manifest.release_id, other.reports)


def test_what_came_later_does_not_move_a_release_of_an_earlier_day(home, tmp_path):
    tables = shop()
    day = pd.Timestamp("2023-08-28", tz="UTC")
    later = tables["transactions"]["occurred_at"] >= day
    other = tables["transactions"].assign(amount=tables["transactions"]["amount"].where(~later, 77))
    elsewhere = made(Home(tmp_path), tables | {"transactions": other[~later | (np.arange(len(other)) % 2 == 0)]})
    earlier = Settings(trials=1, as_of=day.to_pydatetime())
    one, two = (trained(place, earlier)[0] for place in (home, elsewhere))
    assert one.files == two.files
    assert max(one.reference_as_of) < day.isoformat()
    assert one.evidence["data"]["known_until"] <= day.isoformat()
    assert one.evidence["churn"] == two.evidence["churn"]


def test_a_day_before_the_first_snapshot_is_refused(home):
    with pytest.raises(ContractError, match="--as-of 2023-01-09 came; the first snapshot is of 2023-"):
        trained(home, Settings(trials=1, as_of=datetime(2023, 1, 9, tzinfo=UTC)))


def test_a_release_beside_itself_differs_in_nothing(home):
    first = names.resolve(home, "first")
    found = compare_releases(home, first, first)
    assert {row.metric for row in found.rows} >= {"auc", "log_loss", "calibration_error", "mean_absolute_error"}
    assert {(row.difference.value, row.difference.lower, row.difference.upper) for row in found.rows} == {(0, 0, 0)}
    kept = read_manifest(home.releases / first).evidence["churn"]["rows"]["model"]
    for row in found.rows[:2]:
        assert row.first.value == pytest.approx(kept[row.metric]["value"])  # the same members as in its own report
    assert found.notes == ("policies are not compared: no experiment has every offer of both",)


def test_a_release_that_saw_the_days_it_is_compared_on_is_named(home):
    early = trained(home, Settings(trials=1, as_of=datetime(2023, 8, 28, tzinfo=UTC)))[0]
    first = names.resolve(home, "first")
    assert compare_releases(home, early.release_id, first).notes == compare_releases(home, first, first).notes
    manifest = read_manifest(home.releases / first)
    assert max(manifest.reference_as_of) > max(early.reference_as_of)


# What nothing can be learned from: one line that says so, and the champion stays


@pytest.mark.parametrize(
    ("tables", "wanted"),
    [
        (lambda: shop(leaves=False), "0 members left and 160 stayed"),
        (lambda: shop(12, weeks=20), "too few"),
        (lambda: shop(12), "members left and"),
    ],
)
def test_data_that_say_nothing_are_refused_in_one_line(tmp_path, tables, wanted):
    home = made(Home(tmp_path), tables())
    with pytest.raises(ContractError, match=wanted) as refused:
        trained(home)
    assert "\n" not in str(refused.value)
    assert not list(home.releases.glob("*/manifest.json"))


def spoilt(monkeypatch, spoil):
    join = Store.training_frame

    def joined(self, rows, *service):
        frame = join(self, rows, *service)
        return spoil(frame) if "churned" in rows else frame

    monkeypatch.setattr(Store, "training_frame", joined)


def _uniform(n):
    return np.random.default_rng(0).random(n)


@pytest.fixture
def served(home, monkeypatch, request):
    """The home with a champion; MLflow's alias is tested with the registry, and the code counts as another."""
    monkeypatch.setattr(pipeline.registry, "set_champion", lambda *_: None)
    if champion_id(home) is None:
        yes = Verdict(promote=True, said=(saying("for: by hand"),))
        promote(home, names.resolve(home, "first"), expected=None, who="ada", now=NOW, verdict=yes)
    monkeypatch.setattr(pipeline, "_code", lambda: [request.node.name])  # so that nothing is taken from before
    return home


@pytest.mark.parametrize(
    ("spoil", "wanted"),
    [
        (lambda f: f.assign(recency_days=1.0 * f["churned"]), r"\['recency_days'\] tell who left without a doubt"),
        (lambda f: f.assign(recency_days=f["recency_days"].where(f.index % 9 > 0, np.inf)), "infinite"),
    ],
)
def test_features_that_know_the_answer_or_are_infinite_are_refused(served, monkeypatch, spoil, wanted):
    champion = champion_id(served)
    spoilt(monkeypatch, spoil)
    with pytest.raises(ContractError, match=wanted):
        trained(served)
    assert champion_id(served) == champion


@pytest.mark.parametrize(
    ("spoil", "wanted"),
    [
        (lambda f: pd.concat([f, f[:50]], ignore_index=True), "50 rows are of a member and a date that came before"),
        # uniform noise of width 1 and a shift of 0.85: the AUC is 1 - 0.15² / 2 = 0.989
        (lambda f: f.assign(recency_days=0.85 * f["churned"] + _uniform(len(f))), "recency_days alone"),
    ],
)
def test_what_makes_a_model_look_better_than_it_is_stops_at_the_gate(served, monkeypatch, spoil, wanted):
    champion = champion_id(served)
    spoilt(monkeypatch, spoil)
    manifest, _ = trained(served)
    verdict, _ = raise_(served, manifest.release_id)
    assert not verdict.promote
    assert any(reason.startswith("against: ") and wanted in reason for reason in verdict.reasons)
    assert champion_id(served) == champion


def test_a_column_that_never_varies_is_not_in_the_release(home):
    manifest = read_manifest(home.releases / names.resolve(home, "first"))
    read = {feature.name for feature in manifest.features}
    assert "visits_28d" in read
    assert not read & {"contacts_28d", "online_share_84d", "discount_share_84d"}
