"""Run the service on a free port, with members in memory: what tests/serving start."""

if __name__ == "__main__":
    import training.lean  # noqa: F401  (before XGBoost itself)

# isort: split

import importlib.util
import sys
from pathlib import Path

import numpy as np

from features.decisions import open_log
from features.home import Home
from features.live import Live
from features.programme import Programme, Serving
from serving import service
from serving.champion import Watch
from serving.desk import Desk
from serving.offering import Offering
from serving.shadow.keeper import Shadow
from serving.world import World
from training.artifacts import load_release


def open_desk(release_root, log_path):
    spec = importlib.util.spec_from_file_location("members", Path(__file__).with_name("conftest.py"))
    members = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(members)
    release = load_release(Path(release_root))
    clock = service._clock(Programme.model_validate(release.manifest.programme))
    world = World(clock=clock, new_id=lambda: service.uuid.uuid4().hex, rng=np.random.default_rng(5))
    home = Home(Path(log_path).parent)
    log = open_log(home)
    nothing = Live(Home(home.root / "nothing"), members.Memory())
    patient = Serving(deadline_ms=10_000)  # a busy machine is no fault
    offering = Offering(home, release, log, now=clock())
    watch = Watch(home, offering, members.Memory(), clock=clock, interval=0.02)
    told = {
        "world": world,
        "settings": patient,
        "watch": watch,
        "shadow": Shadow(home, tick=0.05, command=members.hasty_shadow),
    }
    return Desk(offering, members.Memory(), log, live=nothing, **told)


def main(release_root, log_path, ready=lambda address: print(address, flush=True)):  # noqa: T201 (the test reads it)
    desk = open_desk(release_root, log_path)
    with service._listen("127.0.0.1", 0, keys=False) as listening:
        service.run(desk, listening, home=Home(Path(log_path).parent), ready=ready)


if __name__ == "__main__":
    main(*sys.argv[1:])
