"""The pages' addresses: what they answer, to whom, and what their answers allow."""

import os
import re
from base64 import b64encode
from datetime import UTC, datetime

import httpx
import pytest

from features.home import Home
from serving.keys import create_key
from serving.pages.front import MARK, page_path

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def home(service):
    return Home(service.log.parent)


def test_where_nothing_was_written_the_page_says_which_command_writes_it(service):
    page = service.get("/")
    assert page.status_code == 200
    assert "<code>holdfast monitor report</code>" in page.text
    assert 'action="look-up?language=en"' in page.text
    assert service.get("/?language=zh").text.count("总览尚未生成") == 1


def test_the_page_is_what_was_written_last_with_its_age_and_nothing_but_its_own_style(service, home):
    path = page_path(home, "en")
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"<style>b{{}}</style>{MARK}<p>first</p>", encoding="utf-8")
    page = service.get("/?language=en")
    assert "first" in page.text
    assert "Written less than a minute ago" in page.text
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "script" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "Out of date" not in page.text
    nine_days = 9 * 86_400
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime - nine_days))
    assert "Out of date" in service.get("/?language=en").text
    path.write_text("second", encoding="utf-8")
    assert "second" in service.get("/?language=en").text
    path.unlink()


@pytest.mark.parametrize("name", ["decisions.db", "..%2fdecisions.db", "drift-2018.html", "overview-en.html"])
def test_no_file_but_a_full_report_is_given_out(service, home, name):
    (home.reports).mkdir(exist_ok=True)
    (home.reports / "drift-2018-01-01.html").write_text("<p>all of it", encoding="utf-8")
    assert service.get(f"/reports/{name}").status_code == 404
    report = service.get("/reports/drift-2018-01-01.html")
    assert report.text == "<p>all of it"
    assert "sandbox allow-scripts;" in report.headers["content-security-policy"]  # and of no origin


def test_a_decision_is_found_by_its_own_id_and_by_its_members_and_shown_with_its_reasons(service):
    made = [
        service.post("/v1/decisions", json={"members": ["m7"]}).raise_for_status().json()["decisions"][0]
        for _ in range(2)
    ]
    for name in (made[1]["decision_id"], "m7"):
        page = service.post("/look-up?language=en", data={"id": f" {name} "})
        assert page.status_code == 200
        assert made[1]["decision_id"] in page.text
    assert "The latest of 2 decisions on this member." in page.text
    said = service.get(f"/v1/decisions/{made[1]['decision_id']}").json()["explanation"]
    assert said[0].split(":")[0] in page.text
    assert "最近一个" in service.post("/look-up?language=zh", data={"id": "m7"}).text


@pytest.mark.parametrize(
    ("form", "status"), [({"id": "<script>x"}, 404), ({"id": ""}, 422), ({"id": "m" * 129}, 422), ({}, 422)]
)
def test_an_id_that_is_none_is_answered_with_the_form_and_never_repeated(service, form, status):
    page = service.post("/look-up", data=form or None, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert page.status_code == status
    assert 'role="alert"' in page.text
    assert "<script" not in page.text


def test_a_form_of_another_kind_is_refused(service):
    assert service.post("/look-up", json={"id": "m7"}).status_code == 415


@pytest.fixture(scope="module")
def keyed(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("keyed")
    now = datetime.now(UTC)  # noqa: TID251 (the service's clock)
    keys = {scope: create_key(folder / "keys.json", scope, [scope], now=now) for scope in ("report", "explain")}
    with start(folder / "decisions.db") as (_, address), httpx.Client(base_url=address, timeout=10) as client:
        client.keys = keys
        yield client


def test_a_browser_shows_its_key_as_a_password(keyed):
    refused = keyed.get("/")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == 'Basic realm="holdfast", charset="UTF-8"'
    assert keyed.get("/", auth=("anybody", keyed.keys["report"])).status_code == 200
    assert keyed.get("/", auth=("anybody", keyed.keys["explain"])).status_code == 403
    assert keyed.post("/look-up", data={"id": "m1"}, auth=("", keyed.keys["report"])).status_code == 403
    assert keyed.post("/look-up", data={"id": "m1"}, auth=("", keyed.keys["explain"])).status_code == 404
    for shown in ("-", "x", "Zm9v", b64encode(b"a:hf_no").decode()):
        assert keyed.get("/", headers={"Authorization": f"Basic {shown}"}).status_code == 401


def test_a_password_opens_no_call_that_changes_anything(keyed):
    answer = keyed.post("/v1/decisions", json={"members": ["m1"]}, auth=("", keyed.keys["report"]))
    assert answer.status_code == 401  # or any page that a browser shows could make it ask
    assert re.match("Bearer", answer.headers["www-authenticate"])
