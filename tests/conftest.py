"""What every test runs under (one clock, threads that wait without spinning, telemetry off), and servers of Redis."""

import os
import shutil
import signal
import socket
import subprocess
import time
from datetime import UTC, datetime

import pytest
from redis import Redis

os.environ.update(
    {
        "TZ": "UTC",
        "OMP_WAIT_POLICY": "passive",
        "BENTOML_DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "ITERATIVE_DO_NOT_TRACK": "1",
    }
)
time.tzset()  # before anything else is imported


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
