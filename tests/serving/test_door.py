"""Who is let in: over a real socket, with keys and without."""

import contextlib
import json
import re
import socket
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from serving.door import ELSEWHERE, HEAD_BYTES, OPEN, Door, wanted
from serving.keys import SCOPES, Keyring, create_key, revoke_key, rotate_key

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MARK = "m-secret-4711"
BODY = {"members": ["m1"]}
CALLS = [
    ("POST", "/v1/decisions", "decide"),
    ("POST", "/v1/scores", "decide"),
    ("GET", "/v1/decisions/d1", "decide"),
    ("POST", "/v1/outcomes", "outcome"),
    ("POST", "/v1/transactions", "outcome"),
    ("POST", "/v1/events", "outcome"),
    ("PUT", "/v1/members/m1/preferences", "privacy"),
    ("GET", "/v1/erasures/e1", "privacy"),
    ("GET", "/metrics", "metrics"),
    ("GET", f"/v1/{MARK}", "admin"),
]


def key(path, name, *scopes, **more):
    token = create_key(path, name, scopes, now=datetime.now(UTC), **more)  # noqa: TID251 (the service's clock)
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def keyed(start, tmp_path_factory):
    """A service with a key for each scope."""
    folder = tmp_path_factory.mktemp("keyed")
    keys = {scope: key(folder / "keys.json", scope, scope) for scope in SCOPES}
    with start(folder / "decisions.db") as (_, address), httpx.Client(base_url=address, timeout=10) as client:
        client.keys, client.path = keys, folder / "keys.json"
        yield client


def refused(response, status):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert MARK not in response.text
    return response


@pytest.mark.parametrize(("method", "path", "scope"), CALLS)
def test_a_call_is_open_to_the_keys_of_its_scope_alone(keyed, method, path, scope):
    assert refused(keyed.request(method, path), 401).headers["www-authenticate"] == 'Bearer realm="holdfast"'
    statuses = {name: keyed.request(method, path, headers=shown).status_code for name, shown in keyed.keys.items()}
    assert {name for name, status in statuses.items() if status != 403} == {scope}
    assert statuses[scope] != 401
    other = next(name for name in SCOPES if name != scope)
    answer = refused(keyed.request(method, path, headers=keyed.keys[other]), 403)
    assert answer.json()["detail"] == f"a key with the scope {scope} was wanted"
    assert f'scope="{scope}"' in answer.headers["www-authenticate"]


def test_every_call_of_the_service_has_a_scope_or_is_a_probe(keyed):
    document = keyed.get("/openapi.json", headers=keyed.keys["batch"]).json()
    paths = {path.replace("{", "").replace("}", "") for path in document["paths"]}
    assert {path for path in paths if wanted(path) == ELSEWHERE} == set(OPEN)


@pytest.mark.parametrize("path", sorted(OPEN))
def test_probes_need_no_key(keyed, path):
    assert keyed.get(path).status_code == 200


@pytest.mark.parametrize(
    "shown", [MARK, f"Bearer {MARK}", "Bearer", "Basic bTpt", f"Bearer hf_{'0' * 12}_{'A' * 43}", "Bearer \xff"]
)
def test_what_is_no_key_is_refused_and_not_repeated(keyed, shown):
    answer = refused(keyed.post("/v1/decisions", json=BODY, headers={"Authorization": shown.encode("latin-1")}), 401)
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_two_keys_at_once_are_none(keyed):
    shown = keyed.keys["decide"]["Authorization"]
    refused(keyed.post("/v1/scores", json=BODY, headers=[("Authorization", shown)] * 2), 401)


def test_a_service_that_runs_follows_the_keys(keyed):
    shown = key(keyed.path, "till", "decide")
    assert keyed.post("/v1/scores", json=BODY, headers=shown).status_code == 200
    now = datetime.now(UTC)  # noqa: TID251 (the service's clock)
    after = {"Authorization": f"Bearer {rotate_key(keyed.path, 'till', now=now, keep=timedelta(hours=1))}"}
    assert [keyed.post("/v1/scores", json=BODY, headers=one).status_code for one in (shown, after)] == [200, 200]
    revoke_key(keyed.path, "till")
    assert [keyed.post("/v1/scores", json=BODY, headers=one).status_code for one in (shown, after)] == [401, 401]


def test_who_asks_too_often_is_told_when_to_come_back(keyed):
    shown = key(keyed.path, "busy", "decide", per_second=3)
    answers = [keyed.post("/v1/scores", json=BODY, headers=shown) for _ in range(12)]
    late = [answer for answer in answers if answer.status_code == 429]
    assert 0 < len(late) < 10
    for answer in late:
        assert 1 <= int(refused(answer, 429).headers["retry-after"]) <= 2
    assert keyed.post("/v1/scores", json=BODY, headers=keyed.keys["decide"]).status_code == 200  # nobody else is


def test_one_clients_idempotency_key_is_none_of_anothers(keyed):
    names = [key(keyed.path, f"client-{n}", "decide") | {"Idempotency-Key": "same"} for n in range(2)]
    first, second = (keyed.post("/v1/decisions", json=BODY, headers=one) for one in names)
    again = keyed.post("/v1/decisions", json=BODY, headers=names[0])
    assert (first.content, again.headers["idempotency-replayed"]) == (again.content, "true")
    assert second.content != first.content
    assert "idempotency-replayed" not in second.headers


@pytest.mark.parametrize("host", ["127.0.0.1:3000", "localhost", "LOCALHOST:1", "[::1]:3000", "127.8.9.1"])
def test_without_keys_this_machine_may_ask_by_any_of_its_names(service, host):
    assert service.get("/readyz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", [MARK, "127.0.0.1.evil.test", "evil.test:3000", "", "[::1", "[::1]x", "0x7f.1", "a@b"])
def test_without_keys_a_name_that_was_bound_to_this_machine_is_turned_away(service, host):
    for path in ("/livez", "/v1/release", "/metrics"):
        refused(service.get(path, headers={"Host": host}), 421)


def test_without_keys_nobody_else_is_answered_even_where_another_server_listens_for_all(tmp_path):
    door = Door(None, keyring=Keyring(lambda: tmp_path / "keys.json"), now=lambda: NOW)
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/livez", "raw_path": b"/livez", "query_string": b""}
    asked = door(scope | {"headers": [(b"host", b"localhost")], "server": ("192.0.2.1", 80)}, None, send)
    with pytest.raises(StopIteration):
        asked.send(None)
    assert (sent[0]["status"], json.loads(sent[1]["body"])["type"]) == (403, "urn:holdfast:problem:exposed")


def test_a_head_over_the_limit_is_refused(service):
    with service.stream("GET", "/livez", headers={"X-Long": "x" * HEAD_BYTES}) as answer:
        assert answer.status_code == 431


def speak(service, data):
    """Send bytes, and give what comes until the other side ends the connection."""
    with socket.create_connection((service.base_url.host, service.base_url.port), timeout=15) as connection:
        connection.sendall(data)
        came = b""
        while more := connection.recv(65536):
            came += more
        return came


@pytest.mark.parametrize("begun", [b"", b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_a_head_that_does_not_end_is_given_up(service, begun):
    assert speak(service, begun) == b""


def flood(service):
    """Send a head that never ends, and say how many bytes were taken of it."""
    taken = 0
    with socket.create_connection((service.base_url.host, service.base_url.port), timeout=15) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(10_000):
                connection.sendall(b"x" * 65536)
                taken += 65536
    return taken


def test_a_head_that_never_ends_is_given_up_before_it_fills_the_memory(service):
    assert flood(service) < 64 * 2**20


def test_an_answer_bears_the_id_of_its_request(service):
    own = "0b6f3c2a-1111-4222-8333-444455556666"
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    assert service.get("/livez", headers={"X-Request-Id": own}).headers["x-request-id"] == own
    traced = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    assert service.get("/livez", headers=traced).headers["x-request-id"] == trace
    made = service.get("/livez", headers={"X-Request-Id": MARK}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{16}", made)
