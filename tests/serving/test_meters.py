"""What the process itself takes stands beside what the service does: of one process, and of each of several."""

import os
import re
import subprocess
import sys

from serving.meters import FOLDER, WORKERS, Meters

WORKER = """
from serving.meters import Meters
meters = Meters()
meters.answered("/livez", 200, 0.1)
print(meters.text().decode())
"""


def test_one_process_tells_what_it_takes():
    text = Meters().text().decode()
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"):
        (value,) = re.findall(rf"^{name} (\S+)$", text, flags=re.MULTILINE)
        assert float(value) > 0


def test_a_folder_of_another_library_changes_nothing(tmp_path):
    """Feast sets the variable too when it is imported first."""
    told = subprocess.run(
        [sys.executable, "-c", WORKER],
        env=os.environ | {FOLDER: str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'holdfast_requests_total{call="/livez",status="200"} 1.0' in told.stdout
    assert "process_resident_memory_bytes" in told.stdout


def test_a_folder_that_whoever_started_it_left_behind_is_not_used(tmp_path):
    script, environment = (
        f"import holdfast; holdfast.quiet_dependencies(){WORKER}",
        os.environ | {FOLDER: str(tmp_path / "gone")},
    )
    told = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert 'holdfast_requests_total{call="/livez",status="200"} 1.0' in told.stdout


def test_each_of_several_workers_tells_for_all(tmp_path):
    folder = tmp_path / f"{WORKERS}x"
    folder.mkdir()
    command, environment = [sys.executable, "-c", WORKER], os.environ | {FOLDER: str(folder)}
    for _ in range(2):
        told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = dict(re.findall(r'^(holdfast_worker_\w+\{pid="\d+"\}) (\S+)$', told.stdout, flags=re.MULTILINE))
    assert len(found) == 2 * 3
    assert all(float(value) > 0 for value in found.values())
    assert 'holdfast_requests_total{call="/livez",status="200"} 2.0' in told.stdout
