"""The loop, whole, on the real data: what a newcomer types, what comes back, and that it stays on this machine."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest

from features.home import Home
from features.snapshots import read_snapshots
from monitoring.drift import monitor_drift
from monitoring.reference import read_reference
from monitoring.watch import current_window, scored
from tests.typist import Typist
from training.artifacts import open_release
from training.releases.ledger import champion_id

pytestmark = pytest.mark.long
ROOT = Path(__file__).parent.parent

# Every connection a Python process makes is written down and refused unless it stays on this machine.
GUARD = """
import os, sys
def _guard(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple):
        host = str(args[1][0])
        if host not in ("127.0.0.1", "::1", "localhost"):
            with open(os.environ["HOLDFAST_TEST_CALLS"], "a") as file:
                file.write(host + "\\n")
            raise OSError("no network in tests: " + host)
    if event == "socket.getaddrinfo" and str(args[0]) not in ("127.0.0.1", "::1", "localhost", "None", ""):
        with open(os.environ["HOLDFAST_TEST_CALLS"], "a") as file:
            file.write("lookup " + str(args[0]) + "\\n")
sys.addaudithook(_guard)
"""

STAYING = """
import os
from pathlib import Path
from features.home import Home
from monitoring.demo import service, stay
with service(Home(Path(os.environ["HOLDFAST_HOME"])), 0) as (address, process):
    print(address, flush=True)
    stay(process)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loop")
    (folder / "guard").mkdir()
    (folder / "guard" / "sitecustomize.py").write_text(GUARD)
    (folder / "calls").touch()
    return folder


@pytest.fixture(scope="module")
def holdfast(place):
    environment = os.environ | {
        "PYTHONPATH": str(place / "guard"),
        "HOLDFAST_TEST_CALLS": str(place / "calls"),
        "HOLDFAST_HOME": str(place / "home"),
    }

    def run(*arguments, home=None):
        extra = {"HOLDFAST_HOME": str(home)} if home else {}
        command = [sys.executable, "-m", "holdfast", *map(str, arguments)]
        return subprocess.run(
            command, cwd=ROOT, env=environment | extra, capture_output=True, text=True, timeout=400, check=False
        )

    run.environment = environment
    return run


@pytest.fixture(scope="module")
def typed(holdfast):
    """Type what follows in one process, under the same guard."""
    typist = Typist(**holdfast.environment)
    yield partial(typist, home=holdfast.environment["HOLDFAST_HOME"])
    typist.end()


@pytest.fixture(scope="module")
def demonstration(holdfast):
    done = holdfast("demo")
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def address(demonstration, holdfast, place):
    assert demonstration.returncode == 0
    home = place / "served"  # a copy: a service is its decision log's only writer, and other tests run the loop again
    shutil.copytree(place / "home", home, ignore=shutil.ignore_patterns("mlartifacts", "warehouse"))
    command = [sys.executable, "-m", "holdfast", "serve", "--home", str(home), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, env=holdfast.environment, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().split()[-1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def numbers(text):
    """Keep the lines with an interval, a decision or a count: what may not differ between two runs."""
    return [line for line in text.splitlines() if re.search(r"\[[-+\d]| USD |\d,\d{3}", line) and "took" not in line]


def test_every_step_prints_its_table_and_calls_what_is_not_real_by_its_name(demonstration):
    for words in (
        "1,469,307",
        "logistic regression",
        "OBSERVATIONAL",
        "refuses to act",
        "SIMULATED",
        "oracle",
        "drift",
    ):
        assert words in demonstration.stdout
    assert demonstration.stderr == ""


def test_the_readme_tells_of_it_what_it_shows(demonstration):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for metric, row in (("AUC", "lapse within 28 days"), ("mean absolute error", "margin within 28 days")):
        shown = re.search(rf"{metric} +[\d.]+ \[([\d.]+), ([\d.]+)\]", demonstration.stdout)
        said = re.search(rf"^\| {row}[^|]*\| ([\d.]+)", readme, re.MULTILINE)
        lower, upper = map(float, shown.groups())  # another version of a library moves the last digits
        assert lower < float(said[1]) < upper


def test_a_second_run_shows_the_same_figures_and_redoes_nothing(demonstration, typed, place):
    kept = {p: p.stat().st_mtime_ns for p in (place / "home" / "features").glob("*.parquet")}
    kept |= {p: p.stat().st_mtime_ns for p in (place / "home" / "warehouse").iterdir()}
    again = typed("demo")
    assert numbers(again.stdout) == numbers(demonstration.stdout)
    assert "stands: nothing changed" in again.stdout
    assert {p: p.stat().st_mtime_ns for p in kept} == kept


def test_the_pictures_are_in_the_run_s_artifacts(demonstration, place):
    assert demonstration.returncode == 0
    drawn = {path.name for path in (place / "home" / "mlartifacts").rglob("*.png")}
    assert drawn >= {"churn_reliability.png", "uplift_1_type_a.png", "uplift_calibration_1_type_a.png", "policies.png"}


def test_nothing_left_this_machine(demonstration, place):
    assert demonstration.returncode == 0
    assert (place / "calls").read_text() == ""


def test_the_readmes_curl_gets_decisions(address):
    readme = (ROOT / "README.md").read_text()
    command = re.search(r"^curl .*?'\n```", readme, re.DOTALL | re.MULTILINE).group(0).removesuffix("\n```")
    words = shlex.split(command.replace("\\\n", " ").replace("http://127.0.0.1:3000", address))
    words += ["-H", "Request-Deadline-Ms: 10000"]  # a machine that is busy with tests is late
    first, second = (subprocess.run(words, capture_output=True, check=True, timeout=30).stdout for _ in range(2))
    known, nobody = json.loads(first)["decisions"]
    assert known["outcome"] in {"model", "hold_out"}
    assert (nobody["outcome"], nobody["fallback_reason"]) == ("fallback", "unknown_member")
    assert first == second


def test_the_service_reads_features_through_feast_and_says_their_age(address):
    answer = httpx.post(f"{address}/v1/scores", json={"members": ["1"]}, timeout=30).raise_for_status().json()
    (score,) = answer["scores"]
    assert 0 < score["churn_probability"] < 1
    assert 0 <= score["feature_age_seconds"] < 3600
    assert set(score["uplift"]) == {"type_a", "type_b", "type_c"}
    assert answer["experiment"] == "simulated"


def test_a_flipped_byte_in_the_release_is_refused(demonstration, typed, place, tmp_path):
    assert demonstration.returncode == 0
    home = tmp_path / "home"
    shutil.copytree(place / "home", home, ignore=shutil.ignore_patterns("mlartifacts", "warehouse", "features"))
    release = json.loads((home / "releases" / "champion.json").read_text())["release_id"]
    path = home / "releases" / release / "churn.json"
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    refused = typed("serve", "--port", 0, home=home)
    assert refused.returncode == 2
    assert "not the file that was released" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_bento_builds(holdfast, tmp_path):
    environment = holdfast.environment | {
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    built = subprocess.run(
        [sys.executable, "-m", "bentoml", "build"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (made,) = (tmp_path / "bentoml" / "bentos" / "holdfast").glob("*/src")
    assert (made / "serving" / "service.py").is_file()
    assert (made / "features" / "stores" / "online.py").is_file()  # what lies deeper comes along
    assert {"texts.toml", "style.css", "frame.html"} <= {one.name for one in (made / "serving" / "pages").iterdir()}


def test_the_page_and_its_json_say_the_same_of_the_members(demonstration, typed, place):
    assert "overview-en.html" in demonstration.stdout
    file = place / "monday.html"
    told = typed("monitor", "report", "--out", file, "--json")
    assert told.returncode == 0, told.stderr
    view = json.loads(told.stdout)
    members, risk = view["membership"]["members"], view["risk"]
    page = file.read_text(encoding="utf-8")
    assert members == 2469
    assert f"<b>{members:,}</b>" in page
    assert risk["members"] == sum(band["members"] for band in risk["bands"] if band["members"])
    assert risk["leaving"]["lower"] < risk["leaving"]["value"] < risk["leaving"]["upper"]
    assert f"<b>{risk['leaving']['value']:,.0f}</b>" in page
    assert {report["design"] for report in view["campaigns"]["reports"]} == {"observational"}  # they were targeted
    assert "OBSERVATIONAL" in page
    assert view["campaigns"]["earned"] is None


def test_drift_has_a_verdict_a_report_and_an_exit_code(demonstration, typed, place):
    assert demonstration.returncode == 0
    verdict = typed("monitor", "drift", "--json")
    said = json.loads(verdict.stdout)
    assert verdict.returncode == said["exit_code"] == {"no_drift": 0, "drift": 1}[said["status"]]
    (report,) = (place / "home" / "reports").glob("drift-*.html")
    assert "<script src=" not in report.read_text(encoding="utf-8")


def test_the_end_of_the_year_is_no_drift_and_a_break_planted_in_it_is(demonstration, place):
    assert demonstration.returncode == 0
    home = Home(place / "home")
    release = open_release(home.releases, champion_id(home))
    reference = read_reference(home.reference / release.release_id)
    december = read_snapshots(home, current_window(home, weeks=4))

    def found(rows):
        verdict = monitor_drift(reference, scored(release, rows), rng=np.random.default_rng(0), report=None)
        return verdict.status, {finding.column for finding in verdict.findings}

    assert found(december) == ("no_drift", set())
    status, columns = found(december.assign(spend_28d=0.3 * december["spend_28d"]))  # lines get lost on the way
    assert status == "drift"
    assert "spend_28d" in columns
    assert columns - {"spend_28d"} <= {"churn probability", "value", *(f"uplift of {o}" for o in release.offer_ids)}


def test_releases_lists_the_champion_and_rollback_has_nowhere_to_go(demonstration, typed):
    assert demonstration.returncode == 0
    assert "champion" in typed("releases").stdout
    refused = typed("rollback")
    assert refused.returncode == 2
    assert "no champion before" in refused.stderr


def test_who_stops_the_demonstration_stops_the_service_that_it_left_answering(demonstration, holdfast):
    assert demonstration.returncode == 0
    command, environment = [sys.executable, "-c", STAYING], holdfast.environment
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as staying:
        address = staying.stdout.readline().strip()
        assert httpx.get(f"{address}/livez").status_code == 200
        staying.terminate()
        assert staying.wait(60) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/livez")
