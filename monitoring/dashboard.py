"""recserve's Grafana dashboard, as it is imported.

    python monitoring/dashboard.py > monitoring/recserve-dashboard.json

A row of panels a question, the panels in their order; places and ids follow from it. Knows the
metrics by name alone: tests/test_monitoring.py holds each name against a running service, and
the committed JSON against this script.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

COLUMNS = 24  # of Grafana's grid
HEIGHT = 8
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
RATE = "[$__rate_interval]"
HERE = 'instance=~"$instance"'  # of the service; Triton's instances are others
RECOMMEND = f'{HERE}, route="/v1/recommend"'


@dataclass(frozen=True, kw_only=True)
class Panel:
    title: str
    what: str  # the panel's description
    queries: Sequence[tuple[str, str]]  # PromQL, and the legend ({{label}} is filled in)
    unit: str = "short"
    kind: str = "timeseries"
    red_above: float | None = None


def share(part: str, whole: str) -> str:
    """0 where there is nothing: a line that breaks off looks like an outage."""
    return f"({part}) / (({whole}) > 0) or vector(0)"


def quantile(q: float, metric: str, labels: str, by: str = "") -> str:
    return f"histogram_quantile({q}, sum by (le{by}) (rate({metric}_bucket{{{labels}}}{RATE})))"


def of(metric: str, labels: str = HERE, by: str = "") -> str:
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{labels}}}{RATE}))"


REQUESTS, FALLBACKS = "recserve_requests_total", "recserve_fallback_total"
SECONDS, STAGE = "recserve_request_seconds", "recserve_stage_seconds"
RECOMMENDED = of(REQUESTS, RECOMMEND)

ROWS: dict[str, Sequence[Panel]] = {
    "At a glance": (
        Panel(title="Recommendations a second", what="Traffic of /v1/recommend.", kind="stat",
              queries=[(RECOMMENDED, "")], unit="reqps"),
        Panel(title="p99", what="Of /v1/recommend, from the whole request to its answer.",
              kind="stat", queries=[(quantile(0.99, SECONDS, RECOMMEND), "")], unit="s",
              red_above=0.2),
        Panel(title="Popular items instead", what="Share of recommendations that no model gave.",
              kind="stat", queries=[(share(of(FALLBACKS), RECOMMENDED), "")],
              unit="percentunit", red_above=0.05),
        Panel(title="Release", what="Lowest and highest number among the replicas.", kind="stat",
              queries=[(f"min(recserve_release{{{HERE}}})", "lowest"),
                       (f"max(recserve_release{{{HERE}}})", "highest")]),
        Panel(title="Open breakers", what="Replicas that have stopped asking Triton.",
              kind="stat", queries=[(f"sum(recserve_breaker_open{{{HERE}}})", "")], red_above=1),
        Panel(title="Store away", what="Replicas that the store does not answer.", kind="stat",
              queries=[(f"sum(recserve_store_away{{{HERE}}})", "")], red_above=1),
    ),
    "Traffic and errors": (
        Panel(title="Requests", what="By route and status.", unit="reqps",
              queries=[(of(REQUESTS, HERE, "route, status"), "{{route}} {{status}}")]),
        Panel(title="Fallbacks", what="Answers with popular items, by cause.", unit="reqps",
              queries=[(of(FALLBACKS, HERE, "cause"), "{{cause}}")]),
        Panel(title="Turned away", what="With 429, before any work was done.", unit="reqps",
              queries=[(of("recserve_refused_total", HERE, "reason"), "{{reason}}")]),
    ),
    "Latency": (
        Panel(title="Recommendations", what="From the whole request to its answer.", unit="s",
              queries=[(quantile(q, SECONDS, RECOMMEND), f"p{q:g}") for q in (0.5, 0.95, 0.99)]),
        Panel(title="Stages, p99", what="One passage through each stage.", unit="s",
              queries=[(quantile(0.99, STAGE, HERE, ", stage"), "{{stage}}")]),
        Panel(title="Stages, errors", what="Share of passages that an error ended.",
              unit="percentunit",
              queries=[(f"{of('recserve_stage_errors_total', HERE, 'stage')} / "
                        f"({of(f'{STAGE}_count', HERE, 'stage')} > 0)", "{{stage}}")]),
    ),
    "Saturation": (
        Panel(title="Under way", what="Requests being answered, and how many may be.",
              queries=[(f"recserve_inflight_requests{{{HERE}}}", "{{instance}}"),
                       (f"recserve_inflight_bound{{{HERE}}} > 0", "{{instance}} at most")]),
        Panel(title="Waiting for Triton", what="Rows that wait to leave, and calls under way.",
              queries=[(f"recserve_waiting_rows{{{HERE}}}", "{{instance}} waiting"),
                       (f"recserve_triton_calls{{{HERE}}}", "{{instance}} calls")]),
        Panel(title="CPU", what="Cores that the service uses.",
              queries=[(f"rate(process_cpu_seconds_total{{{HERE}}}{RATE})", "{{instance}}")]),
        Panel(title="Memory", what="Resident memory of the service.", unit="bytes",
              queries=[(f"process_resident_memory_bytes{{{HERE}}}", "{{instance}}")]),
    ),
    "Triton": (
        Panel(title="Inferences", what="Rows, by model and version.", unit="reqps",
              queries=[(of("nv_inference_count", "", "model, version"),
                        "{{model}} {{version}}")]),
        Panel(title="Failures", what="Requests that failed, by model.", unit="reqps",
              queries=[(of("nv_inference_request_failure", "", "model"), "{{model}}")]),
        Panel(title="Queue", what="Mean wait of a request inside Triton.", unit="µs",
              queries=[(f"{of('nv_inference_queue_duration_us', '', 'model')} / "
                        f"({of('nv_inference_request_success', '', 'model')} > 0)",
                        "{{model}}")]),
        Panel(title="Rows in a batch", what="Mean rows of an execution.",
              queries=[(f"{of('nv_inference_count', '', 'model')} / "
                        f"({of('nv_inference_exec_count', '', 'model')} > 0)", "{{model}}")]),
    ),
    "Variants": (
        Panel(title="Requests", what="By variant and release.", unit="reqps",
              queries=[(of("recserve_variant_requests_total", HERE, "variant, release"),
                        "{{variant}} {{release}}")]),
        Panel(title="Fallbacks", what="Share of each variant's requests.", unit="percentunit",
              queries=[(f"{of('recserve_variant_fallbacks_total', HERE, 'variant, release')} / "
                        f"({of('recserve_variant_requests_total', HERE, 'variant, release')} > 0)",
                        "{{variant}} {{release}}")]),
        Panel(title="p95", what="Time to the answer of each variant.", unit="s",
              queries=[(quantile(0.95, "recserve_variant_seconds", HERE, ", variant, release"),
                        "{{variant}} {{release}}")]),
        Panel(title="Shadows agree", what="Mean part of an answer that the shadow gave too.",
              unit="percentunit",
              queries=[(f"{of('recserve_shadow_overlap_sum', HERE, 'variant, release')} / "
                        f"({of('recserve_shadow_overlap_count', HERE, 'variant, release')} > 0)",
                        "{{variant}} {{release}}")]),
    ),
    "Events": (
        Panel(title="Events", what="By what became of them.", unit="cps",
              queries=[(of("recserve_events_total", HERE, "outcome"), "{{outcome}}")]),
        Panel(title="Lag", what="From an act to its arrival.", unit="s",
              queries=[(quantile(q, "recserve_event_lag_seconds", HERE), f"p{q:g}")
                       for q in (0.5, 0.95)]),
        Panel(title="Impressions lost", what="Answers that the log of impressions lacks.",
              unit="cps", queries=[(of("recserve_impressions_dropped_total"), "lost")]),
    ),
    "Does the traffic still look like the training?": (
        Panel(title="Unknown to the release", what="Share of the ids in requests.",
              unit="percentunit",
              queries=[(share(of(f"recserve_asked_{kind}_total", f'{HERE}, known="false"'),
                              of(f"recserve_asked_{kind}_total")), kind)
                       for kind in ("users", "items")]),
        Panel(title="Coverage", what="Part of the catalogue shown in the last hour or two.",
              unit="percentunit",
              queries=[(f"recserve_shown_items{{{HERE}}} / "
                        f"(recserve_catalogue_items{{{HERE}}} > 0)", "{{instance}}")]),
        Panel(title="Popularity of what is shown", what="Mean place in the order of popularity: "
              "1 is the most popular item, 0.5 what chance would show.", unit="percentunit",
              queries=[(f"{of('recserve_shown_popularity_total')} / "
                        f"({of('recserve_shown_total')} > 0)", "shown")]),
        Panel(title="Exclusions beyond the model's", what="Dropped from its answers afterwards.",
              unit="cps", queries=[(of("recserve_exclude_overflow_total"), "exclusions")]),
    ),
}  # fmt: skip


def dashboard() -> dict[str, Any]:
    return {
        "uid": "recserve",
        "title": "recserve",
        "tags": ["recserve"],
        "schemaVersion": 39,  # Grafana 10.4; later ones migrate it
        "editable": True,
        "graphTooltip": 1,  # one crosshair for all
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_source(), _instances()]},
        "annotations": {"list": [_releases()]},
        "panels": _placed(),
    }


def _placed() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "gridPos": place,
                       "collapsed": False, "panels": []})  # fmt: skip
        y += 1
        width = COLUMNS // len(row)
        height = HEIGHT if row[0].kind == "timeseries" else HEIGHT // 2
        for number, panel in enumerate(row):
            place = {"x": number * width, "y": y, "w": width, "h": height}
            panels.append({"id": len(panels) + 1, "gridPos": place, **_drawn(panel)})
        y += height
    return panels


def _drawn(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red_above is not None:
        steps.append({"color": "red", "value": panel.red_above})
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.what,
        "datasource": SOURCE,
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
            for i, (expr, legend) in enumerate(panel.queries)
        ],
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "thresholds": {"mode": "absolute", "steps": steps},
            },
            "overrides": [],
        },
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}} if panel.kind == "stat" else {},
    }


def _source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource",
            "query": "prometheus", "refresh": 1}  # fmt: skip


def _instances() -> dict[str, Any]:
    query = "label_values(recserve_release, instance)"
    return {"name": "instance", "label": "Replica", "type": "query", "datasource": SOURCE,
            "query": {"query": query, "refId": "instances"}, "definition": query, "refresh": 2,
            "multi": True, "includeAll": True, "allValue": ".*",
            "current": {"text": "All", "value": "$__all"}, "sort": 1}  # fmt: skip


def _releases() -> dict[str, Any]:
    """A line at each promotion."""
    return {"name": "Releases", "enable": True, "iconColor": "blue", "datasource": SOURCE,
            "expr": "changes(recserve_release[1m]) > 0", "step": "30s",
            "titleFormat": "another release", "textFormat": "{{instance}}"}  # fmt: skip


if __name__ == "__main__":
    json.dump(dashboard(), sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
