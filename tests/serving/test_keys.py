"""API keys: made, found, rotated, revoked; a file that is whole, for one user's eyes, and says nothing of them."""

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import ConflictError, ContractError, CorruptError, NotFoundError
from serving.keys import Keyring, create_key, keys_sheet, parse_period, read_keys, revoke_key, rotate_key

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.json"


def test_a_key_is_found_with_its_scopes_and_stands_nowhere_in_the_file(path):
    token = create_key(path, "till", ["outcome", "decide"], now=NOW, per_second=50)
    key = Keyring(lambda: path).find(token, NOW)
    assert (key.name, key.scopes, key.per_second, key.expires_at) == ("till", ("decide", "outcome"), 50, None)
    secret = token[-16:]  # what stands after its last "_" may be one character
    assert secret not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert secret not in keys_sheet(read_keys(path), NOW).markdown()


@given(st.data())
def test_a_key_that_differs_in_one_character_opens_nothing(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    token = create_key(path, "till", ["decide"], now=NOW)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters().filter(lambda one: one != token[place]))
    assert Keyring(lambda: path).find(token[:place] + other + token[place + 1 :], NOW) is None


def test_a_key_ends_when_it_was_said_to(path):
    token = create_key(path, "till", ["decide"], now=NOW, lasts=DAY)
    ring = Keyring(lambda: path)
    assert ring.find(token, NOW + DAY - timedelta(microseconds=1))
    assert ring.find(token, NOW + DAY) is None


def test_of_a_name_two_keys_are_valid_while_it_is_rotated_and_never_three(path):
    first = create_key(path, "till", ["decide"], now=NOW)
    second = rotate_key(path, "till", now=NOW + DAY, keep=DAY)
    ring = Keyring(lambda: path)
    valid = {
        (token, when): ring.find(token, when) is not None
        for token, when in product((first, second), (NOW + DAY, NOW + 2 * DAY))
    }
    assert [one for one, is_valid in valid.items() if not is_valid] == [(first, NOW + 2 * DAY)]
    third = rotate_key(path, "till", now=NOW + DAY, keep=DAY)
    assert [ring.find(token, NOW + DAY) is not None for token in (first, second, third)] == [False, True, True]


def test_a_ring_follows_the_file_and_a_revoked_key_opens_nothing(path):
    ring = Keyring(lambda: path)
    assert ring.keys() is None  # no key was ever made
    token = create_key(path, "till", ["decide"], now=NOW)
    assert ring.find(token, NOW)
    assert revoke_key(path, "till") == 1
    assert ring.find(token, NOW) is None
    assert ring.keys() == {}  # and one is needed all the same


def test_a_file_that_is_none_lets_nobody_in(path):
    path.write_text('{"format": 1, "keys": [{"name": "x"}]}')
    with pytest.raises(CorruptError, match="nobody is let in"):
        Keyring(lambda: path).keys()


@pytest.mark.parametrize(("name", "scopes"), [("", ["decide"]), ("a b", ["decide"]), ("a", []), ("a", ["all"])])
def test_a_name_or_scope_that_is_none_is_refused(path, name, scopes):
    with pytest.raises(ContractError, match=r"wanted|has to be"):
        create_key(path, name, scopes, now=NOW)


def test_a_name_stands_for_one_key(path):
    create_key(path, "till", ["decide"], now=NOW)
    with pytest.raises(ConflictError, match="keys rotate till"):
        create_key(path, "till", ["decide"], now=NOW)
    with pytest.raises(NotFoundError, match="there are: till"):
        revoke_key(path, "tilt")


def test_a_period_is_minutes_hours_or_days():
    assert [parse_period(text) for text in ("30m", "24h", "1d")] == [timedelta(minutes=30), DAY, DAY]
    with pytest.raises(ContractError, match="90d was wanted"):
        parse_period("1 week")
