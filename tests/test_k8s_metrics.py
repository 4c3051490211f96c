"""What the autoscalers of k8s/optional/ ask for, evaluated by a real Prometheus' rule tester.

The rules of prometheus-adapter are filled as the adapter fills them, and asked of metric text
that was scraped from a real Triton and a real service, as two pods would show it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from manifests import EVERYWHERE, K8S, named, of_kind
from served import Stack
from test_monitoring import promtool

from bento.pace import LEAST

RULES = yaml.safe_load((K8S / "optional" / "prometheus-adapter" / "values.yaml").read_text())
SERIES = re.compile(r"^(?P<name>[a-z_]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")
PODS = ("one", "two")
Series = dict[str, list[float]]
INFLIGHT = ("recserve_inflight_requests", "recserve_inflight_bound")


def rule(metric: str) -> dict[str, Any]:
    (found,) = [r for r in RULES["rules"]["custom"] if r["name"]["as"] == metric]
    return dict(found)


def query(metric: str) -> str:
    """As the adapter asks for all pods of a Deployment at once."""
    assert set(rule(metric)["resources"]["overrides"]) == {"namespace", "pod"}
    matchers = 'namespace="recserve",pod=~"one|two"'
    text = str(rule(metric)["metricsQuery"])
    filled = text.replace("<<.LabelMatchers>>", matchers).replace("<<.GroupBy>>", "pod")
    assert "<<" not in filled
    return filled


def scraped(text: str, pod: str, names: tuple[str, ...]) -> Series:
    """Series of one scrape, labelled as a PodMonitor labels them."""
    found: Series = {}
    for line in text.splitlines():
        if (parts := SERIES.match(line)) and parts["name"] in names:
            labels = ",".join(
                [*filter(None, [parts["labels"]]), f'pod="{pod}"', 'namespace="recserve"']
            )
            found[f"{parts['name']}{{{labels}}}"] = [float(parts["value"])]
    assert {name.partition("{")[0] for name in found} == set(names)
    return found


def answers(tmp: Path, expression: str, series: Series, wanted: Mapping[str, float]) -> None:
    """promtool agrees that two minutes into `series`, one value every 15 s, these come out."""
    values = [
        {"series": name, "values": " ".join(str(v) for v in points)}
        for name, points in series.items()
    ]
    samples = [{"labels": labels, "value": value} for labels, value in wanted.items()]
    asked = {"expr": expression, "eval_time": "2m", "exp_samples": samples}
    test = {"interval": "15s", "input_series": values, "promql_expr_test": [asked]}
    (tmp / "none.yaml").write_text("groups: []\n")
    (tmp / "test.yaml").write_text(
        yaml.safe_dump({"rule_files": ["none.yaml"], "evaluation_interval": "15s", "tests": [test]})
    )
    promtool("test", "rules", "test.yaml", cwd=tmp)


QUEUE, DONE, ROWS, BATCHES = NV = (
    "nv_inference_queue_duration_us", "nv_inference_request_success",
    "nv_inference_count", "nv_inference_exec_count",
)  # fmt: skip


@pytest.fixture(scope="module")
def triton(stack: Stack) -> tuple[Series, Series]:
    """Pod `one` before and after some requests, from the real server."""
    before = httpx.get(stack.metrics, timeout=20).text
    for _ in range(20):
        httpx.post(f"{stack.url}/v1/recommend", json={"n": 3}, timeout=20).raise_for_status()
        body = {"item_id": "item-000007", "n": 3}
        httpx.post(f"{stack.url}/v1/similar", json=body, timeout=20).raise_for_status()
    after = httpx.get(stack.metrics, timeout=20).text
    return scraped(before, "one", NV), scraped(after, "one", NV)


def grown(before: Series, after: Series, metric: str) -> float:
    return sum(after[name][0] - before[name][0] for name in after if name.startswith(metric))


def test_the_queue_metric_is_all_models_time_by_all_models_requests(
    triton: tuple[Series, Series], tmp_path: Path
) -> None:
    before, after = triton
    asked = grown(before, after, DONE)
    assert asked >= 40 and grown(before, after, QUEUE) > 0
    models = {name.split('model="')[1].split('"')[0] for name in after}
    assert len(models) >= 4  # a mean of quotients would be another number
    # Grown by the same amount from scrape to scrape, so that the rate is exact.
    series = {n: [before[n][0] + i * (after[n][0] - before[n][0]) for i in range(9)] for n in after}
    for metric, wanted in {
        "triton_queue_us_per_request": grown(before, after, QUEUE) / asked,
        "triton_rows_per_batch": grown(before, after, ROWS) / grown(before, after, BATCHES),
    }.items():
        answers(tmp_path, f"round(({query(metric)}) * 1000) / 1000", series,
                {'{pod="one"}': round(wanted * 1000) / 1000})  # fmt: skip


def test_full_batches_are_as_many_rows_as_they_hold(
    triton: tuple[Series, Series], tmp_path: Path
) -> None:
    _, after = triton
    grows = {ROWS: 64.0, BATCHES: 1.0}  # of each model, from scrape to scrape
    series = {name: [value[0] + i * grows.get(name.partition("{")[0], 0) for i in range(9)]
              for name, value in after.items()}  # fmt: skip
    answers(tmp_path, query("triton_rows_per_batch"), series, {'{pod="one"}': 64.0})


@pytest.mark.parametrize("metric", ["triton_queue_us_per_request", "triton_rows_per_batch"])
def test_without_traffic_a_metric_of_triton_is_0_and_never_absent(
    metric: str, triton: tuple[Series, Series], tmp_path: Path
) -> None:
    _, after = triton
    series = {name: value * 9 for name, value in after.items()}
    # Pod two was scraped for the first time just now: no rate can be taken of it.
    series |= {n.replace('pod="one"', 'pod="two"'): ["_x8", *v] for n, v in after.items()}  # type: ignore[list-item]
    both = {'{pod="one"}': 0.0, '{pod="two"}': 0.0}
    answers(tmp_path, query(metric), series, both)


def test_the_metrics_are_there_before_the_first_request(stack: Stack) -> None:
    """Triton declares them with the model, the service with its start."""
    text = httpx.get(stack.metrics, timeout=20).text
    # Asked by no request of this module; it is there all the same.
    assert re.search(r'^nv_inference_queue_duration_us\{.*model="explainer".*\} \d', text, re.M)
    assert scraped(httpx.get(f"{stack.url}/metrics", timeout=20).text, "one", INFLIGHT)


@pytest.fixture(scope="module")
def under_way(stack: Stack) -> tuple[str, str]:
    """What pod `one` calls its requests under way, and how many it may have."""
    text = httpx.get(f"{stack.url}/metrics", timeout=20).text
    found = scraped(text, "one", INFLIGHT)
    (name,) = [series for series in found if series.startswith(INFLIGHT[0])]
    (bound,) = [series for series in found if series.startswith(INFLIGHT[1])]
    assert found[bound] == [256]  # nothing is known of its models yet
    return name, bound


@pytest.mark.parametrize("bound", [256, 64, None], ids=["wide", "least wide", "unsaid"])
def test_requests_under_way_are_meant_over_a_minute(
    bound: int | None, under_way: tuple[str, str], tmp_path: Path
) -> None:
    name, bound_name = under_way
    two = name.replace('"one"', '"two"')
    # At 2 min the last minute holds the values at 75, 90, 105, 120 s (and at 60 s, before
    # Prometheus 3): all of them 8 on average where 4 and 12 take turns, but for the first.
    series: Series = {name: [0, 0, 0, 0, 8, 8, 8, 8, 8], two: [0] * 9}
    if bound is not None:
        series |= {bound_name: [bound] * 9, bound_name.replace('"one"', '"two"'): [bound] * 9}
    wanted = {'{pod="one"}': 8.0, '{pod="two"}': 0.0}
    answers(tmp_path, query("recserve_inflight_requests"), series, wanted)


@pytest.mark.parametrize("bound", [LEAST, 20, 32])
def test_a_pod_asks_for_another_one_before_it_turns_requests_away(
    bound: int, under_way: tuple[str, str], tmp_path: Path
) -> None:
    """However slow its models are: half of what it may take is the autoscaler's target."""
    name, bound_name = under_way
    optional = [m for m in of_kind("HorizontalPodAutoscaler", EVERYWHERE)
                if m["spec"]["metrics"][0]["type"] == "Pods"]  # fmt: skip
    metric = named("HorizontalPodAutoscaler", "bento", optional)["spec"]["metrics"][0]
    target = float(metric["pods"]["target"]["averageValue"])
    for asked, wanted in ((bound // 2, target), (bound, 2 * target)):
        series: Series = {name: [asked] * 9, bound_name: [bound] * 9}
        answers(tmp_path, query("recserve_inflight_requests"), series, {'{pod="one"}': wanted})


def test_the_autoscalers_ask_for_metrics_that_the_rules_make() -> None:
    optional = [m for m in of_kind("HorizontalPodAutoscaler", EVERYWHERE)
                if any(metric["type"] == "Pods" for metric in m["spec"]["metrics"])]  # fmt: skip
    asked = {
        m["metadata"]["name"]: metric["pods"]["metric"]["name"]
        for m in optional for metric in m["spec"]["metrics"] if metric["type"] == "Pods"
    }  # fmt: skip
    assert asked == {"triton": "triton_queue_us_per_request", "bento": "recserve_inflight_requests"}
    rows = yaml.safe_load((K8S / "optional" / "rows" / "kustomization.yaml").read_text())
    (_, added) = yaml.safe_load(rows["patches"][0]["patch"])
    second = added["value"]["pods"]["metric"]["name"]
    assert {r["name"]["as"] for r in RULES["rules"]["custom"]} == {*asked.values(), second}


# What wakes a trial.

TRIALS = '{namespace="recserve-trial",pod="bento-trial-x",route="/v1/recommend",status="200"}'
START = 'process_start_time_seconds{namespace="recserve-trial",pod="bento-trial-x"}'


@pytest.mark.parametrize(
    ("trigger", "series", "wanted"),
    [
        (0, {}, 0.0),  # nothing is measured: asleep, and KEDA has its number
        (0, {f"recserve_requests_total{TRIALS}": [0.0] * 9}, 0.0),
        (0, {f"recserve_requests_total{TRIALS}": [i * 30.0 for i in range(9)]}, 2.0),
        (1, {}, 0.0),
        (1, {START: [0.0] * 9}, 1.0),  # two minutes old
        (1, {START: [-3600.0] * 9}, 0.0),
    ],
)
def test_a_trial_is_woken_by_requests_and_by_the_start_of_its_service(
    trigger: int, series: Series, wanted: float, tmp_path: Path
) -> None:
    spec = named("ScaledObject", "triton-trial", EVERYWHERE)["spec"]
    asked = spec["triggers"][trigger]["metadata"]["query"]
    answers(tmp_path, asked, series, {"{}": wanted})
    labels = named("PodMonitor", "bento-trial", EVERYWHERE)["spec"]["podMetricsEndpoints"][0]
    assert labels["relabelings"] == [{"targetLabel": "namespace", "replacement": "recserve-trial"}]
