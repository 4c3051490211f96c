"""The manifests of k8s/ and the questions that tests ask of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

K8S = Path(__file__).parent.parent / "k8s"
FILES = sorted(K8S.glob("*.yaml"))
Manifest = dict[str, Any]


def read(path: Path) -> Manifest:
    manifest: Manifest = yaml.safe_load(path.read_text())
    return manifest


ALL = [read(path) for path in FILES]


def of_kind(kind: str) -> list[Manifest]:
    found = [m for m in ALL if m["kind"] == kind]
    assert found, f"no {kind} in k8s/"
    return found


def named(kind: str, name: str) -> Manifest:
    (found,) = [m for m in of_kind(kind) if m["metadata"]["name"] == name]
    return found


def pods() -> dict[str, Manifest]:
    """Deployment name -> pod template."""
    return {m["metadata"]["name"]: m["spec"]["template"] for m in of_kind("Deployment")}


def containers(pod: Manifest) -> list[Manifest]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def main_container(name: str) -> Manifest:
    (container,) = pods()[name]["spec"]["containers"]
    return dict(container)


def ports(pod: Manifest) -> dict[str, int]:
    return {p["name"]: p["containerPort"] for c in containers(pod) for p in c.get("ports", [])}


def selected(labels: Manifest) -> list[str]:
    """The Deployments whose pods carry all of `labels`."""
    return [n for n, p in pods().items() if labels.items() <= p["metadata"]["labels"].items()]


def probes(container: Manifest) -> Iterator[Manifest]:
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        yield container[kind]["httpGet"]
