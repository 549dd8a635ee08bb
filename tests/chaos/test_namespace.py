"""The pipeline in a network of its own with nothing outside: nothing is called, and nothing but the service listens."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OWN = re.compile(r"sin_addr=inet_addr\(\"127\.|sin6_addr=.*\"::1\"|sun_path|AF_NETLINK|AF_UNSPEC")
PIPELINE = """
import asyncio, subprocess, sys
from pathlib import Path
from tests.chaos.client import Client
from tests.serving.test_live import home as company

class Folders:
    def mktemp(self, name):
        place = Path(sys.argv[1]) / name
        place.mkdir()
        return place

home = company.__wrapped__(Folders()) if hasattr(company, "__wrapped__") else company._get_wrapped_function()(Folders())
command = [sys.executable, "-m", "holdfast", "serve", "--home", str(home.root), "--port", "0"]
with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
    address = service.stdout.readline().split()[-1]
    answer = asyncio.run(Client(address).ask("POST", "/v1/decisions", {"members": ["m1", "m2"]}))
    print("answered", answer.status, address.rsplit(":", 1)[1], flush=True)
    open_ones = subprocess.run(["ss", "-Htuln"], capture_output=True, text=True, check=False).stdout
    print("listening", *(line.split()[4] for line in open_ones.splitlines()), flush=True)
    service.terminate()
print("ended", service.returncode, flush=True)
"""


@pytest.fixture
def alone(tmp_path):
    """Give what runs a program with no network but its own loopback, and notes every call to it."""
    if not all(shutil.which(program) for program in ("unshare", "ip", "strace")):
        pytest.skip("unshare, ip and strace are needed")
    if subprocess.run(["unshare", "-n", "true"], check=False, capture_output=True).returncode:
        pytest.skip("a network of one's own is given to root alone")
    trace = tmp_path / "trace.txt"

    def run(*command):
        inside = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
        spied = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=connect,sendto,bind,listen", "-o", trace]
        done = subprocess.run(
            ["unshare", "-n", *inside, *spied, *command],
            check=False, capture_output=True, text=True, cwd=ROOT, timeout=900, env=os.environ | {"TZ": "UTC"},
        )  # fmt: skip
        return done, trace.read_text().splitlines()

    return run


def outbound(calls):
    """Give the calls that would leave this machine."""
    return [
        call
        for call in calls
        if (" connect(" in call or " sendto(" in call) and "sa_family=AF_INET" in call and not OWN.search(call)
    ]


def test_a_call_to_the_outside_would_be_seen(alone):
    program = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect_ex(('192.0.2.1', 53))"
    _, calls = alone(sys.executable, "-c", program)
    assert len(outbound(calls)) == 1


def test_the_pipeline_calls_nobody_and_only_the_service_listens(alone, tmp_path, tell):
    done, calls = alone(sys.executable, "-c", PIPELINE, str(tmp_path))
    told = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith(("ans", "list", "end")))
    assert done.returncode == 0, done.stderr[-2000:]
    status, port = told["answered"].split()
    assert status == "200"
    assert set(told.get("listening", "").split()) <= {f"127.0.0.1:{port}"}
    assert told["ended"] == "0"
    tell("ingest, features, release, service with no network", len(calls), len(outbound(calls)), "calls to the network")


def test_the_whole_demonstration_calls_nobody(alone, tmp_path, effort, tell):
    if not effort(short=False, long=True):
        pytest.skip("CHAOS=long: it takes minutes")
    home = tmp_path / "home"
    done, calls = alone(sys.executable, "-m", "holdfast", "demo", "--home", str(home))
    assert done.returncode == 0, done.stderr[-2000:]
    tell("holdfast demo with no network", len(calls), len(outbound(calls)), "calls to the network")
