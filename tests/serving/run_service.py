"""Run the service on a free port, with members in memory: what tests/serving start."""

import importlib.util
import sys
from pathlib import Path

import numpy as np

from features.decisions import DecisionLog
from features.home import Home
from features.live import Live
from serving import service
from serving.decide import Decider
from serving.desk import Desk, World
from training.artifacts import load_release

if __name__ == "__main__":
    spec = importlib.util.spec_from_file_location("members", Path(__file__).with_name("conftest.py"))
    members = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(members)
    decider = Decider(load_release(Path(sys.argv[1])))
    clock = service._clock(decider.programme)
    world = World(clock=clock, new_id=lambda: service.uuid.uuid4().hex, rng=np.random.default_rng(5))
    log = Path(sys.argv[2])
    nothing = Live(Home(log.parent / "nothing"), members.Memory())
    desk = Desk(decider, members.Memory(), DecisionLog(log), live=nothing, world=world)
    with service._listen("127.0.0.1", 0) as listening:
        service.run(desk, listening, ready=lambda address: print(address, flush=True))  # noqa: T201 (the test reads it)
