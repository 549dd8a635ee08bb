"""Object storage by a real server that speaks S3: whole or not at all, once or not at all, and nothing secret told."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from features.engine import Engine
from features.errors import ContractError, CorruptError, NotFoundError, UnavailableError
from features.home import Home
from features.stores.health import objects_health
from features.stores.objects import Objects, objects_of


@pytest.fixture
def objects(s3):
    return Objects(s3.address)


def test_what_is_written_is_read_named_and_removed(objects):
    assert objects.names() == []
    assert objects.find("a/b.json", most=10) is None
    objects.write("a/b.json", b"{}")
    objects.write("a/b.json", b"[]")
    assert objects.read("a/b.json", most=2) == b"[]"
    assert objects.names() == objects.names("a") == ["a/b.json"]
    objects.remove("a/b.json")
    objects.remove("a/b.json")
    with pytest.raises(NotFoundError, match=r"s3://holdfast/programme/a/b\.json is not there"):
        objects.read("a/b.json", most=2)


def test_more_bytes_than_may_be_are_refused(objects):
    objects.write("a", b"123")
    assert objects.find("a", most=3) == b"123"
    with pytest.raises(CorruptError, match="has more than 2 bytes"):
        objects.find("a", most=2)


def test_of_many_that_create_the_same_exactly_one_does(s3):
    def creates(number):
        return Objects(s3.address).create("ledger/1", b"%d" % number)

    with ThreadPoolExecutor(8) as pool:
        won = [*pool.map(creates, range(8))]
    assert sorted(won) == [False] * 7 + [True]
    assert Objects(s3.address).read("ledger/1", most=9) == b"%d" % won.index(True)


def test_a_storage_that_is_away_is_told_with_no_secret(s3):
    s3.away()
    with pytest.raises(UnavailableError, match="objects at s3://holdfast/programme does not answer") as away:
        Objects(s3.address).find("a", most=1)
    assert "hunter2" not in str(away.value)


def test_health_tells_what_is_wrong_apart(s3, monkeypatch):
    found = objects_health(s3.address)
    assert (found.state, found.words[:15]) == ("answers", "takes an object")
    assert Objects(s3.address).names() == []  # nothing of it is left
    assert objects_health("s3://nobodys/programme").words == "refuses: there is no such bucket"
    s3.away()
    assert objects_health(s3.address).words == "nothing listens there"
    s3.back()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert "no credentials are in the environment" in objects_health(s3.address).words


def test_an_address_that_nothing_opens_is_refused_with_what_to_install():
    with pytest.raises(ContractError, match="pip install"):
        Objects("nonsense://bucket")


def test_a_home_that_names_none_has_none(tmp_path):
    home = Home(tmp_path)
    assert objects_of(home) is None
    home.settings.write_text('[engine]\nobjects = "memory://somewhere/"\n')
    assert objects_of(home).place == "memory://somewhere"


@pytest.mark.parametrize("address", ["file:///mnt/shared", "s3", "local://x"])
def test_what_is_no_object_storage_is_no_setting(address):
    with pytest.raises(ValueError, match="objects"):
        Engine(objects=address)
