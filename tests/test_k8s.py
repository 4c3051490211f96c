"""`kubectl apply -f k8s/`: every manifest valid, every reference resolved, every pod restricted.

No cluster is needed: the schemas of Kubernetes 1.34 to 1.37 are the judge.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from manifests import (
    ALL,
    FILES,
    K8S,
    Manifest,
    containers,
    main_container,
    named,
    of_kind,
    pods,
    ports,
    probes,
    read,
    selected,
)

from recommender.contract import model_names

VERSIONS = ("1.34", "1.35", "1.36", "1.37")
IDS = [path.stem for path in FILES]


# Valid, and one command.


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", ALL, ids=IDS)
def test_every_manifest_is_valid_in_strict_mode(manifest: Manifest, version: str) -> None:
    # An unknown kind raises too: nothing in k8s/ may need a custom resource definition.
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


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_a_file_holds_one_object_and_is_named_after_it(path: Path) -> None:
    (manifest,) = yaml.safe_load_all(path.read_text())
    words = re.sub(r"^\d\d-", "", path.stem)
    kind = manifest["kind"].lower()
    assert words in (kind, f"{manifest['metadata']['name']}-{kind}")


def test_the_namespace_comes_first_and_holds_everything_else() -> None:
    assert FILES[0].name == "00-namespace.yaml"
    for manifest in ALL[1:]:
        assert manifest["metadata"]["namespace"] == ALL[0]["metadata"]["name"]


def test_the_kustomization_lists_exactly_the_files() -> None:
    assert not list(K8S.glob("[Kk]ustomization.y*ml"))  # kubectl apply -f would send it
    kustomization = read(K8S / "Kustomization")
    assert kustomization["resources"] == [path.name for path in FILES]


def test_no_object_is_declared_twice() -> None:
    names = [(m["kind"], m["metadata"]["name"]) for m in ALL]
    assert len(set(names)) == len(names)


# Every reference resolves.


def test_pods_run_under_a_service_account_that_exists_and_has_no_token() -> None:
    for name, pod in pods().items():
        account = named("ServiceAccount", pod["spec"]["serviceAccountName"])
        assert account["automountServiceAccountToken"] is False, name
        assert pod["spec"]["automountServiceAccountToken"] is False, name


def test_every_selector_finds_the_pods_it_means() -> None:
    for name in pods():
        deployment = named("Deployment", name)
        service, budget = named("Service", name), named("PodDisruptionBudget", name)
        for selector in (
            deployment["spec"]["selector"]["matchLabels"],
            service["spec"]["selector"],
            budget["spec"]["selector"]["matchLabels"],
            named("NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"],
            *(
                spread["labelSelector"]["matchLabels"]
                for spread in pods()[name]["spec"]["topologySpreadConstraints"]
            ),
        ):
            assert selected(selector) == [name]
    assert selected({"app.kubernetes.io/name": "nobody"}) == []


def test_ports_are_named_once_and_referred_to_by_name() -> None:
    for name, pod in pods().items():
        known = ports(pod)
        assert len(set(known.values())) == len(known)
        for port in named("Service", name)["spec"]["ports"]:
            assert port["targetPort"] in known
        for probe in probes(main_container(name)):
            assert probe["port"] in known
        annotations = pod["metadata"]["annotations"]
        assert int(annotations["prometheus.io/port"]) in known.values()


def test_autoscalers_aim_at_deployments_that_leave_the_number_to_them() -> None:
    for scaler in of_kind("HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        deployment = named(target["kind"], target["name"])
        assert deployment["apiVersion"] == target["apiVersion"]
        assert "replicas" not in deployment["spec"]
        for metric in scaler["spec"]["metrics"]:  # what a plain cluster can compute
            assert (metric["type"], metric["resource"]["name"]) == ("Resource", "cpu")
        for container in containers(pods()[target["name"]]):  # or it computes nothing
            assert "cpu" in container["resources"]["requests"]


def test_mounts_name_volumes_and_volumes_are_mounted() -> None:
    for pod in pods().values():
        volumes = {v["name"] for v in pod["spec"]["volumes"]}
        mounted = {m["name"] for c in containers(pod) for m in c["volumeMounts"]}
        assert mounted == volumes


def test_nothing_refers_to_a_config_map_or_a_secret_that_is_not_there() -> None:
    text = "".join(path.read_text() for path in FILES)
    assert not re.search(r"configMap|secretName|secretKeyRef|imagePullSecrets", text)


# Who may talk to whom.


def test_everything_is_denied_that_no_policy_allows() -> None:
    deny = named("NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def allowed(policy: Manifest, direction: str, peer: str) -> set[tuple[str, Any]]:
    """(other pod's Deployment, port) pairs that `policy` lets through."""
    return {
        (name, port["port"])
        for rule in policy["spec"][direction]
        for one in rule.get(peer, [])
        if "podSelector" in one
        for name in selected(one["podSelector"]["matchLabels"])
        for port in rule["ports"]
    }


def test_bento_reaches_triton_on_grpc_alone_and_triton_reaches_nobody() -> None:
    bento, triton = named("NetworkPolicy", "bento"), named("NetworkPolicy", "triton")
    assert allowed(bento, "egress", "to") == {("triton", "grpc")}
    assert allowed(triton, "ingress", "from") == {("bento", "grpc")}
    assert triton["spec"]["egress"] == []
    assert "grpc" in ports(pods()["triton"])


def test_policies_open_only_ports_that_the_pods_have() -> None:
    for name, pod in pods().items():
        for rule in named("NetworkPolicy", name)["spec"]["ingress"]:
            assert {port["port"] for port in rule["ports"]} <= set(ports(pod))


def test_the_http_port_of_triton_is_open_to_probes_alone() -> None:
    rules = named("NetworkPolicy", "triton")["spec"]["ingress"]
    assert "http" not in {port["port"] for rule in rules for port in rule["ports"]}
    assert "http" not in {p["name"] for p in named("Service", "triton")["spec"]["ports"]}


# Pod Security "restricted", and what the pods need to run under it.


def test_the_namespace_enforces_restricted_pods() -> None:
    labels = named("Namespace", "recserve")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("name", list(pods()))
def test_a_pod_is_restricted(name: str) -> None:
    pod = pods()[name]["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 1000
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {kind for v in pod["volumes"] for kind in v if kind != "name"} == {"emptyDir"}
    for container in containers(pods()[name]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "hostPort" not in str(container.get("ports"))
        resources = container["resources"]
        assert "memory" in resources["requests"] and "memory" in resources["limits"]


@pytest.mark.parametrize("name", list(pods()))
def test_a_pod_writes_only_into_bounded_volumes(name: str) -> None:
    pod = pods()[name]
    writable = {
        mount["mountPath"]
        for mount in pod["spec"]["containers"][0]["volumeMounts"]
        if not mount.get("readOnly")
    }
    needed = {"triton": {"/tmp", "/dev/shm"}, "bento": {"/tmp", "/var/lib/bentoml"}}
    assert writable == needed[name]
    assert all("sizeLimit" in volume["emptyDir"] for volume in pod["spec"]["volumes"])


@pytest.mark.parametrize("name", list(pods()))
def test_a_pod_has_time_to_finish_what_it_has_accepted(name: str) -> None:
    container = main_container(name)
    sleeps = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    text = " ".join(container["args"])
    (drains,) = re.findall(r"--(?:exit-timeout-secs|timeout-graceful-shutdown)[= ](\d+)", text)
    assert pods()[name]["spec"]["terminationGracePeriodSeconds"] > sleeps + int(drains)


# The page that goes with it.


def test_the_page_builds_every_image_of_ours_and_explains_every_file() -> None:
    page = (K8S.parent / "docs" / "kubernetes.md").read_text()
    for image in {c["image"] for pod in pods().values() for c in containers(pod)}:
        assert f"-t {image}" in page or (image in page and image.startswith("nvcr.io/"))
    for path in FILES:
        assert f"`{path.name}`" in page
    for model in model_names("deep"):
        assert f"COPY model_repository/{model}/${{RELEASE}}" in page
