"""k8s/ as others read it, without a cluster: kubectl and kustomize, checkov, promtool."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifests import ALL, EVERYWHERE, FILES, JOBS, K8S, OPTIONAL, Manifest, read
from test_monitoring import ALERTS, promtool

ROOT = K8S.parent
KUBECTL = ROOT / "build" / "kubectl" / "kubectl"
CHECKOV = ROOT / "build" / "checkov" / "bin" / "python"


def kubectl(*arguments: str) -> str:
    assert KUBECTL.exists(), "kubectl is not there: run `make kubectl`"
    done = subprocess.run([str(KUBECTL), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def built(folder: Path) -> list[Manifest]:
    """What `kubectl apply -k` would send."""
    return list(yaml.safe_load_all(kubectl("kustomize", str(folder))))


def ids(manifests: list[Manifest]) -> list[tuple[str, str]]:
    return sorted((m["kind"], m["metadata"]["name"]) for m in manifests)


def test_kubectl_reads_every_file_in_strict_mode() -> None:
    folders = (K8S, K8S / "optional", K8S / "jobs")  # one call: the start is what takes time
    names = [argument for folder in folders for argument in ("-f", str(folder))]
    said = kubectl("label", "--local", "--dry-run=client", "-o", "name", *names, "a=b")
    assert len(said.splitlines()) == len([*FILES, *OPTIONAL, *JOBS])


def test_kubectl_refuses_a_file_that_is_no_object(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("apiVersion: v1\nmetadata: {name: nobody}\n")
    with pytest.raises(AssertionError, match="Kind"):
        kubectl("label", "--local", "-f", str(tmp_path), "a=b")


def test_the_folder_as_a_kustomization_is_the_same_objects() -> None:
    assert ids(built(K8S)) == ids(ALL)


def overlay(folder: Path, *components: str) -> list[Manifest]:
    """A user's own kustomization beside a copy of k8s/, as docs/kubernetes.md has it."""
    shutil.copytree(K8S, folder / "k8s")
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": ["k8s"], "components": list(components),
    }  # fmt: skip
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return built(folder)


def of(manifests: list[Manifest], kind: str, name: str) -> Any:
    (found,) = [m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name)]
    return found["spec"]


def test_the_optional_component_brings_its_folder_and_replaces_the_autoscalers(
    tmp_path: Path,
) -> None:
    made = overlay(tmp_path, "k8s/optional")
    wanted = {*ids(ALL), *ids([read(path) for path in OPTIONAL])}
    assert ids(made) == sorted(wanted)
    for name in ("triton", "bento"):
        path = K8S / "optional" / f"{name}-horizontalpodautoscaler.yaml"
        assert of(made, "HorizontalPodAutoscaler", name) == read(path)["spec"]


def test_the_cpu_component_takes_the_gpu_away_and_nothing_else(tmp_path: Path) -> None:
    made = overlay(tmp_path, "k8s/optional/cpu")
    assert ids(made) == ids(ALL)
    pod = of(made, "Deployment", "triton")["template"]["spec"]
    assert "nvidia.com/gpu" not in json.dumps(pod) and "tolerations" not in pod
    (container,) = pod["containers"]
    (ours,) = read(K8S / "triton-deployment.yaml")["spec"]["template"]["spec"]["containers"]
    assert ours["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {**container, "resources": None} == {**ours, "resources": None}


def test_the_keys_component_gives_bento_its_keys(tmp_path: Path) -> None:
    pod = of(overlay(tmp_path, "k8s/optional/keys"), "Deployment", "bento")["template"]["spec"]
    environment = {e["name"]: e["value"] for e in pod["containers"][0]["env"]}
    mounts = {m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
    assert str(Path(environment["RECSERVE_KEYS"]).parent) in mounts


def checkov(*arguments: str) -> Any:
    assert CHECKOV.exists(), "checkov is not there: run `make checkov`"
    command = [str(CHECKOV), "-m", "checkov.main", "--output", "json", "--compact", *arguments]
    done = subprocess.run(command, cwd=K8S, capture_output=True, text=True, check=False)
    return json.loads(done.stdout)


def test_checkov_finds_nothing_but_what_is_explained() -> None:
    """Asked where it does not find .checkov.yaml: what it says is what that file explains."""
    settings = (ROOT / ".checkov.yaml").read_text()
    explained = yaml.safe_load(settings)["skip-check"]
    lines = settings.splitlines()
    for check in explained:
        assert lines[lines.index(f"  - {check}") - 1].startswith("  # ")  # its reason
    found = checkov("--framework", "kubernetes", "--directory", ".")
    assert found["summary"]["parsing_errors"] == 0
    assert found["summary"]["resource_count"] >= len(EVERYWHERE)
    failed = found["results"]["failed_checks"]
    assert {one["check_id"] for one in failed} == set(explained), [
        (one["check_id"], one["check_name"], one["file_path"]) for one in failed
        if one["check_id"] not in explained
    ]  # fmt: skip
    assert "checkov.io/skip" not in "".join(path.read_text() for path in K8S.rglob("*.yaml"))


def test_the_operator_s_rules_are_those_of_monitoring(tmp_path: Path) -> None:
    rule = read(K8S / "optional" / "recserve-prometheusrule.yaml")
    assert rule["spec"] == yaml.safe_load(ALERTS.read_text())
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]))
    promtool("check", "rules", "rules.yaml", cwd=tmp_path)
