"""The guides build without a warning, and what they tell people to type works."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pyarrow.csv as pc
import pytest
from typer.main import get_command

from features.intake.mapping import read_mapping
from features.programme import Programme, read_programme
from features.world.history import history
from features.world.law import World
from holdfast import app
from tests.serving.conftest import PROGRAMME, release_root, start  # noqa: F401 (two fixtures)

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md"])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OURS = ("features/", "training/", "serving/", "monitoring/", "tests/", "docs/", "deploy/")
WRITTEN = ("docs/reference/",)  # at every build


def blocks(page, language):
    return [text for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


def typed(text):
    """Give the commands of a block, a line each, as a shell would cut them."""
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip() and not line.startswith("#")]


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
    assert "POST /v1/decisions" in (tmp_path / "site" / "reference" / "calls.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_is_a_verb_with_such_options(words):
    command, context = get_command(app), None
    while hasattr(command, "commands"):
        context = command.make_context(command.name, words, parent=context) if context is None else context
        name, command, words = command.resolve_command(context, words)
    command.make_context(name, [*words], parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_named_of_this_project_is_there(page):
    named = re.findall(r"`([\w./-]+)`", BLOCK.sub("", page.read_text(encoding="utf-8")))
    paths = [name for name in named if name.startswith(OURS) and not name.startswith(WRITTEN)]
    assert [path for path in paths if not (ROOT / path).exists()] == []


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


def test_the_clients_are_answered(start, tmp_path):  # noqa: F811 (the fixture is asked for)
    with start(tmp_path / "decisions.db") as (_, address):
        page = (DOCS / "clients.md").read_text(encoding="utf-8").replace("http://127.0.0.1:3000", address)
        now = PROGRAMME.replay_from.isoformat()  # by that service's clock
        page = page.replace("datetime.now(UTC)", f"datetime.fromisoformat({now!r}).astimezone(UTC)")
        (tmp_path / "clients.md").write_text(page, encoding="utf-8")
        (curl, *_), (python,) = blocks(tmp_path / "clients.md", "sh"), blocks(tmp_path / "clients.md", "python")
        (asked,) = typed(curl)
        said = subprocess.run(asked, capture_output=True, text=True, check=True)
        assert json.loads(said.stdout)["decisions"][0]["treatment"] == "control"
        said = subprocess.run([sys.executable, "-c", python], capture_output=True, text=True, check=False)
        assert (said.returncode, said.stdout, said.stderr) == (0, "control 1.0\n", "")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder as a shop's till writes it: other names than ours, and dollars."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "tables").mkdir()
    world = history(World(members=1_000), np.random.default_rng(5)).tables
    members = world["members"].select(["member_id", "joined_at"]).rename_columns(["Customer", "Signup"])
    lines = world["transactions"].select(["transaction_id", "member_id", "occurred_at", "amount"]).to_pandas()
    lines = lines.assign(amount=lines["amount"] / 100).set_axis(["Invoice", "Customer", "Date", "Total"], axis=1)
    pc.write_csv(members, folder / "tables" / "customers.csv")
    lines.to_csv(folder / "tables" / "invoices.csv", index=False)
    return folder


def test_the_fifteen_minutes_end_in_a_release_that_serves(shop):
    """Every command of the guide in its order, but for the last, which is a service that goes on."""
    page = DOCS / "your_data.md"
    parts = [(kind, text) for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind in {"sh", "toml"}]
    said = {}
    for kind, text in parts:
        if kind == "toml":
            with (shop / ".holdfast" / "holdfast.toml").open("a", encoding="utf-8") as settings:
                settings.write(text)
            continue
        for words in typed(text):
            if words[0] != "holdfast" or words[1:] == ["serve"]:
                continue
            done = subprocess.run(
                [sys.executable, "-m", *words], cwd=shop, capture_output=True, text=True, check=False,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            said[words[1]] = done.stdout
            assert (done.returncode, done.stderr) == (0, ""), words
    assert "is champion" in said["promote"]
