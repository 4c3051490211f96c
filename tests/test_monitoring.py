"""The dashboard and the alerts: checked by promtool, and every metric held against real servers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import yaml
from bento_process import answers, wait_until
from ports import free_ports
from served import Stack

from bento.metrics import Metrics

ROOT = Path(__file__).parent.parent
MONITORING = ROOT / "monitoring"
ALERTS, ALERTS_TEST = MONITORING / "recserve-alerts.yaml", MONITORING / "recserve-alerts-test.yaml"
DOCS = (ROOT / "docs" / "observability.md").read_text()
NAME = re.compile(r"\b(?:recserve|nv|process)_[a-z_]+\b")
# A metric without labels, `{label}`s behind it where it has some.
IN_DOCS = re.compile(r"^\| `((?:recserve|process)_\w+)(?:\{([\w, ]+)\})?` \| (\w+) \|", re.M)


def program(name: str) -> str:
    """Of Debian's package prometheus, installed or unpacked."""
    local = ROOT / "build" / "promtool" / "usr" / "bin" / name
    found = shutil.which(name) or (str(local) if local.exists() else None)
    assert found, f"{name} is not there: run `make promtool`"
    return found


def promtool(*arguments: str, cwd: Path = MONITORING, stdin: str = "") -> None:
    command = [program("promtool"), *arguments]
    done = subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    board = json.loads((MONITORING / "recserve-dashboard.json").read_text())
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def asked() -> Iterator[str]:
    """Every PromQL expression there is."""
    board = json.loads((MONITORING / "recserve-dashboard.json").read_text())
    yield from (rule["expr"] for rule in alerts())
    yield from (target["expr"] for panel in panels() for target in panel["targets"])
    yield from (note["expr"] for note in board["annotations"]["list"])
    yield from (v["definition"] for v in board["templating"]["list"] if v["type"] == "query")


# --- the files


def test_the_rules_are_what_prometheus_takes() -> None:
    promtool("check", "rules", ALERTS.name)


def test_every_alert_fires_when_it_should_and_only_then() -> None:
    promtool("test", "rules", ALERTS_TEST.name)


def test_every_alert_is_tried_firing_and_silent() -> None:
    tests = yaml.safe_load(ALERTS_TEST.read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    names = {rule["alert"] for rule in alerts()}
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == names
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == names


def test_the_dashboard_is_what_its_script_writes() -> None:
    written = subprocess.run(
        [sys.executable, "dashboard.py"], cwd=MONITORING, capture_output=True, text=True, check=True
    )
    assert (MONITORING / "recserve-dashboard.json").read_text() == written.stdout


def test_every_expression_of_the_dashboard_is_promql(tmp_path: Path) -> None:
    expressions = [target["expr"] for panel in panels() for target in panel["targets"]]
    filled = [e.replace("$__rate_interval", "5m").replace("$instance", ".*") for e in expressions]
    rules = [{"record": f"panel:{i}", "expr": expr} for i, expr in enumerate(filled)]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", path.name, cwd=tmp_path)


def test_no_panel_of_the_dashboard_lies_on_another() -> None:
    board = json.loads((MONITORING / "recserve-dashboard.json").read_text())
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(p["x"] + p["w"] <= 24 for p in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or apart
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


# --- against what is measured


def test_every_metric_that_is_asked_for_is_measured(stack: Stack) -> None:
    httpx.post(f"{stack.url}/v1/recommend", json={"n": 3}, timeout=20)
    pages = [httpx.get(url, timeout=20).text for url in (f"{stack.url}/metrics", stack.metrics)]
    # By what is declared: a counter with labels has no sample before its first count.
    kinds = dict(pair for page in pages for pair in re.findall(r"^# TYPE (\S+) (\S+)", page, re.M))
    parts = [(name, part) for name, kind in kinds.items() if kind == "histogram"
             for part in ("bucket", "count", "sum")]  # fmt: skip
    measured = {*kinds, *(f"{name}_{part}" for name, part in parts)}
    wanted = {name for expression in asked() for name in NAME.findall(expression)}
    assert len(wanted) > 30 and wanted <= measured, sorted(wanted - measured)


def test_what_is_measured_is_what_prometheus_likes_to_read(stack: Stack) -> None:
    promtool("check", "metrics", stdin=httpx.get(f"{stack.url}/metrics", timeout=20).text)


def test_prometheus_reads_both_servers_and_answers_every_panel(
    stack: Stack, tmp_path: Path
) -> None:
    targets = [httpx.URL(stack.url).netloc.decode(), httpx.URL(stack.metrics).netloc.decode()]
    with prometheus(tmp_path, targets) as url, httpx.Client(base_url=url, timeout=20) as asking:

        def result(expression: str) -> list[Any]:
            filled = expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
            reply = asking.get("/api/v1/query", params={"query": filled}).json()
            assert reply["status"] == "success", (expression, reply)
            return list(reply["data"]["result"])

        def ask_and_look() -> bool:
            body = {"user_id": "nobody", "history": ["nothing"], "n": 3}
            httpx.post(f"{stack.url}/v1/recommend", json=body, timeout=20)
            twice = ("recserve_stage_seconds_count", "nv_inference_count")  # each was read
            return len(result("up == 1")) == 2 and all(result(f"rate({n}[1m])") for n in twice)

        wait_until(ask_and_look)
        expressions = [target["expr"] for panel in panels() for target in panel["targets"]]
        empty = [expression for expression in expressions if not result(expression)]
        # There is no shadow, and no variant has fallen back: such series begin with the first.
        first = ("recserve_shadow_overlap", "recserve_variant_fallbacks_total")
        assert [e for e in empty if not any(name in e for name in first)] == []
        rules = asking.get("/api/v1/rules").json()["data"]["groups"]
        known = {rule["name"] for group in rules for rule in group["rules"]}
        assert known == {rule["alert"] for rule in alerts()}


@contextmanager
def prometheus(folder: Path, targets: list[str]) -> Iterator[str]:
    """A real one with our rules, reading `targets` every second."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [{"job_name": "here", "static_configs": [{"targets": targets}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (port,) = free_ports(1)
    command = [program("prometheus"), "--config.file=prometheus.yml", "--storage.tsdb.path=data",
               f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
    log = folder / "prometheus.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out)
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=20, trust_env=False) as http:
            wait_until(lambda: answers(http, "/-/ready"), process, log)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def test_labels_that_are_asked_for_are_labels_of_the_metric() -> None:
    """By the declarations: a label that no metric has matches nothing, and nobody hears of it."""
    declared = {
        name: set(labels.split(", ")) if labels else set() for name, labels, _ in in_docs()
    } | {"nv": {"model", "version"}}
    everywhere = {"namespace", "instance", "le"}
    for expression in asked():
        for name, matchers in re.findall(r"((?:recserve|nv)_[a-z_]+)\{([^}]*)\}", expression):
            used = set(re.findall(r"(\w+)(?==|!=)", matchers))
            home = "nv" if name.startswith("nv_") else re.sub("_(bucket|count|sum)$", "", name)
            assert used <= declared[home] | everywhere, (name, used)


# --- the documentation


def in_docs() -> list[tuple[str, str, str]]:
    """Name, labels and type of each metric in the table."""
    return [(m[1], m[2] or "", m[3]) for m in IN_DOCS.finditer(DOCS)]


def test_the_documentation_has_every_metric_once_with_its_labels_and_type() -> None:
    measured = [
        (
            f"{family.name}_total" if family.type == "counter" else family.name,
            ", ".join(getattr(collector, "_labelnames", ())),
            family.type,
        )
        for collector in Metrics()._registry._collector_to_names
        for family in collector.collect()
    ]
    assert sorted(in_docs()) == sorted(measured)


def test_every_alert_has_its_place_in_the_runbook() -> None:
    headings = {line[4:].lower() for line in DOCS.splitlines() if line.startswith("### ")}
    for rule in alerts():
        page, _, place = rule["annotations"]["runbook"].partition("#")
        assert page == "docs/observability.md" and place == rule["alert"].lower()
        assert place in headings
