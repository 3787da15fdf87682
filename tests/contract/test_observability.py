"""The dashboard and the alerts name metrics and labels that the services expose, and no others. Row 2.17."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest
import yaml

from services.cli.settings import StackSettings, default_root
from services.cli.stack import Stack

reference: Any = importlib.import_module("docs.site.reference")
FOLDER = default_root() / "deploy" / "observability"
EXPOSED = {name: set(labels) for rows in reference.exposed().values() for name, labels, _, _ in rows}
SCRAPED = {"app", "job", "instance"}  # labels that Prometheus itself adds, app by prometheus.yml
FUNCTIONS = {"sum", "rate", "increase", "time", "max", "by", "unless", "and", "or"}
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
EXPRESSIONS = {
    f"{panel['title']}": (one["expr"], one["legendFormat"])
    for panel in DASHBOARD["panels"]
    for one in panel.get("targets", ())
}
EXPRESSIONS |= {rule["alert"]: (rule["expr"], "".join(rule["annotations"].values())) for rule in RULES}


def wrong(expression: str) -> list[str]:
    """What an expression names that there is not."""
    faults: list[str] = []
    bare = re.sub(r'"[^"]*"', '""', expression)
    for name, matchers in re.findall(
        r"\b([a-z_]+)(?:\{([^}]*)\})?", re.sub(r"\bby \([^)]*\)", "", re.sub(r"\[\w+\]", "", bare))
    ):
        if name in FUNCTIONS:
            continue
        if name != "up" and name not in EXPOSED:
            faults.append(name)
            continue
        faults += [
            f"{name}.{label}"
            for label in re.findall(r"(\w+)\s*[=!]", matchers)
            if label not in EXPOSED.get(name, set()) | SCRAPED
        ]
    names = set(re.findall(r"halfsure_\w+", bare)) & set(EXPOSED)
    known = set.union(SCRAPED, *(EXPOSED[name] for name in names)) if names else SCRAPED
    grouped = {label.strip() for part in re.findall(r"\bby \(([^)]*)\)", bare) for label in part.split(",")}
    return faults + [f"by {label}" for label in grouped - known]


@pytest.mark.parametrize("title", EXPRESSIONS)
def test_an_expression_names_what_is_exposed(title: str) -> None:
    expression, legend = EXPRESSIONS[title]
    assert wrong(expression) == []
    names = set(re.findall(r"halfsure_\w+", expression))
    known = set.union(SCRAPED, *(EXPOSED[name] for name in names)) if names else SCRAPED
    said = set(re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", legend))
    assert said <= known, said - known


def test_a_wrong_name_and_a_wrong_label_are_found() -> None:
    assert wrong("sum(halfsure_outbox_waitings)") == ["halfsure_outbox_waitings"]
    assert wrong('halfsure_requests_total{code="5"}') == ["halfsure_requests_total.code"]
    assert wrong("sum by (kind) (rate(halfsure_events_received_total[5m]))") == ["by kind"]


def test_every_metric_is_on_the_dashboard_or_alarmed_about() -> None:
    text = "".join(expression for expression, _ in EXPRESSIONS.values())
    assert set(EXPOSED) - {"halfsure_buffer_samples"} <= set(re.findall(r"halfsure_\w+", text))


def test_the_dashboard_is_what_its_generator_writes() -> None:
    code = "import runpy, sys; sys.stdout.write(runpy.run_path(sys.argv[1])['text']())"
    done = subprocess.run(
        [sys.executable, "-c", code, str(FOLDER / "generate.py")], capture_output=True, text=True, check=True
    )
    assert (FOLDER / "dashboard.json").read_text() == done.stdout


def test_every_alert_says_what_to_do_and_every_service_is_scraped() -> None:
    for rule in RULES:
        assert {"summary", "action"} <= set(rule["annotations"]), rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket")
    jobs = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    targets = {one["labels"]["app"]: int(one["targets"][0].rpartition(":")[2]) for one in jobs[0]["static_configs"]}
    stack = Stack(StackSettings())
    assert targets == {app: int(stack.url(app).rpartition(":")[2]) for app in stack.app_ids}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus' promtool is not installed")
def test_promtool_takes_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(FOLDER / "alerts.yml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
