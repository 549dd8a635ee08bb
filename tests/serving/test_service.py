"""The service over a real socket, in a process of its own."""

import json
import re
import signal
import socket
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from features.decisions import read_decisions, read_outcomes
from serving import contract
from serving.problems import ProblemDocument

JSON = {"Content-Type": "application/json"}
MARK = "m-secret-4711"


def ask(service, *members, key=None, **fields):
    headers = {"Idempotency-Key": key} if key else {}
    return service.post("/v1/decisions", json={"members": members, **fields}, headers=headers)


def problem(response, status):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = ProblemDocument.model_validate_json(response.content)
    assert document.status == status
    assert MARK not in response.text  # an error never repeats what came
    return document


def send(service, request):
    """Send bytes as they are, and give the status line."""
    with socket.create_connection((service.base_url.host, service.base_url.port), timeout=10) as connection:
        connection.sendall(request)
        return connection.recv(65536).split(b"\r\n")[0].decode()


def test_a_decision_is_in_the_log_with_the_propensity_that_was_answered(service):
    members = [f"m{i}" for i in range(60)]
    answer = ask(service, *members, campaign_id="spring", context={"till": 3, "vip": True})
    assert answer.status_code == 200
    contract.DecisionsAnswer.model_validate_json(answer.content)
    body = answer.json()
    assert (body["currency"], body["experiment"]) == ("USD", "simulated")
    logged = {row["decision_id"]: row for row in read_decisions(service.log)}
    assert [one["member_id"] for one in body["decisions"]] == members
    for one in body["decisions"]:
        row = logged[one["decision_id"]]
        chosen = row["treatments"].index(one["treatment"])
        assert one["propensity"] == row["propensity"] == row["probabilities"][chosen] > 0
        assert one["refusals"] == {"OLD": "validity"} or one["outcome"] == "fallback"
        assert one["cost"]["A"] >= 50
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-12)
        assert np.searchsorted(np.cumsum(row["probabilities"]), row["draw"], side="right") == chosen
        assert (row["campaign_id"], row["context"]) == ("spring", {"till": 3, "vip": True})
        assert one["expected_net_value"] == (0 if chosen == 0 else row["net_value"][chosen - 1])
        assert one["feature_age_seconds"] >= 2 * 86400  # the replayed clock starts two days after the features


def test_an_unknown_member_gets_the_fallback_and_is_logged(service):
    (one,) = ask(service, "nobody").json()["decisions"]
    wanted = {"treatment": "control", "propensity": 1.0, "outcome": "fallback", "fallback_reason": "unknown_member"}
    assert wanted.items() <= one.items()
    assert one["churn_probability"] is one["expected_net_value"] is one["feature_age_seconds"] is None
    assert one["decision_id"] in {row["decision_id"] for row in read_decisions(service.log)}


def test_a_feature_store_that_fails_means_the_fallback_for_all(service):
    for one in ask(service, "m1", "down").json()["decisions"]:
        assert (one["outcome"], one["fallback_reason"], one["treatment"]) == (
            "fallback",
            "features_unavailable",
            "control",
        )


def test_a_held_out_member_is_never_contacted(service, held_out):
    decisions = ask(service, *held_out).json()["decisions"]
    assert {(one["treatment"], one["propensity"], one["outcome"]) for one in decisions} == {
        ("control", 1.0, "hold_out")
    }


def test_only_the_offers_asked_for_are_sent(service):
    members = [f"m{i}" for i in range(100)]
    decisions = ask(service, *members, offers=["A"]).json()["decisions"]
    assert {one["treatment"] for one in decisions} <= {"control", "A"}


def test_scores_are_the_same_numbers_and_leave_no_trace(service):
    before = len(read_decisions(service.log))
    answer = service.post("/v1/scores", json={"members": ["m1", "nobody"]})
    contract.ScoresAnswer.model_validate_json(answer.content)
    assert len(read_decisions(service.log)) == before
    score, decision = answer.json()["scores"][0], ask(service, "m1").json()["decisions"][0]
    for name in ("churn_probability", "uplift", "segment", "lifecycle_stage", "reasons", "release_id"):
        assert score[name] == decision[name]


def test_a_decision_can_be_looked_up(service):
    (one,) = ask(service, "m3", campaign_id="c").json()["decisions"]
    answer = service.get(f"/v1/decisions/{one['decision_id']}")
    contract.DecisionRecord.model_validate_json(answer.content)
    assert one.items() <= answer.json().items()
    problem(service.get("/v1/decisions/nothing"), 404)


def test_the_same_key_and_body_give_the_same_bytes(service):
    first, second = (ask(service, "m1", "m2", key="again") for _ in range(2))
    assert first.content == second.content
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert ask(service, "m1", "m2").content != first.content  # without a key: new decisions
    assert "another body" in problem(ask(service, "m1", key="again"), 422).detail
    assert "printable" in problem(ask(service, "m1", key="k" * 256), 400).detail


def test_of_racing_requests_with_one_key_exactly_one_decides(service):
    def race(_):
        with httpx.Client(base_url=service.base_url, timeout=10) as client:
            return ask(client, *(f"m{i}" for i in range(50)), key="race", campaign_id="race")

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(race, range(64)))
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert len({answer.content for answer in answers if answer.status_code == 200}) == 1
    assert sum(row["campaign_id"] == "race" for row in read_decisions(service.log)) == 50


def test_outcomes_are_accepted_once_in_any_order_and_never_changed(service):
    outcome = {
        "outcome_id": "o1", "decision_id": "not-yet-known", "kind": "purchase",
        "occurred_at": "2017-12-02T10:00:00+02:00", "amount": 1999,
    }  # fmt: skip
    first, second = (service.post("/v1/outcomes", json=outcome) for _ in range(2))
    assert (first.status_code, first.json()) == (202, {"outcome_id": "o1", "duplicate": False})
    assert (second.status_code, second.json()) == (202, {"outcome_id": "o1", "duplicate": True})
    problem(service.post("/v1/outcomes", json={**outcome, "amount": 1}), 409)
    (stored,) = (row for row in read_outcomes(service.log) if row["outcome_id"] == "o1")
    assert (stored["amount"], stored["occurred_at"].isoformat()) == (1999, "2017-12-02T08:00:00+00:00")


@pytest.mark.parametrize(
    "change",
    [
        {"amount": 1.5},
        {"amount": "12"},
        {"amount": True},
        {"occurred_at": "2017-12-02T10:00:00"},
        {"occurred_at": 1512208800},
        {"occurred_at": "0001-01-01T00:00:00+14:00"},
        {"contact_id": "both"},
        {"decision_id": None},
        {"kind": "Purchase of the Year"},
        {"outcome_id": ""},
    ],
)
def test_an_outcome_that_breaks_the_contract_is_refused(service, change):
    outcome = {"outcome_id": "o2", "decision_id": "d", "kind": "visit", "occurred_at": "2017-12-02T10:00:00Z"}
    assert problem(service.post("/v1/outcomes", json=outcome | change), 422).errors


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"members": ["m1"]} trailing', 400),
        (b'{"members": ["m1"], "members": ["%s"]}' % MARK.encode(), 400),
        (b'{"members": ["m1"], "context": {"x": NaN}}', 400),
        (b'{"members": ["m1"], "context": {"x": 1e999}}', 400),
        (b"[" * 100_000, 400),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"members": []}', 422),
        (b'{"members": "%s"}' % MARK.encode(), 422),
        (b'{"members": [12]}', 422),
        (b'{"members": [""]}', 422),
        (b'{"members": ["m1", "m1"]}', 422),
        (b'{"members": ["\\ud800"]}', 422),
        (b'{"members": ["m1"], "%s": 1}' % MARK.encode(), 422),
        (b'{"members": ["m1"], "offers": ["%s"]}' % MARK.encode(), 422),
        (b'{"members": ["m1"], "offers": []}', 422),
        (b'{"members": ["m1"], "context": {"%s": {}}}' % MARK.encode(), 422),
        (json.dumps({"members": [f"m{i}" for i in range(501)]}).encode(), 422),
        (json.dumps({"members": ["m" * 129]}).encode(), 422),
    ],
)
def test_a_body_that_breaks_the_contract_is_a_problem_document(service, body, status):
    for call in ("/v1/decisions", "/v1/scores"):
        problem(service.post(call, content=body, headers=JSON), status)


def test_an_error_points_at_the_field(service):
    (error,) = problem(service.post("/v1/scores", json={"members": ["m1", MARK * 20]}), 422).errors
    assert error.pointer == "/members/1"
    (error,) = problem(service.post("/v1/scores", json={"members": ["m1"], "offers": ["A", MARK]}), 422).errors
    assert (error.pointer, error.detail) == ("/offers/1", "one of A, B, OLD was wanted")


def test_a_body_over_the_limit_is_refused_whether_or_not_its_length_is_told(service):
    large = b" " * (256 * 1024 + 1)
    problem(service.post("/v1/decisions", content=large, headers=JSON), 413)
    problem(service.post("/v1/decisions", content=iter([large]), headers=JSON), 413)


def test_only_json_is_read(service):
    problem(service.post("/v1/decisions", data={"members": MARK}), 415)
    problem(service.post("/v1/decisions", content=b'{"members": ["m1"]}', headers={"Content-Type": "text/plain"}), 415)


@pytest.mark.parametrize("path", ["/docs", "/docs.json", "/schema.json", "/healthz", "/v1", f"/v1/{MARK}", "/livez/"])
def test_there_is_nothing_at_other_addresses(service, path):
    problem(service.get(path), 404)


def test_another_method_is_told_which_one_is_wanted(service):
    response = service.get("/v1/decisions")
    problem(response, 405)
    assert response.headers["allow"] == "POST"


def test_bytes_that_are_no_http_are_refused(service):
    assert send(service, b"\x16\x03\x01 nonsense\r\n\r\n").startswith("HTTP/1.1 400")


def test_probes_release_and_document_answer(service, decider):
    assert service.get("/livez").json() == {"status": "alive"}
    well = {"store": "ok", "log": "ok", "release": "ok"}
    assert service.get("/readyz").json() == {"status": "ready", "checks": well}
    release = contract.ReleaseAnswer.model_validate_json(service.get("/v1/release").content)
    assert release.release_id == decider.release.release_id
    assert (release.clock - decider.programme.replay_from).total_seconds() < 600
    document = service.get("/openapi.json").json()
    for path in ("/v1/decisions", "/v1/scores", "/v1/outcomes"):
        assert "schema" in document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    assert "Idempotency-Key" in json.dumps(document["paths"]["/v1/decisions"])


def test_metrics_count_what_was_answered_and_name_no_member(service):
    ask(service, "m1", "nobody")
    text = service.get("/metrics").text
    assert re.search(r'holdfast_requests_total\{call="/v1/decisions",status="200"\} [1-9]', text)
    assert re.search(
        r'holdfast_decisions_total\{fallback_reason="unknown_member",outcome="fallback",treatment="control"\}', text
    )
    assert "holdfast_log_backlog 0.0" in text
    assert "holdfast_feature_age_seconds_bucket" in text
    assert "nobody" not in text


def test_when_told_to_stop_it_ends_well_and_an_old_key_still_answers_the_same(start, tmp_path):
    log = tmp_path / "decisions.db"
    with start(log) as (process, address), httpx.Client(base_url=address) as client:
        first = ask(client, "m1", key="k")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        assert process.stderr.read() == ""
    with start(log) as (_, address), httpx.Client(base_url=address) as client:
        second = ask(client, "m1", key="k")
    assert second.content == first.content
    assert second.headers["idempotency-replayed"] == "true"


def test_what_was_answered_before_kill_9_is_in_the_log(start, tmp_path):
    log = tmp_path / "decisions.db"
    with start(log) as (process, address), httpx.Client(base_url=address) as client:
        answered = [ask(client, f"m{i}").json()["decisions"][0]["decision_id"] for i in range(20)]
        process.kill()
        process.wait()
    assert set(answered) <= {row["decision_id"] for row in read_decisions(log)}


def test_a_log_that_can_not_be_written_decides_nothing_and_says_so(start, tmp_path):
    log = tmp_path / "decisions.db"
    with start(log) as (_, address), httpx.Client(base_url=address) as client:
        with sqlite3.connect(log) as intruder:  # a table that is gone fails every insert, as a full disk would
            intruder.execute("DROP TABLE decisions")
        intruder.close()
        refused = ask(client, "m1")
        problem(refused, 503)
        assert refused.headers["retry-after"] == "1"
        assert client.get("/livez").status_code == 200
