"""A programme whose figures can be worked out in the head, and a browser to see them in.

A hundred members buy for 10 USD every Monday, of which a quarter is margin; in the last week only half of them do. Of a
campaign, 40 members were held out and 60 got an offer for 1 USD: held out is a margin of 10 USD, sent
is one of 17.50 USD or, as often, of 22.50.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from websockets.sync.client import connect

from features.decisions import DecisionLog, Outcome
from features.home import Home
from features.ingest import ingest
from features.programme import Programme
from features.snapshots import build
from monitoring.overview.overview import gather
from monitoring.overview.page import write_pages

WRITTEN = datetime(2018, 6, 1, 9, tzinfo=UTC)
FIRST, WEEKS = datetime(2017, 11, 27, 12, tzinfo=UTC), 14  # Mondays
SENT = datetime(2018, 1, 8, 12, tzinfo=UTC)
SAYING = {"Log.entryAdded", "Runtime.consoleAPICalled"}
SERVING = Path(__file__).parents[2] / "serving" / "conftest.py"


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    place = Home(tmp_path_factory.mktemp("known") / "home")
    place.root.mkdir()
    place.settings.write_text('name = "The Corner Shop"\n[experiment]\nhold_out = 0.4\nrandom_arm = 0.0\n')
    members = pd.DataFrame({"member_id": [f"m{i}" for i in range(100)], "joined_at": datetime(2017, 1, 1, tzinfo=UTC)})
    bought = [
        (f"t{i}-{week}", f"m{i}", FIRST + timedelta(days=7 * week), 1000)
        for week in range(WEEKS)
        for i in range(50 if week == WEEKS - 1 else 100)
    ]
    bought.append(("last", "m0", FIRST + timedelta(days=7 * WEEKS - 1), 0))  # so that the last week is over
    names = ["transaction_id", "member_id", "occurred_at", "amount"]
    offers = {
        "offer_id": ["A"], "name": ["a"], "channel": "mail", "contact_cost": 100, "redemption_cost": 0,
        "valid_from": FIRST, "valid_until": datetime(2018, 12, 31, tzinfo=UTC),
    }  # fmt: skip
    frames = {"members": members, "transactions": pd.DataFrame(bought, columns=names), "offers": pd.DataFrame(offers)}
    ingest(frames, home=place, programme=Programme(), source="made", key="known")
    build(place, progress=lambda *_: None)
    return place


@pytest.fixture(scope="session")
def decided(home, decision):
    with DecisionLog(home.decisions) as log:
        for number in range(100):
            held = number < 40
            values = {
                "member_id": f"m{number}", "campaign_id": "spring", "decided_at": SENT,
                "outcome": "hold_out" if held else "model", "treatment": "control" if held else "A",
                "propensity": 1.0, "probabilities": (1.0, 0.0) if held else (0.0, 1.0), "value": None,
                "uplift": (800,), "cost": (100,), "net_value": (700,), "event_timestamp": SENT - timedelta(days=1),
            }  # fmt: skip
            log.append([decision(f"d{number}", **values)], now=SENT)
            bought = 4000 if held else 7000 + 2000 * (number % 2)  # a quarter of it is margin
            when = SENT + timedelta(days=3)
            log.record(Outcome(f"o{number}", f"d{number}", None, "purchase", when, bought), now=SENT).result()
    return home


@pytest.fixture(scope="session")
def view(decided):
    return gather(decided, written=WRITTEN, progress=lambda *_: None)


@pytest.fixture(scope="session")
def nothing(tmp_path_factory):
    return gather(Home(tmp_path_factory.mktemp("empty")), written=WRITTEN, progress=lambda *_: None)


@pytest.fixture(scope="session")
def serving():
    """What tests/serving make a release and a service with."""
    spec = importlib.util.spec_from_file_location("serving_conftest", SERVING)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def address(serving, view, tmp_path_factory):
    """A service of another release that shows the known figures."""
    root = serving.made_release(tmp_path_factory.mktemp("release"), np.random.default_rng(7))
    log = tmp_path_factory.mktemp("served") / "decisions.db"
    write_pages(Home(log.parent), view)
    with serving._started(root, log) as (_, address):
        yield address


class Browser:
    """Chromium without a window, driven by its own protocol; every error it sees and every address it asks is kept."""

    def __init__(self, socket):
        self._socket = socket
        self._number, self._session, self.errors, self.asked, self._events = 0, None, [], [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        while True:
            answer = self._hear()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _hear(self):
        answer = json.loads(self._socket.recv(timeout=60))
        name, told = answer.get("method"), answer.get("params", {})
        if name == "Network.requestWillBeSent":
            self.asked.append(told["request"]["url"])
        said = told.get("entry", {}).get("level") or told.get("type")
        if name == "Runtime.exceptionThrown" or (name in SAYING and said in {"error", "warning"}):
            self.errors.append(told)
        self._events.append(name)
        return answer

    def open(self, address):
        self._arrives(lambda: self.call("Page.navigate", url=address))

    def _arrives(self, go):
        self._events.clear()
        go()
        while "Page.loadEventFired" not in self._events:
            self._hear()

    def submit(self, text):
        """Type into the page's form, and send it with the key that sends forms."""
        self.run("document.querySelector('form input[type=text]').focus()")
        self.call("Input.insertText", text=text)
        enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        self._arrives(lambda: self.call("Input.dispatchKeyEvent", type="keyDown", **enter))

    def press(self, key, code):
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def run(self, expression):
        """Give what a line of JavaScript comes to; the page's own policy does not hold it up."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def look(self, width, height, *, dark=False):
        """Take the size of a screen, and its light."""
        mobile = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def picture(self):
        """Give the whole page as a PNG."""
        return b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"])


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    if (program := shutil.which("chromium")) is None:
        if "CI" in os.environ:
            pytest.fail("chromium is not installed; .ci/run installs the package of that name")
        pytest.skip("chromium is not installed: apt-get install chromium")
    quiet = ("background-networking", "component-update", "sync", "quic", "gpu", "default-apps", "extensions")
    flags = ["headless", "no-sandbox", "no-first-run", "hide-scrollbars", *(f"disable-{name}" for name in quiet)]
    flags += ["remote-debugging-port=0", f"user-data-dir={tmp_path_factory.mktemp('profile')}"]
    command = [program, *(f"--{flag}" for flag in flags)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            lines = (re.search("listening on (ws://.*)", line) for line in process.stderr)
            address = next(found[1] for found in lines if found)
            # pings would draw from the module random, in a thread: Hypothesis takes that for a strategy's drawing
            with connect(address, max_size=None, proxy=None, ping_interval=None) as socket:
                yield Browser(socket)
        finally:
            process.kill()
