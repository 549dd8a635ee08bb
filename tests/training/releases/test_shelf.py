"""Two homes that share object storage: what one trains and promotes, the other serves, or goes on with what it has."""

import json
import shutil
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from features.errors import ContractError, CorruptError, NotFoundError, UnavailableError
from features.home import Home
from features.stores.objects import Objects
from training.artifacts import open_release, write_release
from training.promotion import Verdict
from training.releases import shelf
from training.releases.ledger import champion_id, follow, keep_up, ledger, promote, rollback
from training.releases.names import resolve
from training.releases.shadow import begin_shadow, end_shadow, follow_shadow, shadow_id

NOW = datetime(2017, 12, 1, tzinfo=UTC)


@pytest.fixture
def shared(s3, tmp_path, parts):
    """One home with two releases, and another that has nothing yet."""
    one, other = (Home(tmp_path / name) for name in ("one", "other"))
    for home in (one, other):
        home.root.mkdir()
        home.settings.write_text(f'[engine]\nobjects = "{s3.address}"\n')
    first, second = (
        write_release(one.releases, parts.manifest, parts.models, golden).release_id
        for golden in (parts.golden, parts.golden[:32])
    )
    return SimpleNamespace(one=one, other=other, first=first, second=second, objects=Objects(s3.address), s3=s3)


def crown(home, release_id):
    shelf.put(home, release_id)
    verdict = Verdict(promote=True, said=())
    return promote(home, release_id, expected=champion_id(home), who="ada", now=NOW, verdict=verdict)


def test_what_one_home_promotes_another_has_whole(shared):
    crown(shared.one, shared.first)
    crown(shared.one, shared.second)
    keep_up(shared.other)
    assert ledger(shared.other) == ledger(shared.one)
    assert open_release(shared.other.releases, shared.second).release_id == shared.second
    assert not (shared.other.releases / shared.first).exists()  # nobody needs it yet
    assert rollback(shared.other, who="bob", now=NOW) == shared.first
    follow(shared.one)
    assert champion_id(shared.one) == shared.first
    assert open_release(shared.other.releases, shared.first).release_id == shared.first


def test_what_one_home_trained_another_may_promote(shared):
    with pytest.raises(NotFoundError, match="there is no release"):
        resolve(shared.other, shared.first)
    shelf.put(shared.one, shared.first)
    assert resolve(shared.other, shared.first) == shared.first
    crown(shared.other, shared.first)
    follow(shared.one)
    assert champion_id(shared.one) == shared.first


def test_of_two_homes_that_promote_at_once_one_is_told_that_the_other_did(shared, monkeypatch):
    crown(shared.one, shared.first)
    follow(shared.other)
    shelf.bring(shared.other, shared.first)
    shelf.put(shared.one, shared.second)
    shelf.bring(shared.other, shared.second)
    true = Objects.create

    def beaten(self, name, body):
        monkeypatch.setattr(Objects, "create", true)
        crown(shared.one, shared.second)
        return self.create(name, body)

    monkeypatch.setattr(Objects, "create", beaten)
    with pytest.raises(ContractError, match="another machine changed the champion meanwhile"):
        crown(shared.other, shared.second)
    assert len(ledger(shared.other)) == 1
    follow(shared.other)
    assert ledger(shared.other) == ledger(shared.one)


def test_half_an_upload_is_no_release(shared, monkeypatch):
    written = []

    def dies(_, name, body):
        written.append((name, body))
        if len(written) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(Objects, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            shelf.put(shared.one, shared.first)
    for name, body in written:
        shared.objects.write(name, body)
    with pytest.raises(NotFoundError, match="there is no release"):
        shelf.bring(shared.other, shared.first)
    assert not (shared.other.releases / shared.first).exists()
    shelf.put(shared.one, shared.first)
    shelf.bring(shared.other, shared.first)
    assert open_release(shared.other.releases, shared.first).release_id == shared.first


CORRUPT = {
    "a byte": ("churn.json", lambda body: body[:-1] + b" ", "is not the file that was released"),
    "cut": ("value.json", lambda body: body[:100], "is not the file that was released"),
    "longer": ("value.json", lambda body: body + b"\n", "is not the file that was released"),
    "gone": ("golden.json", lambda _: None, "is missing from its release"),
    "manifest": (
        "manifest.json",
        lambda body: body.replace(b"Coupon", b"Cheque"),
        "not the manifest that was released",
    ),
    "path": ("manifest.json", lambda body: _renamed(body, "../churn.json"), "lists files that no release has"),
    "large": ("manifest.json", lambda body: _described(body, "churn.json", 1 << 40), "is described as"),
}


def _signed(value):
    from training.releases.manifest import Manifest, identity

    return json.dumps(value | {"release_id": identity(Manifest(**value))}).encode()


def _renamed(body, name):
    value = json.loads(body)
    value["files"][name] = value["files"].pop("churn.json")
    return _signed(value)


def _described(body, name, size):
    value = json.loads(body)
    value["files"][name]["bytes"] = size
    return _signed(value)


@pytest.mark.parametrize("how", CORRUPT)
def test_bytes_that_are_not_the_releases_are_never_kept(shared, how):
    shelf.put(shared.one, shared.first)
    file, spoil, wrong = CORRUPT[how]
    asked = shared.first
    body = spoil(shared.objects.read(f"releases/{asked}/{file}", most=1 << 30))
    if body is None:
        shared.objects.remove(f"releases/{asked}/{file}")
    elif file == "manifest.json" and json.loads(body)["release_id"] != asked:  # it vouches for itself: name it so
        asked = json.loads(body)["release_id"]
        shared.objects.write(f"releases/{asked}/{file}", body)
    else:
        shared.objects.write(f"releases/{asked}/{file}", body)
    with pytest.raises(CorruptError, match=wrong):
        shelf.bring(shared.other, asked)
    assert [path for path in shared.other.releases.iterdir() if path.name != "ledger.jsonl.lock"] == []


def test_what_was_spoilt_is_mended_by_who_puts_it_there_again_and_a_copy_that_is_broken_by_a_fetch(shared):
    shelf.put(shared.one, shared.first)
    shared.objects.write(f"releases/{shared.first}/churn.json", b"{}")
    shelf.put(shared.one, shared.first)
    shelf.bring(shared.other, shared.first)
    (shared.other.releases / shared.first / "churn.json").write_text("{}")
    shelf.bring(shared.other, shared.first)
    assert open_release(shared.other.releases, shared.first).release_id == shared.first


def test_a_storage_that_is_away_changes_nothing_and_says_what_to_do(shared, caplog):
    crown(shared.one, shared.first)
    keep_up(shared.other)
    shared.s3.away()
    with pytest.raises(UnavailableError, match=f"then `holdfast promote {shared.second}` carries it there"):
        shelf.put(shared.one, shared.second)
    with pytest.raises(UnavailableError, match="does not answer"):
        crown_only(shared.one, shared.second)
    with pytest.raises(UnavailableError):
        shelf.reach(shared.one)
    keep_up(shared.other)
    assert "this home goes on with what it has" in caplog.text
    assert champion_id(shared.one) == champion_id(shared.other) == shared.first
    shared.s3.back()
    crown(shared.one, shared.second)
    keep_up(shared.other)
    assert champion_id(shared.other) == shared.second


def crown_only(home, release_id):
    verdict = Verdict(promote=True, said=())
    promote(home, release_id, expected=champion_id(home), who="ada", now=NOW, verdict=verdict)


def test_a_home_with_changes_of_its_own_is_refused(shared):
    crown(shared.one, shared.first)
    stranger = Home(shared.one.root.with_name("stranger"))
    shutil.copytree(shared.one.releases, stranger.releases)
    (stranger.releases / "ledger.jsonl").unlink()
    crown(stranger, shared.second)
    stranger.settings.write_text(shared.one.settings.read_text())
    with pytest.raises(ContractError, match="is not that of s3://holdfast/programme: `holdfast migrate local cluster`"):
        follow(stranger)


LINES = {
    "nonsense": b"nonsense",
    "a path": b'{"action": "promotion", "at": "", "who": "", "from_release": null, "to_release": "../x", "said": []}',
    "another's": b'{"action": "promotion", "at": "", "who": "", "from_release": "b", "to_release": "a", "said": []}',
    "two lines": b'{"action": "promotion", "at": "", "who": "",\n"from_release": null, "to_release": "a", "said": []}',
    "back": b'{"action": "rollback", "at": "", "who": "", "from_release": null, "to_release": "a", "said": []}',
}


@pytest.mark.parametrize("line", LINES)
def test_a_change_that_cannot_be_one_is_not_taken_down(shared, line):
    shared.objects.write("ledger/00000001.json", LINES[line])
    with pytest.raises(CorruptError):
        follow(shared.other)
    assert ledger(shared.other) == ()


def test_a_shadow_is_one_on_every_home_until_it_is_ended(shared):
    crown(shared.one, shared.first)
    begin_shadow(shared.one, shared.second, who="ada", now=NOW)
    keep_up(shared.other)
    follow_shadow(shared.other)
    assert shadow_id(shared.other) == shared.second
    shelf.bring(shared.other, shared.second)
    assert end_shadow(shared.other)
    follow_shadow(shared.one)
    assert shadow_id(shared.one) is None
    shared.objects.write("shadow.json", b"[]")
    with pytest.raises(CorruptError, match="names no release"):
        follow_shadow(shared.one)


def test_a_release_of_the_past_is_looked_for_and_that_it_cannot_be_had_stops_nobody(shared):
    assert not shelf.had(shared.other, shared.first)
    shelf.put(shared.one, shared.first)
    shared.s3.away()
    assert not shelf.had(shared.other, shared.first)
    shared.s3.back()
    assert shelf.had(shared.other, shared.first)


def test_without_object_storage_nothing_is_asked(tmp_path, parts, monkeypatch):
    def asked(*_):
        raise AssertionError

    monkeypatch.setattr(Objects, "__init__", asked)
    home = Home(tmp_path)
    release_id = write_release(home.releases, parts.manifest, parts.models, parts.golden).release_id
    crown(home, release_id)
    keep_up(home)
    shelf.reach(home)
    shelf.bring(home, release_id)
    follow_shadow(home)
    assert champion_id(home) == release_id
