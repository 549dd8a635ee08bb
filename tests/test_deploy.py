"""What is brought for other systems: it can be read, and speaks of what there is."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import compose_spec
import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

import holdfast
from features.programme import read_programme
from monitoring.verdict import EXIT_CODES, RUNBOOK
from serving.door import WANTED
from serving.meters import Meters
from training.registry import FILES

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = DEPLOY / "monitoring" / "prometheus-rules.yml"
DASHBOARD = DEPLOY / "monitoring" / "grafana-dashboard.json"
CRONTAB = DEPLOY / "monitoring" / "crontab"
KUBERNETES = DEPLOY / "kubernetes"
COMPOSE = DEPLOY / "compose.yaml"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
IGNORED = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
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


def resources():
    """Read every resource of Kubernetes, but for what kustomize alone reads."""
    files = [path for path in sorted(KUBERNETES.glob("*.yaml")) if path.name != "kustomization.yaml"]
    return [(path, one) for path in files for one in yaml.safe_load_all(path.read_text())]


def pods():
    """Give what each resource runs, with its name."""
    found = {}
    for _, one in resources():
        spec = one["spec"]["jobTemplate"]["spec"] if one["kind"] == "CronJob" else one.get("spec", {})
        if "template" in spec:
            found[f"{one['kind']} {one['metadata']['name']}"] = spec["template"]["spec"]
    return found


def containers():
    return [one for pod in pods().values() for one in (*pod.get("initContainers", ()), *pod["containers"])]


def compose():
    return yaml.safe_load(COMPOSE.read_text())


def commands():
    """Read what the crontab, the CronJobs, the services and the image run of this project's own."""
    lines = [line.split(None, 5)[5] for line in CRONTAB.read_text().splitlines() if re.match(r"[\d*]", line)]
    said = [shlex.split(part) for line in lines for part in line.split("&&")]
    said += [one["command"] for one in (*containers(), *compose()["services"].values()) if "command" in one]
    said += [json.loads(line.removeprefix("CMD ")) for line in DOCKERFILE.splitlines() if line.startswith("CMD ")]
    return [words for words in said if words[0] == "holdfast"]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_what_runs_by_the_clock_is_a_verb_with_such_options(words):
    assert words[0] == "holdfast"
    command, rest = get_command(holdfast.app), words[1:]
    while rest and hasattr(command, "commands"):
        command, rest = command.commands[rest[0]], rest[1:]
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= known


def test_an_answer_is_no_failure_that_kubernetes_repeats():
    jobs = [one["spec"]["jobTemplate"]["spec"] for _, one in resources() if one["kind"] == "CronJob"]
    answers = {code for code in EXIT_CODES.values() if code} | {holdfast.USAGE}
    for job in jobs:
        (rule,) = job["podFailurePolicy"]["rules"]
        assert set(rule["onExitCodes"]["values"]) == answers
        (container,) = job["template"]["spec"]["containers"]
        assert rule["onExitCodes"]["containerName"] == container["name"]


def test_what_the_clock_runs_is_the_same_on_one_machine_and_on_kubernetes():
    lines = [line.split(None, 5)[5] for line in CRONTAB.read_text().splitlines() if re.match(r"[\d*]", line)]
    cron = {shlex.join(shlex.split(part)[1:3]) for line in lines for part in line.split("&&")}
    jobs = [pod for name, pod in pods().items() if name.startswith("CronJob")]
    run = [one["command"] for pod in jobs for one in (*pod.get("initContainers", ()), *pod["containers"])]
    assert {shlex.join(words[1:3]) for words in run} == cron


@pytest.mark.parametrize(("path", "resource"), resources(), ids=lambda one: getattr(one, "stem", None))
def test_kubernetes_takes_every_resource(path, resource):
    kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)
    assert path.name in yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]


def test_nobody_is_root_and_every_secret_is_referred_to():
    for name, pod in pods().items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert not pod["automountServiceAccountToken"], name
        for one in (*pod.get("initContainers", ()), *pod["containers"]):
            assert one["securityContext"]["allowPrivilegeEscalation"] is False
            secret = [entry for entry in one.get("env", ()) if "PASSWORD" in entry["name"]]
            assert all(entry["valueFrom"]["secretKeyRef"]["name"] == "holdfast" for entry in secret)
    for service in compose()["services"].values():
        secret = [value for name, value in service.get("environment", {}).items() if "PASSWORD" in name]
        assert all(value.startswith("${POSTGRES_PASSWORD:?") for value in secret)


def test_every_volume_and_claim_that_is_named_is_there():
    claims = {one["metadata"]["name"] for _, one in resources() if one["kind"] == "PersistentVolumeClaim"}
    for name, pod in pods().items():
        there = {volume["name"]: volume for volume in pod.get("volumes", ())}
        asked = {volume.get("persistentVolumeClaim", {}).get("claimName") for volume in there.values()} - {None}
        assert asked <= claims, name
        own = {"home", "data"} if name.startswith("StatefulSet") else set()  # of its claim templates
        mounts = [one for each in (*pod.get("initContainers", ()), *pod["containers"]) for one in each["volumeMounts"]]
        assert {one["name"] for one in mounts} <= {*there, *own}, name


def test_instances_are_replaced_one_by_one_and_leave_when_nobody_sends_to_them():
    one = {f"{each['kind']} {each['metadata']['name']}": each for _, each in resources()}
    service, budget = one["StatefulSet holdfast"]["spec"], one["PodDisruptionBudget holdfast"]["spec"]
    assert (service["updateStrategy"]["type"], budget["maxUnavailable"]) == ("RollingUpdate", 1)
    assert budget["selector"] == service["selector"]
    assert one["Service holdfast"]["spec"]["selector"] == service["template"]["metadata"]["labels"]
    (container,) = service["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    leaving = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert leaving < service["template"]["spec"]["terminationGracePeriodSeconds"]


def test_the_settings_that_are_brought_are_settings(tmp_path):
    (settings,) = (one["data"]["holdfast.toml"] for _, one in resources() if one["kind"] == "ConfigMap")
    for text in (settings, (DEPLOY / "holdfast.toml").read_text()):
        (tmp_path / "holdfast.toml").write_text(text)
        engine = read_programme(tmp_path / "holdfast.toml").engine
        assert engine.online == "redis://redis:6379/0"
        assert engine.decisions == "postgresql://holdfast@postgres/holdfast"  # no password in it
        assert engine.agree is (engine.objects != "file")  # homes that are several share releases as well
    assert read_programme(tmp_path / "holdfast.toml").engine.agree is False  # one host, one log


def test_what_shares_releases_can_reach_them_and_nothing_else_is_shared():
    (settings,) = (one["data"]["holdfast.toml"] for _, one in resources() if one["kind"] == "ConfigMap")
    place = tomllib.loads(settings)["engine"]["objects"]
    ours = [one for one in containers() if one["image"].startswith("holdfast")]
    assert all(one["envFrom"] == [{"secretRef": {"name": "holdfast-objects", "optional": True}}] for one in ours)
    (mlflow,) = (one["command"] for one in ours if one["command"][0] == "mlflow")
    assert f"--default-artifact-root={place}/{FILES}" in mlflow
    claims = [one for _, one in resources() if one["kind"] == "PersistentVolumeClaim"]
    assert {mode for one in claims for mode in one["spec"]["accessModes"]} == {"ReadWriteOnce"}
    assert "s3" in re.search(r"^ARG EXTRAS=(.*)$", DOCKERFILE, flags=re.MULTILINE)[1].split(",")
    assert "holdfast-objects" in (KUBERNETES / "kustomization.yaml").read_text()


def test_compose_takes_its_file_and_knows_every_word_of_it():
    taken = compose_spec.PyOptions(apply_merge=True).from_yaml(COMPOSE.read_text())
    taken.validate()
    assert taken.service_names() == ["service", "jobs", "mlflow", "redis", "postgres"]


def test_the_linter_of_dockerfiles_finds_nothing():
    program = Path(sys.executable).with_name("hadolint")
    told = subprocess.run([program, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "")


def test_the_image_is_nobodys_root_and_is_what_the_files_name():
    assert re.findall(r"^USER (\d+):\1$", DOCKERFILE, flags=re.MULTILINE)
    assert "/readyz" in DOCKERFILE
    assert "PIP_CONSTRAINT" in DOCKERFILE
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, flags=re.MULTILINE):
        *copied, _ = line.split()
        assert [path for path in copied if not (DEPLOY.parent / path).exists()] == []
        assert [path for path in copied if f"!{path}" not in IGNORED] == []
    (built,) = {service["image"] for service in compose()["services"].values() if "build" in service}
    named = {one["image"] for one in containers() if one["image"].startswith("holdfast")}
    assert named == {built}
    assert built == f"holdfast:{version('holdfast')}"
