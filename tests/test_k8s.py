"""`kubectl apply -f k8s/`: every manifest valid, one object a file, every pod restricted.

No cluster is needed: the schemas of Kubernetes 1.34 to 1.37 are the judge. Which names refer to
what, and who may talk to whom: test_k8s_references.py.
"""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from manifests import (
    ALL,
    EVERYWHERE,
    FILES,
    JOBS,
    K8S,
    OPTIONAL,
    Manifest,
    containers,
    main_container,
    named,
    of_kind,
    read,
    workloads,
)

from recommender.contract import model_names

PAGE = (K8S.parent / "docs" / "kubernetes.md").read_text()
ALERTS = K8S.parent / "monitoring" / "recserve-alerts.yaml"
VERSIONS = ("1.34", "1.35", "1.36", "1.37")
IDS = [path.stem for path in FILES]
# Of operators: no schema here knows them.
CUSTOM = ("monitoring.coreos.com/", "gateway.networking.k8s.io/", "keda.sh/")


# Valid, and one command.


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", ALL, ids=IDS)
def test_every_manifest_is_valid_in_strict_mode(manifest: Manifest, version: str) -> None:
    # An unknown kind raises too: nothing in k8s/ may need a custom resource definition.
    assert kubernetes_validate.validate(manifest, version, strict=True) == version


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", [*OPTIONAL, *JOBS], ids=lambda path: path.stem)
def test_what_is_optional_is_valid_too_unless_its_kind_is_an_operator_s(
    path: Path, version: str
) -> None:
    manifest = read(path)
    if manifest["apiVersion"].startswith(CUSTOM):
        with pytest.raises(kubernetes_validate.SchemaNotFoundError):
            kubernetes_validate.validate(manifest, version, strict=True)
    else:
        assert kubernetes_validate.validate(manifest, version, strict=True) == version


@pytest.mark.parametrize("version", VERSIONS)
def test_the_validator_refuses_a_broken_manifest(version: str) -> None:
    def refused(kind: str, change: Any) -> None:
        broken = copy.deepcopy(of_kind(kind)[0])
        change(broken)
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(broken, version, strict=True)

    refused("HorizontalPodAutoscaler", lambda m: m["spec"].update(minReplica=2))
    refused("Deployment", lambda m: m["spec"]["template"]["spec"].update(replicas=2))
    refused("Service", lambda m: m["spec"]["ports"][0].update(port="grpc"))
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        kubernetes_validate.validate(
            {"apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor"}, version, strict=True
        )


@pytest.mark.parametrize("path", [*FILES, *OPTIONAL, *JOBS], ids=lambda path: path.stem)
def test_a_file_holds_one_object_and_is_named_after_it(path: Path) -> None:
    (manifest,) = yaml.safe_load_all(path.read_text())
    words = re.sub(r"^\d\d-", "", path.stem)
    kind = manifest["kind"].lower()
    assert words in (kind, f"{manifest['metadata']['name']}-{kind}")


def test_the_namespace_comes_first_and_holds_everything_else() -> None:
    assert FILES[0].name == "00-namespace.yaml"
    for manifest in EVERYWHERE[1:]:
        where = None if manifest["kind"] == "PriorityClass" else ALL[0]["metadata"]["name"]
        assert manifest["metadata"].get("namespace") == where


def test_the_kustomization_lists_exactly_the_files() -> None:
    assert not list(K8S.glob("[Kk]ustomization.y*ml"))  # kubectl apply -f would send it
    kustomization = read(K8S / "Kustomization")
    assert kustomization["resources"] == [path.name for path in FILES]
    optional = read(K8S / "optional" / "Kustomization")
    replacing = [patch["path"] for patch in optional["patches"]]
    assert sorted([*optional["resources"], *replacing]) == [path.name for path in OPTIONAL]


def test_of_all_objects_the_autoscalers_alone_are_declared_twice() -> None:
    names = [(m["kind"], m["metadata"]["name"]) for m in EVERYWHERE]
    twice = {name for name in names if names.count(name) > 1}
    assert twice == {("HorizontalPodAutoscaler", "triton"), ("HorizontalPodAutoscaler", "bento")}


# Pod Security "restricted", and what the pods need to run under it.


def test_the_namespace_enforces_restricted_pods() -> None:
    labels = named("Namespace", "recserve")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


PODS = workloads()
# What `restricted` lets a pod mount.
VOLUMES = {"emptyDir", "configMap", "secret", "persistentVolumeClaim"}


@pytest.mark.parametrize("name", PODS)
def test_a_pod_is_restricted(name: str) -> None:
    pod = PODS[name]["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 1000
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {kind for v in pod["volumes"] for kind in v if kind != "name"} <= VOLUMES
    for container in containers(PODS[name]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "hostPort" not in str(container.get("ports"))
        resources = container["resources"]
        assert resources["requests"]["memory"] and resources["limits"]["memory"]


@pytest.mark.parametrize("name", PODS)
def test_a_pod_writes_only_into_bounded_volumes(name: str) -> None:
    pod = PODS[name]
    writable = {
        mount["mountPath"]
        for mount in pod["spec"]["containers"][0]["volumeMounts"]
        if not mount.get("readOnly")
    }
    triton, bento = {"/tmp", "/dev/shm"}, {"/tmp", "/var/lib/bentoml"}
    job = {"/tmp", "/work", "/training"}
    needed = {"triton": triton, "triton-trial": triton, "bento": bento, "bento-trial": bento,
              "redis": {"/data"}, "retraining": job, "batch-scoring": job}  # fmt: skip
    assert writable == needed[name]
    scratch = [v["emptyDir"] for v in pod["spec"]["volumes"] if "emptyDir" in v]
    assert all("sizeLimit" in volume for volume in scratch)


@pytest.mark.parametrize("name", [n for n in PODS if n.startswith(("triton", "bento"))])
def test_a_pod_has_time_to_finish_what_it_has_accepted(name: str) -> None:
    container = main_container(name)
    sleeps = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    text = " ".join(container["args"])
    (drains,) = re.findall(r"--(?:exit-timeout-secs|timeout-graceful-shutdown)[= ](\d+)", text)
    assert PODS[name]["spec"]["terminationGracePeriodSeconds"] > sleeps + int(drains)


def test_a_trial_differs_from_what_serves_in_its_name_its_release_and_its_number_of_pods() -> None:
    for name in ("triton", "bento"):
        ours = (K8S / f"{name}-deployment.yaml").read_text()
        trial = (K8S / "optional" / f"{name}-trial-deployment.yaml").read_text()
        as_trial = ours.replace(f"name: {name}\n", f"name: {name}-trial\n", 2)
        as_trial = as_trial.replace(f"/name: {name}\n", f"/name: {name}-trial\n")
        as_trial = as_trial.replace("release:1", "release:trial").replace("/1/ready", "/2/ready")
        as_trial = as_trial.replace("grpc://triton:", "grpc://triton-trial:")
        one, other = yaml.safe_load(as_trial), yaml.safe_load(trial)
        (container,) = other["spec"]["template"]["spec"]["containers"]
        container["name"] = one["spec"]["template"]["spec"]["containers"][0]["name"]
        assert one["spec"]["template"]["metadata"].pop("annotations")  # PodMonitors count it apart
        if name == "bento":
            assert other["spec"].pop("replicas") == 1
            patient = container["startupProbe"]
            assert patient.pop("periodSeconds") * patient.pop("failureThreshold") == 1800
            for key in ("periodSeconds", "failureThreshold"):
                one["spec"]["template"]["spec"]["containers"][0]["startupProbe"].pop(key)
        assert one == other


# What no file may do.


def test_serving_goes_before_training() -> None:
    classes = {m["metadata"]["name"]: m for m in of_kind("PriorityClass")}
    serving, training = classes["recserve-serving"], classes["recserve-training"]
    assert serving["value"] > 0 > training["value"]
    assert training["preemptionPolicy"] == "Never"
    assert not serving["globalDefault"] and not training["globalDefault"]


def test_secrets_are_committed_without_data() -> None:
    for secret in of_kind("Secret", EVERYWHERE):
        assert not {"data", "stringData"} & set(secret), secret["metadata"]["name"]


def test_nothing_trains_before_somebody_says_so() -> None:
    assert named("CronJob", "retraining")["spec"]["suspend"] is True
    assert not [m for m in ALL if m["kind"] == "Job"]


# The page that goes with it.


def test_the_page_builds_every_image_of_ours_and_explains_every_file() -> None:
    for image in {c["image"] for pod in PODS.values() for c in containers(pod)}:
        ours = image.startswith("registry.example.com/")
        assert (f"-t {image}" if ours else image) in PAGE
    for path in (*FILES, *OPTIONAL, *JOBS):
        assert f"`{path.name}`" in PAGE, path
    for model in model_names("deep"):
        assert f"COPY model_repository/{model}/${{RELEASE}}" in PAGE


def test_the_page_s_own_objects_are_valid_and_restricted() -> None:
    blocks = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
    (pod,) = [block for block in blocks if block["kind"] == "Pod"]
    for version in VERSIONS:
        assert kubernetes_validate.validate(pod, version, strict=True) == version
    (container,) = pod["spec"]["containers"]
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert container["securityContext"] == security
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    (overlay,) = [block for block in blocks if block["kind"] == "Kustomization"]
    assert all((K8S.parent / component).is_dir() for component in overlay["components"])
    images = {c["image"].rpartition(":")[0] for pod in PODS.values() for c in containers(pod)}
    assert {image["name"] for image in overlay["images"]} <= images


def test_the_page_s_commands_are_valid_shell() -> None:
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL):
        subprocess.run(["bash", "-n", "-c", block], check=True)


def test_the_page_says_what_to_do_at_each_alert() -> None:
    alerts = {rule["alert"] for group in read(ALERTS)["groups"] for rule in group["rules"]}
    assert set(re.findall(r"^\| \[(Recserve\w+)\]\(observability", PAGE, re.MULTILINE)) == alerts


def test_an_upgrade_as_the_page_has_it_changes_the_tag_and_the_probes_and_nothing_else(
    tmp_path: Path,
) -> None:
    (command,) = re.findall(r"^(sed -i 's\|.*) k8s/triton-deployment.yaml$", PAGE, re.MULTILINE)
    path = Path(shutil.copy(K8S / "triton-deployment.yaml", tmp_path))
    subprocess.run(["bash", "-c", f"{command} {path}"], check=True)
    before = (K8S / "triton-deployment.yaml").read_text()
    after = before.replace("recserve/release:1\n", "recserve/release:2\n")
    assert path.read_text() == after.replace("/versions/1/ready", "/versions/2/ready") != before
