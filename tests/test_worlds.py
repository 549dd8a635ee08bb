"""The loop on worlds whose truth is stated: from `ingest synthetic` to a decision, by the verbs that one types."""

import pytest
from typer.testing import CliRunner

from features.files import fingerprint  # noqa: F401
from features.home import Home
from holdfast import app, quiet_dependencies
from training.ledger import champion_id

pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")


def typed(home, *words):
    done = CliRunner().invoke(app, [*map(str, words), "--home", str(home.root)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture(scope="module", params=["retail", "subscription"])
def world(request, tmp_path_factory):
    quiet_dependencies()
    home = Home(tmp_path_factory.mktemp(request.param))
    for words in (
        ("ingest", "synthetic", "--members", 3000, "--shape", request.param),
        ("features", "build"),
        ("features", "apply"),
        ("features", "materialize"),
        ("train", "--trials", 2),
        ("promote",),
    ):
        import time

        t = time.time()
        done = typed(home, *words)
        print(words, done.exit_code, round(time.time() - t, 1), done.stdout[-6000:])
    return home


def test_x(world):
    print(champion_id(world))
