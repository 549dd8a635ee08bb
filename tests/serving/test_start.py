"""What `holdfast serve` refuses before it takes a request."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from features.errors import ContractError, NotFoundError
from features.home import Home
from serving.service import serve, service

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])  # noqa: S104 (it is refused)
def test_without_keys_only_this_machine_may_ask(tmp_path, host):
    with pytest.raises(ContractError, match=r"127\.0\.0\.1 was wanted"):
        serve(Home(tmp_path), host=host, port=0)


def test_a_taken_port_is_said_in_words(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ContractError, match="something listens there already"):
            serve(Home(tmp_path), port=port)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_refused(tmp_path, port):
    with pytest.raises(ContractError, match="can't listen"):
        serve(Home(tmp_path), port=port)


def test_without_a_champion_there_is_nothing_to_serve(tmp_path):
    with pytest.raises(NotFoundError, match="no champion"):
        serve(Home(tmp_path), port=0)
    assert list(tmp_path.iterdir()) == []


def test_a_bento_can_be_made_of_it_and_importing_it_opens_nothing(tmp_path):
    assert (service.name, service.import_string) == ("holdfast", "serving.service:service")
    program = "import sys, serving.service; print(*sys.modules)"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    started = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert list(tmp_path.iterdir()) == []
    slow = {"feast", "optuna", "evidently", "mlflow", "duckdb", "ibis"}
    assert slow.isdisjoint(started.stdout.split())


def test_what_serves_does_without_scikit_learn_which_is_there_for_whoever_asks_for_it():
    program = (
        "import training.lean, sys, serving.service;"
        "print(*sys.modules); from sklearn.linear_model import LogisticRegression"
    )
    started = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(started.stdout.split())
    assert "xgboost" in loaded
    assert loaded.isdisjoint({"sklearn", "pandas", "scipy.stats"})
