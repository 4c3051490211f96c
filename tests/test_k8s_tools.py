"""k8s/ as others read it, without a cluster: kubectl and kustomize, checkov, promtool."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
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
    shutil.copytree(K8S, folder / "k8s")  # makes the folder, too
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


def has_gpu(pod: Manifest) -> bool:
    return "nvidia.com/gpu" in json.dumps(pod)


def test_the_cpu_component_takes_the_gpu_away_and_nothing_else(tmp_path: Path) -> None:
    made = overlay(tmp_path, "k8s/optional/cpu")
    assert ids(made) == ids(ALL)
    pod = of(made, "Deployment", "triton")["template"]["spec"]
    ours = read(K8S / "triton-deployment.yaml")["spec"]["template"]["spec"]
    assert has_gpu(ours) and not has_gpu(pod)
    assert ours.pop("tolerations")
    for kind in ("requests", "limits"):
        assert ours["containers"][0]["resources"][kind].pop("nvidia.com/gpu") == 1
    assert pod == ours


def test_a_full_pod_without_a_gpu_is_above_the_autoscaler_s_target(tmp_path: Path) -> None:
    """One instance with one thread keeps a core busy, and not much more."""
    made = overlay(tmp_path, "k8s/optional/cpu")
    (container,) = of(made, "Deployment", "triton")["template"]["spec"]["containers"]
    (metric,) = of(made, "HorizontalPodAutoscaler", "triton")["metrics"]
    target = metric["resource"]["target"]["averageUtilization"]
    shown = 100 * 1.0 / float(container["resources"]["requests"]["cpu"])
    assert shown > 1.5 * target  # at two thirds of what it can do it asks for more


def keyed(pod: Manifest) -> bool:
    (container,) = pod["containers"]
    environment = {e["name"]: e["value"] for e in container["env"]}
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    if "RECSERVE_KEYS" not in environment:
        return False
    name = mounts[str(Path(environment["RECSERVE_KEYS"]).parent)]
    (volume,) = [v["secret"] for v in pod["volumes"] if v["name"] == name]
    assert not volume.get("optional")  # without the Secret pods wait
    return True


def test_the_keys_component_gives_bento_its_keys(tmp_path: Path) -> None:
    made = overlay(tmp_path, "k8s/optional/keys")
    assert keyed(of(made, "Deployment", "bento")["template"]["spec"])
    assert not keyed(read(K8S / "bento-deployment.yaml")["spec"]["template"]["spec"])


def page_s_components() -> list[str]:
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    (block,) = [text for text in page.split("```yaml\n") if "\ncomponents:" in text]
    return list(yaml.safe_load(block.partition("```")[0])["components"])


def test_components_cover_the_trial_too_in_the_order_of_the_page(tmp_path: Path) -> None:
    order = page_s_components()
    assert set(order) == {"k8s/optional", "k8s/optional/cpu", "k8s/optional/keys"}
    every = [*order, "k8s/optional/rows", "k8s/optional/training-gpu"]
    made = overlay(tmp_path, *every)
    pods = {m["metadata"]["name"]: m["spec"]["template"]["spec"]
            for m in made if m["kind"] == "Deployment"}  # fmt: skip
    assert {name for name, pod in pods.items() if name.startswith("bento") and keyed(pod)} == {
        "bento", "bento-trial"
    }  # fmt: skip
    assert not [name for name, pod in pods.items() if has_gpu(pod) or "tolerations" in pod]
    wanted = {*ids(ALL), *ids([read(path) for path in OPTIONAL])}
    assert ids(made) == sorted(wanted)
    for manifest in made:
        if manifest["kind"] in ("Deployment", "CronJob", "HorizontalPodAutoscaler"):
            assert kubernetes_validate.validate(manifest, "1.37", strict=True)


def test_the_rows_component_adds_a_metric_to_the_optional_autoscaler_alone(tmp_path: Path) -> None:
    made = overlay(tmp_path / "both", "k8s/optional", "k8s/optional/rows")
    ours = read(K8S / "optional" / "triton-horizontalpodautoscaler.yaml")["spec"]
    (queue,) = ours["metrics"]
    first, second = of(made, "HorizontalPodAutoscaler", "triton").pop("metrics")
    assert first == queue
    assert second["pods"]["metric"]["name"] == "triton_rows_per_batch"
    with pytest.raises(AssertionError, match="test"):  # over the CPU's, or before the optional one
        overlay(tmp_path / "alone", "k8s/optional/rows")


def test_retraining_on_a_gpu_tolerates_the_taint_of_gpu_nodes(tmp_path: Path) -> None:
    made = overlay(tmp_path, "k8s/optional/training-gpu")
    pod = of(made, "CronJob", "retraining")["jobTemplate"]["spec"]["template"]["spec"]
    triton = of(made, "Deployment", "triton")["template"]["spec"]
    assert pod.pop("tolerations") == triton["tolerations"]
    assert [c["name"] for c in pod["initContainers"] if has_gpu(c)] == ["train", "evaluate"]
    for step in pod["initContainers"]:
        for kind in ("requests", "limits"):
            step["resources"][kind].pop("nvidia.com/gpu", None)
    ours = read(K8S / "retraining-cronjob.yaml")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod == ours


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
