"""Two homes on one Postgres: who is erased at one of them goes from what the other's shadow made of members."""

import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime

import pytest

from features.decisions import open_log
from features.home import Home
from features.privacy.erasure import erase
from features.shadow import ShadowFile, ShadowRow
from serving.service import open_desk
from serving.shadow.erasures import Erasures

NOW = datetime(2017, 12, 1, 12, tzinfo=UTC)


def row(member_id):
    numbers = dict.fromkeys(ShadowRow.__annotations__, 0.5)
    words = dict.fromkeys(("decision_id", "champion", "shadow", "treatment", "shadow_treatment"), "a")
    return ShadowRow(**numbers | words | {"member_id": member_id, "decided_at": NOW, "campaign_id": None})


@pytest.fixture
def one(home, tmp_path_factory, postgres_server):
    """Another home that agrees with the one that serves, in which a shadow made something of three members."""
    one = Home(tmp_path_factory.mktemp("one"))
    engine = f'decisions = "{postgres_server.address}"\nagree = true\ndecisions_timeout_ms = 10000\n'
    for place in (one, home):
        place.settings.write_text(f"[engine]\n{engine}")
        place.privacy_key.write_bytes(bytes(32))
    with ShadowFile(home.shadow) as file, file.writing():
        file.add([row(name) for name in ("m1", "m2", "m3", "m1")])
    yield one
    postgres_server.run("DROP SCHEMA IF EXISTS holdfast_ledger CASCADE")


@pytest.fixture
def left(home):
    """Wait until the file is about these members alone; what never becomes so is a failure."""

    def left(*wanted):
        pause, waited, found = threading.Event(), 0, []
        while found != [*wanted]:
            pause.wait(0.05)
            assert (waited := waited + 1) < 1_000, found
            with ShadowFile(home.shadow) as file:
                found = [name for names in file.members() for name in names]

    return left


def test_who_is_erased_at_another_instance_is_erased_from_the_shadows_file(home, one, left, members, monkeypatch):
    monkeypatch.setattr("features.shadow._NAMED", 2)  # members at once
    with open_log(one) as log, closing(open_desk(home)):
        erase(one, ("m1", "m3"), log=log, store=members, clock=lambda: NOW)
        left("m2")
        erase(one, ("m2",), log=log, store=members, clock=lambda: NOW)
        left()


def test_what_can_not_be_deleted_now_is_deleted_later_and_said_once(home, one, left, members, caplog, *, monkeypatch):
    monkeypatch.setattr("features.shadow.WAIT_SECONDS", 0.05)
    with open_log(one) as log:
        erase(one, ("m1",), log=log, store=members, clock=lambda: NOW)
    with open_log(home):  # it comes to know
        erasures, never = Erasures(home), threading.Event()
    with closing(erasures), closing(sqlite3.connect(home.shadow, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        erasures.follow(never)
        erasures.follow(never)
        writer.execute("ROLLBACK")
        assert caplog.text.count("is still there") == 1
        erasures.follow(never)
        left("m2", "m3")
