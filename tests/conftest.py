"""What every test runs under (one clock, no deadlines, threads that do not spin, telemetry off), and real servers."""

import atexit
import contextlib
import gc
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings
from redis import Redis

from tests.typist import Typist

os.environ.update(
    {
        "TZ": "UTC",
        "OMP_WAIT_POLICY": "passive",
        "BENTOML_DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "ITERATIVE_DO_NOT_TRACK": "1",
        "SSL_CERT_DIR": "/nowhere",  # or every client of HTTP reads all authorities of the world, 24 ms of a processor
    }
)
os.environ.pop("SSL_CERT_FILE", None)  # which a client would rather read
time.tzset()  # before anything else is imported
gc.set_threshold(50_000, 20, 20)  # Python's own, 700, looks through the libraries' objects for a seventh of all time
settings.register_profile("busy", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("busy")
BINARIES = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), default=Path("none"))


@pytest.fixture(scope="session")
def decision():
    """What makes a decision, of control and A, with whatever is changed."""
    return _decision


def _decision(decision_id, **changes):
    from features.decisions import Decision

    values = {
        "decision_id": decision_id,
        "member_id": "m1",
        "campaign_id": None,
        "decided_at": datetime(2017, 12, 1, tzinfo=UTC),
        "release_id": "r1",
        "catalogue_id": "c1",
        "outcome": "model",
        "fallback_reason": None,
        "treatment": "A",
        "propensity": 0.3,
        "draw": 0.9,
        "treatments": ("control", "A"),
        "probabilities": (0.7, 0.3),
        "asked": None,
        "refusals": ("",),
        "churn_probability": 0.25,
        "value": 1200,
        "uplift": (300,),
        "cost": (50,),
        "net_value": (250,),
        "price": 0.0,
        "stock_prices": (0.0,),
        "segment": "loyal",
        "lifecycle_stage": "active",
        "reasons": (),
        "features": b"",
        "facts": {},
        "standing": {},
        "event_timestamp": None,
        "source": "model",
        "scores": b"",
        "context": {},
        "idempotency_key": None,
    }
    return Decision(**values | changes)


class RedisServer:
    """A real server on a port of this machine; it keeps nothing on the disk."""

    def __init__(self, folder, *options):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.address = f"redis://127.0.0.1:{self.port}/0"
        self.client = Redis(port=self.port)
        memory_only = ("--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port", str(self.port))
        self._command = (_program(), *memory_only, "--dir", folder, *options)
        self.start()

    def start(self):
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        self.wait_for("Ready to accept connections")

    def wait_for(self, words):
        """Read the server's log until it says so."""
        for line in self._process.stdout:
            if words in line:
                return
        raise AssertionError(f"redis-server ended without: {words}")

    def hang(self):
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def go_on(self):
        self._process.send_signal(signal.SIGCONT)

    def stop(self):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


class PostgresServer:
    """A real server on a port of this machine that a test may stop for a while."""

    password = "hunter2 & more"  # noqa: S105 (of a server that lives as long as the tests)

    def __init__(self, name):
        if not (BINARIES / "initdb").exists():
            if "CI" in os.environ:
                pytest.fail("there is no Postgres server here: apt-get install postgresql")
            pytest.skip("no Postgres server is installed: apt-get install postgresql")
        self.root = _of_postgres(name)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.place = f"127.0.0.1:{self.port}"
        self.address = f"postgresql://shop:hunter2%20%26%20more@{self.place}/postgres"
        _as_postgres("cp", "-a", str(_made(self.password)), str(self.root / "data"))
        self.start()

    def start(self):
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.root} -c fsync=off"
        self._control("-l", str(self.root / "log"), "-w", "-o", options, "start")

    def stop(self):
        self._control("-m", "immediate", "stop")

    def run(self, statements):
        """Run statements, and give the rows of the last as lines of text."""
        connect = ("-h", str(self.root), "-p", str(self.port), "-U", "shop", "-v", "ON_ERROR_STOP=1", "-qAt")
        environment = {"PGPASSWORD": self.password, "PATH": os.environ["PATH"]}
        said = _as_postgres(str(BINARIES / "psql"), *connect, "postgres", input=statements, env=environment)
        return said.stdout.splitlines()

    def remove(self):
        shutil.rmtree(self.root)

    def _control(self, *command):
        _as_postgres(str(BINARIES / "pg_ctl"), "-D", str(self.root / "data"), *command)


@cache
def _made(password):
    """Make what a server keeps, once for all of them: that takes a second, and to copy it a tenth."""
    root = _of_postgres("made")
    atexit.register(shutil.rmtree, root)
    _as_postgres("tee", str(root / "password"), input=password)
    as_owner = ("-U", "shop", "-A", "scram-sha-256", "--pwfile", str(root / "password"), "--no-sync")
    _as_postgres(str(BINARIES / "initdb"), "-D", str(root / "data"), *as_owner)
    return root / "data"


def _of_postgres(name):
    """Make a folder whose owner runs a server."""
    root = Path("/tmp") / f"holdfast-{name}-{os.getpid()}"  # noqa: S108 (its owner has to reach it: pytest's own is 0700)
    root.mkdir(mode=0o700)
    if os.geteuid() == 0:
        shutil.chown(root, "postgres", "postgres")
    return root


def _as_postgres(*command, **how):
    """Run a server's program as somebody else than root, which it refuses."""
    drop = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    return subprocess.run([*drop, *command], check=True, capture_output=True, text=True, timeout=60, **how)


@pytest.fixture(scope="module")
def postgres_server(request):
    """A server for the tests of one file."""
    server = PostgresServer(request.module.__name__.rpartition(".")[2])
    yield server
    with contextlib.suppress(subprocess.CalledProcessError):  # a test has stopped it
        server.stop()
    server.remove()


class S3Server:
    """A real server that speaks S3, on a port of this machine; it keeps nothing on the disk."""

    address = "s3://holdfast/programme"

    def __init__(self):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        command = (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", self.url.rpartition(":")[2])
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert any("Running on" in line for line in self._process.stderr)
        self._reading = threading.Thread(target=self._process.stderr.read, daemon=True)  # else it waits for a reader
        self._reading.start()

    @property
    def environment(self):
        """What a client has to find in its environment."""
        key = {"AWS_ACCESS_KEY_ID": "ada", "AWS_SECRET_ACCESS_KEY": "hunter2"}
        return key | {"AWS_ENDPOINT_URL": self.url, "AWS_DEFAULT_REGION": "us-east-1"}

    def stop(self):
        self._process.kill()
        self._process.wait()
        self._reading.join()
        self._process.stderr.close()


@pytest.fixture(scope="session")
def s3_server():
    """A server for all tests; what each puts there is taken away after it."""
    if not (importlib.util.find_spec("moto") and importlib.util.find_spec("s3fs")):
        if "CI" in os.environ:
            pytest.fail("a server that speaks S3 is not installed; `make .venv/objects`")
        pytest.skip("a server that speaks S3 is not installed; `make .venv/objects`")
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """An empty bucket, and a client's environment; `away` lets nobody answer any more."""
    import httpx
    from s3fs import S3FileSystem

    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    httpx.put(f"{s3_server.url}/holdfast", timeout=60).raise_for_status()  # it loads itself at the first

    def point_to(url):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        forget()

    def forget():
        S3FileSystem.clear_instance_cache()
        if mlflow := sys.modules.get("mlflow.store.artifact.s3_artifact_repo"):  # which keeps its client for minutes
            mlflow._cached_get_s3_client.cache_clear()

    forget()
    away, back = partial(point_to, "http://127.0.0.1:1"), partial(point_to, s3_server.url)
    yield SimpleNamespace(address=s3_server.address, url=s3_server.url, away=away, back=back)
    forget()
    httpx.post(f"{s3_server.url}/moto-api/reset", timeout=60).raise_for_status()


def _program():
    if program := shutil.which("redis-server"):
        return program
    if "CI" in os.environ:
        pytest.fail("redis-server is not installed; .ci/run installs the package of that name")
    pytest.skip("redis-server is not installed; `apt-get install redis-server`")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    """A server for all tests; each takes a prefix of its own."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def own_redis(tmp_path):
    """A server that a test may take away."""
    server = RedisServer(tmp_path)
    yield server
    server.go_on()
    server.stop()


@pytest.fixture(scope="module")
def redis_cluster(tmp_path_factory):
    """Three masters that share the slots."""
    options = ("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "3000")
    servers = [RedisServer(tmp_path_factory.mktemp("redis"), *options) for _ in range(3)]
    for server, (first, last) in zip(servers, [(0, 5460), (5461, 10922), (10923, 16383)], strict=True):
        server.client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
        servers[0].client.execute_command("CLUSTER", "MEET", "127.0.0.1", server.port)
    for server in servers:
        server.wait_for("Cluster state changed: ok")
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def spark_there():
    """Spark, and a Java that it runs on."""
    from features.errors import NotFoundError
    from features.spark import java_version, spark_version

    try:
        spark_version()
        java_version()
    except NotFoundError as error:
        if "CI" in os.environ:
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def typist():
    """Types verbs in a process of its own, for all tests; each takes a home of its own."""
    typist = Typist()
    yield typist
    typist.end()


FEW = 20  # rounds


@pytest.fixture(scope="module")
def few_rounds():
    """Let trees be chosen by a few of them, where it is no matter how good a model is."""
    from training.learning import learners

    grow = learners.grow
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.shape.MOST_ROUNDS", FEW)
        patch.setattr(learners, "grow", lambda data, target, trees: grow(data, target, replace(trees, rounds=FEW)))
        yield


FIRST = {"test_train.py", "test_snapshots.py", "test_inputs.py", "test_parity.py", "test_drift.py", "test_live.py"}
FIRST |= {"test_add.py", "test_simulation.py", "test_beside.py"}  # and those of this folder, which take the loop whole


@pytest.hookimpl(trylast=True)  # after they were shuffled
def pytest_collection_modifyitems(items):
    """Begin with the files that take half a minute and more: one that comes last leaves the other cores idle."""
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent and item.path.name not in FIRST)
