"""A home of files moves to a real Postgres and a real Redis: whole, again, from where it was killed, or not at all."""

import features.unchecked  # noqa: F401  (before Feast itself)

# isort: split

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import optuna
import pytest
from feast import Entity, ValueType
from typer.testing import CliRunner

from features.decisions import Outcome, Preference, SharedLog
from features.definitions import VIEW
from features.engine import Engine
from features.errors import ContractError, UnavailableError
from features.home import Home
from features.log.drain import drain
from features.log.ledger import Terms
from features.migration.move import between
from features.store import PROJECT, open_store
from features.stores.online import open_table
from features.stores.packed import Batch, Schema
from holdfast import app
from training.migration import studies as moving_studies
from training.migration.migration import migrate
from training.registry import schema_version, tracked
from training.studies import open_studies
from training.tuning import tune

# MLflow, about its own types, when its `pyfunc` is imported
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")
NOW = datetime(2017, 12, 1, tzinfo=UTC)
OLD, NEW = Schema(("visits", "spend"), ("segment",)), Schema(("visits",), ())
# tables are kept: MLflow's own migration makes them, and takes twenty seconds
EMPTY = """
DROP SCHEMA public CASCADE; CREATE SCHEMA public;
DO $$ DECLARE named text; BEGIN
  SELECT string_agg(format('%I.%I', schemaname, tablename), ', ') INTO named FROM pg_tables
  WHERE schemaname LIKE 'holdfast%' AND tablename NOT IN ('alembic_version', 'version_info');
  IF named IS NOT NULL THEN EXECUTE 'TRUNCATE ' || named; END IF;
END $$;
"""


def clock():
    return datetime.now(UTC)  # noqa: TID251 (held against a server's)


def vectors(first, count, *, later=0):
    numbers = np.arange(2.0 * count).reshape(count, 2)
    numbers[0, 0] = np.nan
    names = [f"m{number}" for number in range(first, first + count)]
    words = [("new" if number % 2 else None,) for number in range(count)]
    return Batch(names, numbers, words, [1_000 + later] * count, [2_000] * count)


def search(place, study, trials):
    quiet = {"rng": np.random.default_rng(0), "progress": lambda *_: None}
    return tune(lambda given: [given["learning_rate"]], study=study, storage=place, trials=trials, **quiet)


@pytest.fixture(scope="module")
def filled(tmp_path_factory, parts, decision):
    """A home that was used: definitions, vectors, a run with a model, studies, decisions and what followed."""
    home = Home(tmp_path_factory.mktemp("home") / "home")
    store = open_store(home, Engine())
    store.apply()
    store.feast.registry.apply_materialization(store.feast.get_feature_view(VIEW), PROJECT, NOW, NOW + timedelta(1))
    table = open_table(Engine(), home.online)
    table.write(VIEW, OLD, [vectors(0, 2_500)])
    table.write(VIEW, NEW, [Batch(["late"], np.ones((1, 1)), [()], [5_000], [5_000])])
    with tracked(home, "train") as run:
        run.metrics, run.tags = {"auc": 0.81, "qini": -0.0}, {"release_id": "r1"}
        run.models = {"churn": parts.models.boosters["churn"]}
    for name in ("churn-a", "churn-b"):
        search(home.studies, name, 3)
    with SharedLog(home.decisions) as log:
        for number in range(30):
            at = NOW + timedelta(days=number)
            one = decision(f"d{number}", member_id=f"m{number}", decided_at=at, context={"word": "a\0é", "n": 1.50})
            log.append([one], now=NOW).result()
            log.record(Outcome(f"o{number}", f"d{number}", None, "purchase", at, number), now=at).result()
        log.prefer(Preference("m1", personalisation=False), now=NOW).result()
    return home


@pytest.fixture
def home(filled, tmp_path):
    """One's own copy of it."""
    shutil.copytree(filled.root, tmp_path / "home")
    return Home(tmp_path / "home")


@pytest.fixture
def engine(postgres_server, redis_server, request):
    parts = dict.fromkeys(("registry", "tracking", "studies", "decisions"), postgres_server.address)
    prefix = request.node.name[-40:].replace("[", "-").replace("]", "")
    yield Engine(online=redis_server.address, online_prefix=prefix, **parts)
    postgres_server.run(EMPTY)


@pytest.fixture
def move(home, engine):
    return between(home, engine, "local", "cluster")


def of(move, *parts):
    """Move these parts alone: Feast and MLflow take seconds."""
    return replace(move, target=Engine(**{part: getattr(move.target, part) for part in (*parts, "online_prefix")}))


def run(move):
    return {one.what: one for one in migrate(move, clock=clock, progress=lambda *_: None)}


def test_everything_is_there_as_it_is_here_and_a_second_time_changes_nothing(move):
    first = run(move)
    assert [name for name, one in first.items() if not one.equal] == []
    rows = {name: one.there.rows for name, one in first.items()}
    assert (rows["online"], rows["decisions: decisions"], rows["decisions: outcomes"]) == (2_501, 30, 30)
    assert rows["studies"] == 2 + 2 * 3
    assert rows["registry"] == 8
    assert rows["tracking: runs"] == rows["tracking: registered_models"] == 1
    assert [name for name, count in rows.items() if "tracking" in name and not count] == []  # of MLflow's sixty tables
    assert run(move) == first


def test_what_was_moved_is_gone_on_with(move, home, engine, parts):
    run(move)
    lines = [f"{name} = {json.dumps(value)}" for name, value in engine.model_dump().items() if name != "online_days"]
    home.settings.write_text("[engine]\n" + "\n".join(lines))
    assert search(engine.studies, "churn-a", 5).trials == 5
    with tracked(home, "train") as again:
        again.metrics, again.models = {"auc": 0.9}, {"churn": parts.models.boosters["churn"]}
    store = open_store(home)
    assert store.feast.get_feature_view(VIEW).materialization_intervals == [(NOW, NOW + timedelta(1))]
    found = open_table(engine, home.online).read(VIEW, ["m1", "nobody"], numbers=["spend"], words=["segment"])
    assert (found.numbers[0, 0], found.words[0], found.known.tolist()) == (3.0, ("new",), [True, False])


def test_there_and_back_is_the_same(move, home, engine, tmp_path):
    run(move)
    other = Home(tmp_path / "other")
    other.root.mkdir()
    shutil.copyfile(home.decisions, other.decisions)  # the log's file is never anybody's target
    back = run(between(other, engine, "cluster", "local"))
    assert [name for name, one in back.items() if not one.equal and name != "registry"] == []
    assert back["registry"].there.rows == 8  # its source names the folder of each home


def test_a_move_that_was_killed_in_the_middle_of_studies_goes_on(move, monkeypatch):
    move = of(move, "studies")

    def dies(name, source, target):
        study = optuna.create_study(study_name=name, storage=target)
        study.add_trial(source.get_all_trials(0)[0])
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(moving_studies, "copy_study", dies)
        with pytest.raises(KeyboardInterrupt):
            run(move)
    assert all(one.equal for one in run(move).values())


def test_a_move_of_runs_that_was_killed_leaves_none_of_them(move, postgres_server, monkeypatch):
    move = of(move, "tracking")

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr("training.migration.tracking._move_on", dies)
        with pytest.raises(KeyboardInterrupt):
            run(move)
    assert postgres_server.run("SELECT count(*) FROM holdfast_tracking.experiments") == ["0"]
    assert all(one.equal for one in run(move).values())


SPOIL = {
    "tracking": "UPDATE holdfast_tracking.metrics SET value = 0.5",
    "studies": "UPDATE holdfast_studies.studies SET study_name = 'other' WHERE study_name = 'churn-a'",
    "decisions": "UPDATE decisions SET decision_id = 'other' WHERE decision_id = 'd1'",
}


@pytest.mark.parametrize("part", SPOIL)
def test_a_target_that_holds_something_else_is_refused_and_left_as_it_is(move, postgres_server, part):
    move = of(move, part)
    run(move)
    postgres_server.run(SPOIL[part])
    with pytest.raises(ContractError, match=f"{part} at postgresql://.* holds .* the source does not") as refused:
        run(move)
    assert "hunter2" not in str(refused.value)


def test_a_registry_of_other_definitions_is_refused(move, home, engine):
    move = of(move, "registry")
    other = Entity(name="household", join_keys=["household_id"], value_type=ValueType.STRING)
    open_store(home, engine).feast.apply([other])
    with pytest.raises(ContractError, match=r"registry at postgresql://.* holds 1 things"):
        run(move)


def test_a_redis_that_knows_other_members_is_refused(move, home, engine):
    move = of(move, "online")
    open_table(engine, home.online).write(VIEW, OLD, [vectors(9_000, 3)])
    with pytest.raises(ContractError, match=r"online at redis://.* holds 3 things"):
        run(move)


def test_a_vector_that_is_newer_there_stays_and_is_told(move, home, engine):
    move = of(move, "online")
    open_table(engine, home.online).write(VIEW, OLD, [vectors(0, 1, later=9)])
    compared = run(move)
    assert [name for name, one in compared.items() if not one.equal] == ["online"]
    assert compared["online"].here.rows == compared["online"].there.rows == 2_501


def test_a_log_that_was_drained_to_another_postgres_is_carried_whole(move, postgres_server):
    move = of(move, "decisions")
    run(move)
    postgres_server.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public;")
    assert run(move)["decisions: decisions"].equal


def test_an_mlflow_that_was_only_opened_there_is_no_stranger(move, postgres_server):
    move = of(move, "tracking")
    run(move)
    kept = "FROM holdfast_tracking.experiments WHERE experiment_id = 0"
    postgres_server.run(f"CREATE TABLE public.kept AS SELECT * {kept}; {EMPTY.partition('public;')[2]}")
    postgres_server.run("INSERT INTO holdfast_tracking.experiments SELECT * FROM public.kept; DROP TABLE public.kept")
    postgres_server.run("UPDATE holdfast_tracking.experiments SET creation_time = 1")
    assert all(one.equal for one in run(move).values())


def test_tables_of_another_mlflow_are_refused(move, postgres_server):
    move = of(move, "tracking")
    run(move)
    postgres_server.run("DELETE FROM holdfast_tracking.metrics")
    version = "UPDATE holdfast_tracking.alembic_version SET version_num = "
    postgres_server.run(f"{version} 'old'")
    with pytest.raises(ContractError, match=r"tracking there are of version old, .* `mlflow db upgrade`"):
        run(move)
    postgres_server.run(f"{version} '{schema_version()}'")


def test_beside_a_service_that_decides_nothing_is_moved(move, home, engine):
    move = of(move, "online", "decisions")
    with SharedLog(home.decisions), pytest.raises(ContractError, match="has a writer already"):
        run(move)
    assert list(open_table(engine, home.online).members(VIEW)) == []


@pytest.fixture
def agreed(move, postgres_server):
    """The decisions alone, where instances agree."""
    yield replace(of(move, "decisions"), target=of(move, "decisions").target.model_copy(update={"agree": True}))
    postgres_server.run("DROP SCHEMA IF EXISTS holdfast_ledger CASCADE")


def test_the_first_of_instances_that_agree_brings_what_it_has(agreed, home, tmp_path):
    assert all(one.equal for one in run(agreed).values())
    assert run(agreed)["decisions: decisions"].there.rows == 30
    (tmp_path / "other").mkdir()
    shutil.copy(home.privacy_key, tmp_path / "other")
    with SharedLog(tmp_path / "other" / "decisions.db", Terms(agreed.target.decisions, 10.0)) as other:
        assert other.decision("d1")["member_id"] == "m1"
        assert other.opted_out(["m1", "m2"]) == [True, False]


def test_a_home_joins_instances_that_agree_already_and_has_what_they_have(agreed, home, tmp_path, decision):
    other = Home(tmp_path / "other")
    other.root.mkdir()
    shutil.copy(home.privacy_key, other.privacy_key)
    with SharedLog(other.decisions, Terms(agreed.target.decisions, 10.0)) as log:
        log.append([decision("theirs", member_id="m99")], now=NOW).result()
        drain(log, other.decisions, agreed.target.decisions)
    assert all(one.equal for one in run(agreed).values())
    with SharedLog(home.decisions) as log:
        assert log.decision("theirs")["member_id"] == "m99"


@pytest.mark.parametrize(
    ("key", "wrong"), [(None, "has no privacy.key"), (b"another" * 5, "is not that of the")], ids=["none", "another"]
)
def test_a_home_that_instances_would_refuse_is_refused_before_anything_is_moved(agreed, tmp_path, key, wrong):
    run(agreed)
    stranger = Home(tmp_path / "stranger")
    stranger.root.mkdir()
    if key:
        stranger.privacy_key.write_bytes(key)
    with pytest.raises(ContractError, match=f"{wrong}.*nothing was moved"):
        run(replace(agreed, home=stranger))
    assert not stranger.decisions.exists()


def test_a_server_that_takes_no_writes_is_told_before_anything_is_moved(move, postgres_server, engine, home):
    move = of(move, "online", "decisions")
    postgres_server.run("ALTER ROLE shop SET default_transaction_read_only = on")
    with pytest.raises(UnavailableError, match="takes no writes: it is set to read-only; nothing was moved"):
        run(move)
    postgres_server.run("SET default_transaction_read_only = off; ALTER ROLE shop RESET default_transaction_read_only")
    assert list(open_table(engine, home.online).members(VIEW)) == []


def test_a_new_home_moves_nothing_and_makes_nothing(engine, tmp_path):
    compared = run(between(Home(tmp_path / "new"), engine, "local", "cluster"))
    assert {one.there.rows for one in compared.values()} == {0}
    assert not (tmp_path / "new" / "registry.pb").exists()


def test_the_verb_prints_a_table_and_exits_1_where_something_differs(home, engine):
    said = engine.model_dump(include={"studies", "online", "online_prefix"})
    home.settings.write_text(
        "\n".join(("[engine]", *(f"{name} = {json.dumps(value)}" for name, value in said.items())))
    )
    answer = CliRunner().invoke(app, ["migrate", "local", "cluster", "--home", str(home.root)])
    assert answer.exit_code == 0, answer.output
    assert "hash equal" in answer.stdout
    shutil.rmtree(home.root / "none", ignore_errors=True)
    optuna.delete_study(study_name="churn-a", storage=open_studies(home.studies))
    answer = CliRunner().invoke(app, ["migrate", "local", "cluster", "--home", str(home.root), "--json"])
    assert isinstance(answer.exception, ContractError)


@pytest.mark.parametrize(
    ("settings", "words", "wrong"),
    [
        ("", ("local", "cluster"), "names no server"),
        ('[engine]\nonline = "redis://h"', ("local", "local"), "are one profile"),
    ],
)
def test_a_move_from_nowhere_to_nowhere_is_refused(tmp_path, settings, words, wrong):
    Home(tmp_path).settings.write_text(settings)
    answer = CliRunner().invoke(app, ["migrate", *words, "--home", str(tmp_path)])
    assert isinstance(answer.exception, ContractError)
    assert wrong in str(answer.exception)
