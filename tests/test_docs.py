"""The guides build without a warning, and what they tell people to type works."""

import ast
import contextlib
import inspect
import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from typer.main import get_command

import features.schema
from features.intake.mapping import read_mapping
from features.programme import Programme, read_programme
from features.world.history import history
from features.world.law import World
from holdfast import app
from serving.meters import Meters
from tests.serving.batch.conftest import filled, home  # noqa: F401 (fixtures)
from tests.serving.conftest import release_root  # noqa: F401 (a fixture)
from training.judging import findings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("runbook/*.md"), ROOT / "README.md"])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OURS = ("features/", "training/", "serving/", "monitoring/", "tests/", "docs/", "deploy/")
WRITTEN = ("docs/reference/",)  # at every build
GENERATOR = ROOT / ".venv" / "client" / "bin"  # uvx would fetch it at every run
SERVICE = "http://127.0.0.1:3000"
OURSELVES = os.environ | {"PYTHONPATH": str(ROOT)}


def blocks(page, language):
    return [text for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


def typed(text):
    """Give the commands of a block, a line each, as a shell would cut them."""
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip() and not line.startswith("#")]


def anchors(text):
    """Give what a link may name behind a #, of every heading."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


COMMANDS = [
    pytest.param([word for word in words[1:] if word != "--help"], id=f"{page.stem}: {shlex.join(words[:4])}")
    for page in PAGES
    for text in blocks(page, "sh")
    for words in typed(text)
    if words[0].rsplit("/", 1)[-1] == "holdfast"
]


def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", tmp_path / "trees", DOCS]
    built = subprocess.run([*command, tmp_path / "site"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (built.returncode, built.stdout, built.stderr) == (0, "", "")
    pages = {page.stem: page.read_text(encoding="utf-8") for page in (tmp_path / "site").rglob("*.html")}
    assert "POST /v1/decisions" in pages["calls"]
    assert {
        name for name, page in pages.items() if re.search(r'<(script|link|img)[^>]* (src|href)="https?:', page)
    } == set()


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_is_a_verb_with_such_options(words):
    command, context = get_command(app), None
    while hasattr(command, "commands"):
        context = command.make_context(command.name, words, parent=context) if context is None else context
        name, command, words = command.resolve_command(context, words)
    command.make_context(name, [*words], parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_sentence_tells_to_type_or_to_set_is_there(page):
    told = re.findall(r"`([^`]+)`", BLOCK.sub("", page.read_text(encoding="utf-8")))
    for words in (shlex.split(one) for one in told if one.startswith("holdfast ")):
        command, rest = get_command(app), words[1:]
        while rest and rest[0] != "--help" and hasattr(command, "commands"):
            command, rest = command.commands[rest[0]], rest[1:]
        known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
        assert {word for word in rest if word.startswith("--")} <= known, words
    for section, key in re.findall(r"\[(\w+)\] (\w+)", "\n".join(told)):
        assert key in Programme.model_fields[section].annotation.model_fields
    for series in re.findall(r"\bholdfast_\w+(?=[{\[])", "\n".join(told)):
        assert series.removesuffix("_total") in {one.name for one in Meters().registry.collect()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_named_of_this_project_is_there(page):
    named = re.findall(r"`([\w./-]+)`", BLOCK.sub("", page.read_text(encoding="utf-8")))
    paths = [name for name in named if name.startswith(OURS) and not name.startswith(WRITTEN)]
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", [*PAGES, *ROOT.glob("[PS]*.md")], ids=lambda page: page.stem)
def test_every_link_within_the_project_leads_somewhere(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith(("http://", "https://"))]
    for path, _, heading in (link.partition("#") for link in links):
        target = page if not path else (page.parent / path).resolve()
        assert target.exists() or f"{target.parent.relative_to(ROOT)}/" in WRITTEN, path
        if heading:
            assert heading in anchors(target.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_setting_and_mapping_is_one(page, tmp_path):
    for number, text in enumerate(blocks(page, "toml")):
        path = tmp_path / f"{number}.toml"
        path.write_text(text, encoding="utf-8")
        keys = set(tomllib.loads(text))
        if keys <= set(Programme.model_fields):
            read_programme(path)
        else:
            read_mapping(path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_json_is_json_and_python_is_python(page):
    for text in blocks(page, "json"):
        json.loads(text)
    for text in blocks(page, "python"):
        compile(text, page.name, "exec")
        exec("\n".join(line for line in text.splitlines() if line.startswith(("import ", "from "))), {})  # noqa: S102


def test_the_glossary_has_every_word_of_the_codes_own():
    own = re.findall(r"^([a-z_]+(?:, [a-z_]+)*)(?=  |;)", features.schema.__doc__, flags=re.MULTILINE)
    own += re.findall(r"; ([a-z]+_[a-z]+):", features.schema.__doc__)
    said = re.findall(
        r"^\| ([^|]+) \| [^|]+ \| [^|]+ \|$", (DOCS / "glossary.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert {word for words in own for word in words.split(", ")} <= {
        word for words in said for word in words.split(", ")
    }


def test_every_refusal_that_is_explained_is_one():
    tree = ast.parse(inspect.getsource(findings))
    said = [one.value for one in ast.walk(tree) if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    rows = re.findall(r"^\| (.*?) \|", (DOCS / "promoting.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    explained = re.findall(r"\*([^*]+)\*", "\n".join(rows))
    assert explained
    assert [words for words in explained if not any(words in one for one in said)] == []


def run(typist, folder, commands, at=None):
    """Run what was typed, and give what it said."""
    told = []
    for words in commands:
        if words[0] == "holdfast":
            done = typist(*words[1:], folder=folder, home=at)
            assert (done.returncode, done.stderr) == (0, ""), (words, done.stdout[-2_000:])
            told.append(done.stdout)
    return "".join(told)


def curled(command, address):
    """Run a guide's curl; a machine that is busy with tests is late."""
    words = [word.replace(SERVICE, address) for word in command]
    said = subprocess.run([*words, "-H", "Request-Deadline-Ms: 10000"], capture_output=True, text=True, check=True)
    return json.loads(said.stdout)["decisions"]


def requests(page, tool):
    """Give method, address, headers and body of every request of a page, as a tool would send it."""
    for text in blocks(page, "liquid"):
        head, body = re.sub(r"{{ ([\w.]+) }}", lambda name: tool[name[1]], text).split("\n\n")
        first, *headers = head.splitlines()
        method, address, _ = first.split()
        yield method, address, dict(line.split(": ") for line in headers), body.strip()


@pytest.fixture(scope="module")
def shop(tmp_path_factory, typist):
    """A folder as a shop's till writes it: other names than ours, and euros; and what the guide made of it."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "tables").mkdir()
    world = history(World(members=1_000), np.random.default_rng(21)).tables
    members = world["members"].select(["member_id", "joined_at"]).to_pandas().set_axis(["Customer", "Signup"], axis=1)
    lines = world["transactions"].select(["transaction_id", "member_id", "occurred_at", "amount"]).to_pandas()
    lines = lines.assign(amount=lines["amount"] / 100).set_axis(["Invoice", "Customer", "Date", "Total"], axis=1)
    for name, table in {"customers": members, "invoices": lines}.items():
        few = table.assign(Customer=table["Customer"].str[1:].astype(int)).query("Customer < 600")
        few.to_csv(folder / "tables" / f"{name}.csv", index=False)
    (folder / ".holdfast").mkdir()
    guide = DOCS / "your_data.md"
    (folder / ".holdfast" / "holdfast.toml").write_text("".join(blocks(guide, "toml")), encoding="utf-8")
    commands = [words for text in blocks(guide, "sh") for words in typed(text) if words != ["holdfast", "serve"]]
    return folder, run(typist, folder, commands)


@pytest.fixture(scope="module")
def till(shop):
    command = [sys.executable, "-m", "holdfast", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=shop[0], env=OURSELVES, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.kill()


def test_the_fifteen_minutes_end_in_a_decision(shop, till):
    assert "is champion" in shop[1]
    *_, curl = (words for text in blocks(DOCS / "your_data.md", "sh") for words in typed(text))
    (decision,) = curled(curl, till)
    assert (decision["treatment"], decision["fallback_reason"]) == ("control", None)
    assert 0 < decision["churn_probability"] < 1
    assert decision["reasons"]


def test_the_clients_are_answered(till):
    page = DOCS / "clients.md"
    (curl,) = typed(blocks(page, "sh")[0])
    assert [decision["treatment"] for decision in curled(curl, till)] == ["control"]
    (python,) = blocks(page, "python")
    patient = python.replace(SERVICE, till).replace("timeout=1.0", "timeout=30")
    said = subprocess.run([sys.executable, "-c", patient], capture_output=True, text=True, check=True)
    assert said.stdout == "control 1.0\n"


def test_a_client_is_written_from_the_services_document_and_is_answered(till, tmp_path):
    if not GENERATOR.exists():
        reason = "the generator of clients is not installed: make .venv/client/ready"
        pytest.fail(reason) if "CI" in os.environ else pytest.skip(reason)
    page = DOCS / "clients.md"
    (command,) = (words for text in blocks(page, "sh") for words in typed(text) if words[0] == "uvx")
    words = [GENERATOR / command[1], *(word.replace(SERVICE, till) for word in command[2:])]
    path = os.environ | {"PATH": f"{GENERATOR}:{os.environ['PATH']}"}
    subprocess.run(words, cwd=tmp_path, env=path, capture_output=True, text=True, check=True)
    (python,) = blocks(page, "py")
    patient = python.replace(SERVICE, till).replace("timeout=1.0", "timeout=30")
    written = os.environ | {"PYTHONPATH": str(tmp_path / "holdfast-client")}
    said = subprocess.run([sys.executable, "-c", patient], env=written, capture_output=True, text=True, check=True)
    assert said.stdout == "1 control 1.0\n"


def test_a_campaign_tools_webhooks_are_taken(till):
    tool = {"message.id": "message 1", "member.id": "1", "order.id": "order 1", "order.cents": "1250"}
    tool |= {"order.time": "2024-01-01T00:00:00Z", "decision.id": "not known yet"}
    page = DOCS / "clients.md"
    with httpx.Client(base_url=till, timeout=30) as client:
        for number, _ in enumerate(requests(page, tool)):
            method, address, headers, body = [*requests(page, tool)][number]
            answer = client.request(method, address, headers=headers, content=body)
            assert answer.is_success, answer.text
            if number == 0:
                tool["decision.id"] = answer.json()["decisions"][0]["decision_id"]
        assert client.get(f"/v1/decisions/{tool['decision.id']}").json()["context"] == {"journey": "win-back"}


def test_a_database_is_brought_in(shop, typist, tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        for name in ("customers", "invoices"):
            table = pd.read_csv(shop[0] / "tables" / f"{name}.csv").head(50).assign(paid=1)
            ours = {"Customer": "member_id", "Signup": "joined_at", "Invoice": "transaction_id", "Date": "occurred_at"}
            table.rename(columns=ours | {"Total": "amount"}).round().to_sql(name, database)
    commands = [words for text in blocks(DOCS / "mapping.md", "sh") for words in typed(text)]
    assert "next: holdfast features build" in run(typist, tmp_path, commands)


def test_an_audience_is_decided_and_its_outcomes_come_back_as_files(home, typist, tmp_path):  # noqa: F811
    home.settings.write_text("replay_from = 2017-12-01T12:00:00Z\n[campaigns.spring]\n")
    (tmp_path / "drop").mkdir()
    commands = [
        words for name in ("offers", "clients") for text in blocks(DOCS / f"{name}.md", "sh") for words in typed(text)
    ]
    run(typist, tmp_path, [words for words in commands if words[1] in {"offers", "decide"}], home.root)
    decided = pd.read_csv(tmp_path / "drop" / "spring.csv")
    assert {"A", "B", "control"} == {*decided["treatment"]}
    outcomes = decided.head(3).assign(
        outcome_id=range(3), kind="purchase", occurred_at="2017-12-01T12:00:00Z", amount=5
    )
    for folder in (tmp_path, tmp_path / "drop"):
        outcomes[["outcome_id", "decision_id", "kind", "occurred_at", "amount"]].to_csv(
            folder / "outcomes.csv", index=False
        )
    told = run(typist, tmp_path, [words for words in commands if words[1] == "outcomes"], home.root)
    assert re.findall(r"new +(\d) *\n", told) == ["3", "0"]
