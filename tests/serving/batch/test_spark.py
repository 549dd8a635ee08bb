"""A master of Spark with two workers decides what this process decides, to the byte, whoever of them is lost."""

import gc
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from features.decisions import DecisionLog, read_decisions
from features.home import Home
from features.spark import connect
from serving.batch.closing import preview_batch, write_decisions
from serving.batch.plan import Request, plan_batch
from serving.batch.run import decide_batch
from serving.batch.turns import Turns

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings(  # Spark's own, from which it reads what was collected
        "ignore:unclosed <socket:ResourceWarning", "ignore:.*<socket.socket:pytest.PytestUnraisableExceptionWarning"
    ),
]
NOW = datetime(2017, 12, 1, 12, tzinfo=UTC)


def quiet(*_):
    pass


class Cluster:
    """A master and two workers of one processor each, on this machine alone."""

    def __init__(self, folder):
        import pyspark

        self._folder, self._home = folder, Path(pyspark.__file__).parent
        self._running = []
        self.master = self._start("master.Master", "Starting Spark master at ", "--port", "0").split()[-1]
        for number in range(2):
            place = ("--cores", "1", "--memory", "1g", "--work-dir", str(folder / f"worker{number}"))
            self._start("worker.Worker", "Successfully registered", *place, self.master)

    def _start(self, program, words, *options):
        command = [self._home / "bin" / "spark-class", f"org.apache.spark.deploy.{program}"]
        alone = ("--host", "127.0.0.1", "--webui-port", "0")
        quick = {"SPARK_DAEMON_MEMORY": "256m", "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
        process = subprocess.Popen(
            [*command, *alone, *options],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_HOME": str(self._home)} | quick,
            start_new_session=True,
        )
        self._running.append(process)
        for line in process.stderr:
            if words in line:
                return line
        raise AssertionError(f"Spark's {program} ended without: {words}")

    def lose_a_worker(self):
        """Kill one and what it has started, while there are two."""
        with suppress(ProcessLookupError):
            os.killpg(self._running[-1].pid, signal.SIGKILL)

    def stop(self):
        for process in reversed(self._running):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stderr.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, spark_there):  # noqa: ARG001 (it only has to be)
    cluster = Cluster(tmp_path_factory.mktemp("spark"))
    quick = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    options = (f"spark.driver.extraJavaOptions={quick}", f"spark.executor.extraJavaOptions={quick}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_SUBMIT_ARGS", " ".join(f"--conf '{one}'" for one in options) + " pyspark-shell")
        yield cluster
        gc.collect()  # while its sockets are still allowed to go
        connect(cluster.master)._session.stop()
    connect.cache_clear()
    cluster.stop()


@pytest.fixture
def far(home, cluster, tmp_path):
    """Give the same home once more, with Spark as its engine, as it stands when it is asked for."""

    def copied():
        place = Home(tmp_path / "far")
        shutil.copytree(home.root, place.root)
        said = home.settings.read_text() if home.settings.exists() else ""
        place.settings.write_text(f'{said}[engine]\nfeatures = "spark"\nspark = "{cluster.master}"\n')
        return place

    return copied


def decide(home, progress=quiet, now=NOW, **asked):
    plan = plan_batch(home, Request(campaign_id="c", **asked))
    batch = decide_batch(plan, now=now, progress=progress)
    return write_decisions(plan, batch, home.root / "out.parquet", progress=quiet)


def written(home):
    """Give everything that is decided: parts, the file, the log, what is left."""
    files = {path.name: path.read_bytes() for path in [*home.batches.glob("*/*"), home.root / "out.parquet"]}
    with DecisionLog(home.decisions) as log:
        left = (log.spent("c"), log.contacted(["A", "B"]), log.price("c"))
    return files, str(read_decisions(home.decisions)), left


@pytest.mark.parametrize("limited", [False, True])
def test_the_same_is_decided_to_the_byte_though_a_worker_is_lost(home, far, cluster, bring, limited):
    asked = {}
    if limited:
        home.settings.write_text("[policy]\nmin_days_between_contacts = 7\n")
        bring(stock=pa.array([60, None, None], pa.int64()))
        decide(home, audience="loyal", budget=2_000)  # whom the next finds rested, or not
        asked = {"now": NOW + timedelta(days=1), "budget": 9_000}

    def progress(step, *_):
        if step == "deciding" and limited:
            cluster.lose_a_worker()

    there = far()
    assert decide(there, progress, **asked) == decide(home, **asked)
    assert written(there) == written(home)
    assert not [*there.root.glob(".*.part")]


def test_a_rehearsal_says_the_same(home, far):
    said = [
        preview_batch(plan_batch(one, Request(campaign_id="c", budget=9_000)), now=NOW, progress=quiet).to_json()
        for one in (home, far())
    ]
    assert said[0] == said[1]


def test_what_others_sent_meanwhile_is_seen(far, home, decision, monkeypatch):
    home.settings.write_text("[policy]\nmin_days_between_contacts = 7\n")
    there, accept, sent = far(), Turns.accept, []

    def after_another(turns, number, contacts, spending, seen):
        if not sent:
            sent.append(contacts[0].member_id)
            log = turns._log
            log.append([decision("d", member_id=sent[0], decided_at=NOW)], now=NOW).result()
        return accept(turns, number, contacts, spending, seen)

    monkeypatch.setattr(Turns, "accept", after_another)
    closing = decide(there)
    (mine,) = (row for row in read_decisions(there.decisions) if row["member_id"] == sent[0] and row["campaign_id"])
    assert set(mine["refusals"]) <= {"contacts", "validity"}
    assert mine["treatment"] == "control"
    with DecisionLog(there.decisions) as log:
        assert sum(log.contacted(["A", "B"])) == closing.tally.contacts.total() + 1


def test_a_batch_that_was_killed_goes_on_and_ends_as_if_it_had_not_been(home, far, monkeypatch):
    there, name = far(), Turns.name

    def killed(turns, part, reservations):
        if part.part == 2:
            raise KeyboardInterrupt
        name(turns, part, reservations)

    monkeypatch.setattr(Turns, "name", killed)
    with pytest.raises(KeyboardInterrupt):
        decide(there, budget=9_000)
    monkeypatch.undo()
    assert decide(there, budget=9_000) == decide(home, budget=9_000)
    assert written(there) == written(home)
