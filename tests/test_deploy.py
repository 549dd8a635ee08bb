"""What is brought for other systems: it can be read, and speaks of what there is."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

import holdfast
from monitoring.verdict import EXIT_CODES, RUNBOOK
from serving.door import WANTED
from serving.meters import Meters

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = DEPLOY / "monitoring" / "prometheus-rules.yml"
DASHBOARD = DEPLOY / "monitoring" / "grafana-dashboard.json"
CRONTAB = DEPLOY / "monitoring" / "crontab"
PAGES = {page.stem for page in (DEPLOY.parent / "docs" / "runbook").glob("*.md")}


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def expressions():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [rule["expr"] for rule in rules()] + [target["expr"] for panel in panels for target in panel["targets"]]


def exported():
    """Name every series of the service."""
    ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}
    return {family.name + end for family in Meters().registry.collect() for end in ends[family.type]}


@pytest.mark.parametrize("expression", expressions())
def test_every_expression_speaks_of_series_that_the_service_exports(expression):
    named = set(re.findall(r"\bholdfast_\w+", expression))
    assert named
    assert named <= exported()
    assert set(re.findall(r'call="([^"]*)"', expression)) <= set(WANTED)


def test_every_rule_says_how_grave_it_is_and_what_to_do():
    for rule in rules():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["runbook"] in PAGES, rule["alert"]
        assert rule["annotations"]["summary"]


def test_every_page_of_the_runbook_is_where_an_alert_leads():
    assert {*RUNBOOK.values(), *(rule["annotations"]["runbook"] for rule in rules())} == PAGES


def test_prometheus_takes_the_rules():
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("promtool (of Debian's prometheus) is not on this machine")
    told = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


def test_the_dashboard_has_one_panel_a_place():
    board = json.loads(DASHBOARD.read_text())
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]}
    assert len(places) == len(board["panels"]) == len({panel["id"] for panel in board["panels"]})


def commands():
    """Read what the crontab and the CronJob run."""
    lines = [line.split(None, 5)[5] for line in CRONTAB.read_text().splitlines() if re.match(r"[\d*]", line)]
    said = [shlex.split(part) for line in lines for part in line.split("&&")]
    (container,) = cron_job()["containers"]
    return [*said, container["command"]]


def cron_job():
    job = yaml.safe_load((DEPLOY / "kubernetes" / "monitor.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    return job["spec"]["jobTemplate"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_what_runs_by_the_clock_is_a_verb_with_such_options(words):
    assert words[0] == "holdfast"
    command, rest = get_command(holdfast.app), words[1:]
    while rest and hasattr(command, "commands"):
        command, rest = command.commands[rest[0]], rest[1:]
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= known


def test_an_answer_is_no_failure_that_kubernetes_repeats():
    job = yaml.safe_load((DEPLOY / "kubernetes" / "monitor.yaml").read_text())
    (rule,) = job["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    answers = {code for code in EXIT_CODES.values() if code} | {holdfast.USAGE}
    assert set(rule["onExitCodes"]["values"]) == answers
