"""Serving on the demonstration's home, over real sockets: decisions a second, how late, and what overload does.

Every rival is served in the same run by a process of its own, and asked by wrk with the same connections. The bare
application has the same clerk and log; the usual wiring and `mlflow models serve` log nothing, and the latter is even
given the features.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pytest

from features.home import Home
from training.artifacts import load_release, open_release, write_release
from training.releases.ledger import champion_id
from training.releases.shadow import begin_shadow, end_shadow

CONNECTIONS, SECONDS, TIMES = 32, 6, 20
PAUSE_MINUTES = float(os.environ.get("HOLDFAST_BENCH_PAUSE_MINUTES", "1"))  # 10: the whole of it
PAUSE = 0.05  # seconds
TURNS = 3  # without a shadow, and beside one
SINCE = datetime(2026, 1, 1, tzinfo=UTC)
RIVALS = Path(__file__).with_name("rivals")
LUA = """
local bodies = {{ {} }}
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local n = 0
function request()
  n = n + 1
  return wrk.format(nil, nil, nil, bodies[n % #bodies + 1])
end
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Copy the home, so that what is decided stays out of it."""
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not on PATH: throughput is measured with it (https://github.com/wg/wrk)")
    place = Home(Path(os.environ.get("HOLDFAST_HOME", ".holdfast")))
    if champion_id(place) is None:
        pytest.skip(f"{place.root} holds no champion; `make demo` first")
    copy = Home(tmp_path_factory.mktemp("serving") / "home")
    shutil.copytree(place.root, copy.root, ignore=shutil.ignore_patterns("mlartifacts", "mlflow.db", "decisions.db*"))
    return copy


@pytest.fixture(scope="module")
def members(home):
    from features.snapshots import built, read_snapshots

    return read_snapshots(home, built(home)[-1:])["member_id"].tolist()


@contextmanager
def served(*command):
    """Start a server, and read its address from its first line."""
    with subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield re.search(r"http://\S+", process.stdout.readline()).group()
        finally:
            process.terminate()


@contextmanager
def ours(home):
    with served("-m", "holdfast", "serve", "--home", home.root, "--port", "0") as address:
        yield f"{address}/v1/decisions"


@contextmanager
def mlflow_serves(home, tmp_path):
    """Serve the same boosters by `mlflow models serve`, with the machine's own environment."""
    import httpx
    import mlflow

    root = home.releases / champion_id(home)
    artifacts = {name: str(root / f"{name}.json") for name in ("churn", "value", "uplift")}
    code = str(RIVALS / "same_models.py")
    mlflow.pyfunc.save_model(tmp_path / "model", python_model=code, artifacts=artifacts, pip_requirements=["xgboost"])
    command = ["-m", "mlflow", "models", "serve", "-m", tmp_path / "model", "-p", "5077", "--env-manager", "local"]
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                httpx.get("http://127.0.0.1:5077/ping").raise_for_status()
                break
            except httpx.HTTPError:
                threading.Event().wait(0.5)
        else:
            raise TimeoutError("mlflow models serve did not answer within a minute")
        yield "http://127.0.0.1:5077/invocations"
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def say(line):
    sys.stdout.write(f"\n{line}")


def wrk(address, bodies, tmp_path, *, connections=CONNECTIONS, seconds=SECONDS):
    """Ask as often as it goes; give the answers of 200 a second."""
    script = tmp_path / "bodies.lua"
    script.write_text(LUA.format(",".join(f"[==[{body}]==]" for body in bodies)))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script, address]
    said = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    assert refused is None or int(refused.group(1)) < int(re.search(r"(\d+) requests", said).group(1)), said
    answers, took = re.search(r"(\d+) requests in ([\d.]+)s", said).groups()
    return (int(answers) - (int(refused.group(1)) if refused else 0)) / float(took)


def load(address, bodies, *, rate):
    """Send bodies at so many a second, whoever is slow; give (seconds, status, seconds late to leave) of each."""
    command = [sys.executable, Path(__file__).with_name("open_loop.py"), address, rate]
    said = subprocess.run(list(map(str, command)), input="\n".join(bodies), capture_output=True, text=True, check=True)
    return json.loads(said.stdout)


def percentile(took, share):
    return float(np.quantile([seconds for seconds, *_ in took], share)) * 1e3


def of_one(members):
    return [json.dumps({"members": [member]}) for member in members[:500]]


def feature_bodies(home):
    """Give golden rows of the release, as `mlflow models serve` takes them."""
    root = home.releases / champion_id(home)
    rows = json.loads((root / "golden.json").read_text())["rows"]
    names = load_release(root).feature_names
    return [json.dumps({"dataframe_split": {"columns": names, "data": [row]}}) for row in rows]


@pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)  # MLflow's own
def bench_decisions_a_second(home, members, tmp_path):
    found = {}
    with ours(home) as address:
        wrk(address, of_one(members), tmp_path, seconds=2)
        found["holdfast serve"] = wrk(address, of_one(members), tmp_path)
    with served(RIVALS / "bare.py", home.root) as address:
        wrk(address, of_one(members), tmp_path, seconds=2)
        found["bare ASGI, same clerk and log"] = wrk(address, of_one(members), tmp_path)
    with served(RIVALS / "usual.py", home.root) as address:
        wrk(address, of_one(members), tmp_path, seconds=2)
        found["the usual wiring"] = wrk(address, of_one(members), tmp_path)
    with mlflow_serves(home, tmp_path) as address:
        found["mlflow models serve"] = wrk(address, feature_bodies(home), tmp_path)
    for name, rate in found.items():
        say(f"{name:32} {rate:8,.0f} a second   ours / this {found['holdfast serve'] / rate:6.2f}")
    assert min(found.values()) > 0


def bench_latencies(home, members):
    one = of_one(members) * 4
    many = [json.dumps({"members": members[n : n + 100]}) for n in range(0, 2_000, 100)] * 3
    with ours(home) as address:
        load(address, one[:400], rate=200)
        for name, bodies, rate in (("1 member, 200 a second", one, 200), ("100 members, 5 a second", many, 5)):
            took = load(address, bodies, rate=rate)
            assert {status for _, status, _ in took} == {200}
            figures = "   ".join(f"p{share:g} {percentile(took, share / 100):6.1f} ms" for share in (50, 99, 100))
            say(f"{name:32} {figures}")


def bench_pauses(home, members):
    """Ask 50 times a second for minutes, so that whatever the service does now and then is met."""
    bodies = (of_one(members) * (1 + int(PAUSE_MINUTES * 6)))[: int(PAUSE_MINUTES * 60 * 50)]
    with ours(home) as address:
        load(address, bodies[:400], rate=200)
        took = load(address, bodies, rate=50)
    assert {status for _, status, _ in took} == {200}
    left = [(own,) for *_, own in took]
    for name, answers in ((f"{PAUSE_MINUTES:g} minutes, 50 a second", took), ("the generator left late by", left)):
        over = sum(seconds > PAUSE for seconds, *_ in answers)
        p99, longest = percentile(answers, 0.99), percentile(answers, 1)
        say(f"{name:32} p99 {p99:6.1f} ms   longest {longest:6.1f} ms   {over:,} of {len(answers):,} over 50 ms")


def bench_shadow(home, members, tmp_path):
    """Ask without a shadow and beside one that costs as much as the champion, in turn; what it can't do waits."""
    release = open_release(home.releases, champion_id(home))
    rows = json.loads((home.releases / release.release_id / "golden.json").read_text())["rows"]
    manifest = replace(release.manifest, evidence={})
    twin = write_release(home.releases, manifest, release.models, np.array(rows, dtype=np.float32)).release_id
    found = {None: [], twin: []}
    with ours(home) as address:
        load(address, of_one(members)[:400], rate=200)
        for shadow in (None, twin) * TURNS:
            if shadow:
                begin_shadow(home, shadow, who="bench", now=SINCE)
            else:
                end_shadow(home)
            metrics = until_shadow(address.removesuffix("/v1/decisions"), shadow)
            took = load(address, of_one(members) * 2, rate=200)
            assert {status for _, status, _ in took} == {200}
            rate = wrk(address, of_one(members), tmp_path)
            found[shadow].append((percentile(took, 0.5), percentile(took, 0.99), rate))
        for shadow, figures in found.items():
            p50, p99, rate = np.median(figures, axis=0)
            name = "beside a shadow" if shadow else "no shadow"
            say(f"{name:32} p50 {p50:6.1f} ms   p99 {p99:6.1f} ms   {rate:8,.0f} a second   (medians of {TURNS})")
        taken = [line for line in metrics().splitlines() if line.startswith("holdfast_shadow_decisions_total")]
        say("   ".join(line.removeprefix("holdfast_") for line in taken))
    end_shadow(home)


def until_shadow(address, wanted):
    """Wait until a release is the shadow, or none is; give what reads the metrics."""
    import httpx

    until = time.monotonic() + 60
    while httpx.get(f"{address}/v1/release").json()["shadow"] != wanted:
        assert time.monotonic() < until, "the shadow does not come"
        threading.Event().wait(0.2)
    return lambda: httpx.get(f"{address}/metrics").text


def bench_overload(home, members, tmp_path):
    """Ask with many times the connections; beside it, a server that does nothing else says 429 on the same machine."""
    bodies, found = of_one(members), []
    with ours(home) as address, served(RIVALS / "busy.py") as bare:
        wrk(address, bodies, tmp_path, seconds=2)
        peak = wrk(address, bodies, tmp_path)
        during = threading.Thread(
            target=lambda: found.append(wrk(address, bodies, tmp_path, connections=TIMES * CONNECTIONS))
        )
        during.start()
        took = load(address, bodies[:1] * 60, rate=20)
        floor = load(bare, bodies[:1] * 40, rate=20)
        during.join()
        start = time.monotonic()
        after = wrk(address, bodies, tmp_path, seconds=5)
    say(f"{'peak':32} {peak:8,.0f} a second")
    say(f"{f'{TIMES} times the connections':32} {found[0]:8,.0f} a second   {found[0] / peak:.2f} of the peak")
    say(f"{'within 5 s after':32} {after:8,.0f} a second   {after / peak:.2f} of the peak")
    for name, answers in (("429", took), ("429 of a bare server beside it", floor)):
        refused = [one for one in answers if one[1] == HTTPStatus.TOO_MANY_REQUESTS]
        if refused:
            say(f"{name:32} p50 {percentile(refused, 0.5):6.1f} ms   p99 {percentile(refused, 0.99):6.1f} ms")
    assert time.monotonic() - start < 30
