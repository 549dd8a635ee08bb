"""What the OpenAPI document says is what comes: schemathesis makes up requests from it and holds answers against it."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from serving.app import create_app
from serving.keys import Keyring, create_key

load_all_checks()
CHECKED = CHECKS.get_by_names(
    [
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
        "unsupported_method",
    ]
)
REFUSALS = {"401", "403", "421", "429", "431", "503"}
LONG = 60  # seconds: how soon an answer comes is measured elsewhere, and this machine may be busy
NOWHERE = {"/v1/transactions", "/v1/events"}  # there is no store that posts could be brought into


def document():
    """Read the document as the application gives it: it needs no desk for that."""
    app = create_app(list, keyring=Keyring(lambda: Path("none")), now=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    rejected = {"checks": {"negative_data_rejection": {"expected-statuses": ["4xx", "503"]}}}
    return schemathesis.openapi.from_dict(app.openapi(), config=schemathesis.Config.from_dict(rejected))


CALLS = {call.ok().label: call.ok() for call in document().get_all_operations()}


@pytest.fixture(scope="module")
def address(start, tmp_path_factory):
    with start(tmp_path_factory.mktemp("document") / "decisions.db") as (_, address):
        yield address


@pytest.mark.parametrize("call", CALLS)
def test_answers_are_those_of_the_document(call, address, effort, tell):
    statuses = Counter()
    valid, wrong = (CALLS[call].as_strategy(generation_mode=mode) for mode in GenerationMode)

    @settings(
        max_examples=effort(20, 1_000), database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.one_of(valid, wrong))
    def ask(case):
        response = case.call(base_url=address, timeout=LONG)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKED)
        assert response.status_code < 500 or (case.path in NOWHERE and response.status_code == 503)

    ask()
    tell(f"the document: {call}", statuses.total(), 0, str(dict(sorted(statuses.items()))))


def test_whom_the_door_does_not_let_in_is_told_so_as_the_document_says(start, tmp_path):
    create_key(tmp_path / "keys.json", "till", ("decide",), now=datetime(2026, 1, 1, tzinfo=UTC))
    with start(tmp_path / "decisions.db") as (_, address):
        for call, operation in CALLS.items():
            case = operation.Case(path_parameters={"member_id": "m1", "decision_id": "d", "receipt_id": "e"})
            response = case.call(base_url=address, timeout=LONG)
            case.validate_response(response, checks=CHECKED[:4])
            assert (response.status_code == 401) == (call not in {"GET /livez", "GET /readyz"}), call


def test_every_call_names_what_the_door_says():
    for operation in document().raw_schema["paths"].values():
        for described in operation.values():
            assert described["responses"].keys() >= REFUSALS
