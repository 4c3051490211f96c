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
        assert one == other


def test_bento_waits_for_triton_as_long_as_triton_s_rollout_may_take() -> None:
    bento, triton = (named("Deployment", name)["spec"] for name in ("bento", "triton"))
    probe = main_container("bento")["startupProbe"]
    waits = probe["periodSeconds"] * probe["failureThreshold"]
    assert waits >= triton["progressDeadlineSeconds"]
    assert bento["progressDeadlineSeconds"] > waits  # it pulls an image of its own before that


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


def test_a_certificate_has_a_secret_of_its_own_in_the_place_of_the_one_that_is_committed(
    tmp_path: Path,
) -> None:
    block = next(b for b in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if "shop-tls" in b)
    made = set(re.findall(r"create secret (?:tls|generic) (\S+)", block))
    shutil.copytree(K8S, tmp_path / "k8s")
    for command in re.findall(r"^sed .*$", block, re.MULTILINE):
        subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    files = [*(tmp_path / "k8s").glob("*.yaml"), *(tmp_path / "k8s" / "optional").glob("*.yaml")]
    changed = [read(path) for path in files]
    ingresses = [m["spec"]["tls"] for m in changed if m["kind"] == "Ingress"]
    (gateway,) = [m["spec"]["listeners"] for m in changed if m["kind"] == "Gateway"]
    named_now = {tls["secretName"] for all_tls in ingresses for tls in all_tls}
    assert named_now == made
    assert {ref["name"] for one in gateway for ref in one["tls"]["certificateRefs"]} == made
    committed = {m["metadata"]["name"] for m in of_kind("Secret", EVERYWHERE)}
    assert not made & committed  # or the next `kubectl apply` would empty it
    assert "patch secret bento-tls" not in PAGE and "patch secret triton-tls" not in PAGE


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


# CPUs that a node of these types gives pods: of 4 cores GKE and EKS keep .08 back, of 8 .09.
GIVEN = {"e2-standard-4": 3.92, "m7i.xlarge": 3.92, "g2-standard-8": 7.91, "g6.2xlarge": 7.91}
SYSTEM = 0.5  # DaemonSets and what else runs in kube-system, of each node


def cpus(text: str) -> float:
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def test_every_pod_fits_on_a_node_that_the_page_makes() -> None:
    for pool in re.findall(
        r"^gcloud container \S+ create .*?[^\\]$", PAGE, re.DOTALL | re.MULTILINE
    ):
        assert "--machine-type" in pool  # the default has less than one CPU to give
    types = re.findall(r"--machine-type (\S+)|instanceType: ([\w.]+)", PAGE)
    found = {one or other for one, other in types}
    assert found == set(GIVEN)
    bento = cpus(main_container("bento")["resources"]["requests"]["cpu"])
    for name, pod in PODS.items():
        asked = max(cpus(c["resources"]["requests"]["cpu"]) for c in containers(pod))
        on_gpu = "nvidia.com/gpu" in str(pod)
        nodes = [GIVEN[n] for n in found if n.startswith("g") == on_gpu]
        beside = 0 if on_gpu or name.startswith("bento") else bento  # a Bento is on each node
        assert asked + beside + SYSTEM <= min(nodes), name


def eks() -> Manifest:
    (text,) = re.findall(r"cat > eks.yaml <<'END'\n(.*?)^END$", PAGE, re.DOTALL | re.MULTILINE)
    config: Manifest = yaml.safe_load(text)
    return config


def test_every_gpu_node_is_tainted_also_those_that_come_later_and_triton_tolerates_it() -> None:
    assert "kubectl taint" not in PAGE
    (group,) = [g for g in eks()["managedNodeGroups"] if g["name"] == "gpu"]
    (taint,) = group["taints"]
    for name in ("triton", "triton-trial"):
        (tolerated,) = PODS[name]["spec"]["tolerations"]
        assert tolerated == {"key": taint["key"], "operator": "Exists", "effect": taint["effect"]}


def test_groups_of_nodes_that_are_to_grow_have_somebody_who_makes_them_grow() -> None:
    assert all(group["maxSize"] > group["minSize"] for group in eks()["managedNodeGroups"])
    (account,) = eks()["iam"]["podIdentityAssociations"]
    assert account["wellKnownPolicies"] == {"autoScaler": True}
    assert f"rbac.serviceAccount.name={account['serviceAccountName']}" in PAGE
    assert f"autoDiscovery.clusterName={eks()['metadata']['name']}" in PAGE
    most = named("HorizontalPodAutoscaler", "triton")["spec"]["maxReplicas"]
    assert {g["maxSize"] for g in eks()["managedNodeGroups"] if g["name"] == "gpu"} == {most}
    assert PAGE.count("--enable-autoscaling") == 2


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
