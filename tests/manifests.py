"""The manifests of k8s/ and the questions that tests ask of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

K8S = Path(__file__).parent.parent / "k8s"
FILES = sorted(K8S.glob("*.yaml"))  # what `kubectl apply -f k8s/` sends, in its order
OPTIONAL = sorted((K8S / "optional").glob("*.yaml"))
JOBS = sorted((K8S / "jobs").glob("*.yaml"))
Manifest = dict[str, Any]


def read(path: Path) -> Manifest:
    manifest: Manifest = yaml.safe_load(path.read_text())
    return manifest


ALL = [read(path) for path in FILES]
EVERYWHERE = [*ALL, *(read(path) for path in (*OPTIONAL, *JOBS))]


def of_kind(kind: str, manifests: list[Manifest] = ALL) -> list[Manifest]:
    found = [m for m in manifests if m["kind"] == kind]
    assert found, f"no {kind} in k8s/"
    return found


def named(kind: str, name: str, manifests: list[Manifest] = ALL) -> Manifest:
    (found,) = [m for m in of_kind(kind, manifests) if m["metadata"]["name"] == name]
    return found


def pods() -> dict[str, Manifest]:
    """Deployment of the base -> pod template."""
    return {m["metadata"]["name"]: m["spec"]["template"] for m in of_kind("Deployment")}


def workloads() -> dict[str, Manifest]:
    """Whatever starts pods, optional or not -> pod template."""
    return {m["metadata"]["name"]: t for m in EVERYWHERE if (t := template(m))}


def template(manifest: Manifest) -> Manifest | None:
    if manifest["kind"] == "CronJob":
        manifest = manifest["spec"]["jobTemplate"]
    pod: Manifest | None = manifest.get("spec", {}).get("template")
    return pod


def containers(pod: Manifest) -> list[Manifest]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def main_container(name: str) -> Manifest:
    (container,) = workloads()[name]["spec"]["containers"]
    return dict(container)


def ports(pod: Manifest) -> dict[str, int]:
    return {p["name"]: p["containerPort"] for c in containers(pod) for p in c.get("ports", [])}


def selected(labels: Manifest) -> list[str]:
    """What starts pods that carry all of `labels`."""
    return [n for n, p in workloads().items() if labels.items() <= p["metadata"]["labels"].items()]


def probes(container: Manifest) -> Iterator[Manifest]:
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        yield container[kind]["httpGet"]
