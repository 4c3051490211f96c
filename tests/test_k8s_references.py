"""Every name in k8s/ that stands for another object is that of one there, and who may call whom."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from manifests import (
    ALL,
    EVERYWHERE,
    Manifest,
    containers,
    main_container,
    named,
    of_kind,
    pods,
    ports,
    probes,
    selected,
    template,
    workloads,
)
from tritonclient.grpc import service_pb2

PODS = workloads()
# Fields that name an object of a kind: whatever has one of them refers to that kind.
BY_FIELD = {
    "serviceAccountName": "ServiceAccount",
    "priorityClassName": "PriorityClass",
    "secretName": "Secret",
    "claimName": "PersistentVolumeClaim",
}
BY_OBJECT = {
    "secretRef": "Secret", "secretKeyRef": "Secret", "configMap": "ConfigMap",
    "configMapRef": "ConfigMap", "configMapKeyRef": "ConfigMap",
}  # fmt: skip


def walk(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every field below `value` with the way to it."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield (*path, key), below
            yield from walk(below, (*path, key))
    elif isinstance(value, list):
        for below in value:
            yield from walk(below, path)


def references(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """(kind, name) of whatever a manifest names."""
    for path, value in walk(manifest):
        key = path[-1]
        if key in BY_FIELD:
            yield BY_FIELD[key], value
        elif key in BY_OBJECT and isinstance(value, dict):
            yield BY_OBJECT[key], value["name"]
        elif key == "scaleTargetRef":
            yield value["kind"], value["name"]
        elif key == "service" and "port" in value:  # of an Ingress
            yield "Service", value["name"]
        elif key == "backendRefs":
            yield from (("Service", one["name"]) for one in value)
        elif key == "parentRefs":
            yield from (("Gateway", one["name"]) for one in value)
        elif key == "certificateRefs":
            yield from ((one["kind"], one["name"]) for one in value)
        elif key.endswith("auth-tls-secret"):
            yield "Secret", value.partition("/")[2]
    if manifest["kind"] == "StatefulSet":
        yield "Service", manifest["spec"]["serviceName"]


def exists(kind: str, name: str, manifests: list[Manifest]) -> bool:
    return any((m["kind"], m["metadata"]["name"]) == (kind, name) for m in manifests)


def test_whatever_is_named_is_there() -> None:
    found = set()
    for manifests, known in ((ALL, ALL), (EVERYWHERE, EVERYWHERE)):
        for manifest in manifests:
            for kind, name in references(manifest):
                found.add(kind)
                assert exists(kind, name, known), (manifest["metadata"]["name"], kind, name)
    assert found >= {"Secret", "ConfigMap", "ServiceAccount", "PriorityClass", "Service",
                     "Deployment", "PersistentVolumeClaim", "Gateway"}  # fmt: skip


def test_a_name_that_is_not_there_is_found() -> None:
    pod = {"kind": "Pod", "spec": {"volumes": [{"secret": {"secretName": "nobody"}}]}}
    assert list(references(pod)) == [("Secret", "nobody")]
    assert not exists("Secret", "nobody", EVERYWHERE)


def test_secrets_are_read_as_optional() -> None:
    for name, pod in PODS.items():
        for path, value in walk(pod):
            if path[-1] in ("secretRef", "secretKeyRef", "secret"):
                assert value["optional"] is True, name


def test_keys_that_are_read_from_a_config_map_are_in_it() -> None:
    (volume,) = [v for v in PODS["redis"]["spec"]["volumes"] if "configMap" in v]
    wanted = {item["key"] for item in volume["configMap"]["items"]}
    assert wanted == set(named("ConfigMap", "redis")["data"])


def test_pods_run_under_a_service_account_without_a_token() -> None:
    for name, pod in PODS.items():
        account = named("ServiceAccount", pod["spec"]["serviceAccountName"])
        assert account["automountServiceAccountToken"] is False, name
        assert pod["spec"]["automountServiceAccountToken"] is False, name


def test_every_selector_finds_the_pods_it_means() -> None:
    for manifest in EVERYWHERE:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if kind in ("Deployment", "StatefulSet", "PodDisruptionBudget", "PodMonitor"):
            assert selected(manifest["spec"]["selector"]["matchLabels"]) == [name]
        elif kind == "Service":
            assert selected(manifest["spec"]["selector"]) == [name]
        for spread in (template(manifest) or {"spec": {}})["spec"].get(
            "topologySpreadConstraints", ()
        ):
            assert selected(spread["labelSelector"]["matchLabels"]) == [name]
    assert selected({"app.kubernetes.io/name": "nobody"}) == []


def test_what_serves_is_spread_over_zones_and_nodes() -> None:
    for name in pods():
        spread = pods()[name]["spec"]["topologySpreadConstraints"]
        keys = [one["topologyKey"] for one in spread]
        assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]


def test_ports_are_named_once_and_referred_to_by_name() -> None:
    for manifest in of_kind("Service", EVERYWHERE):
        name = manifest["metadata"]["name"]
        known = ports(PODS[name])
        assert len(set(known.values())) == len(known)
        for port in manifest["spec"]["ports"]:
            assert port["targetPort"] == port["name"]
            assert port["name"] in known
    for name, pod in PODS.items():
        for container in containers(pod):
            for path, value in walk(container):
                if path[-1] == "port":  # of probes
                    assert value in ports(pod), name
        if "annotations" in pod["metadata"]:
            annotations = pod["metadata"]["annotations"]
            assert int(annotations["prometheus.io/port"]) in ports(pod).values()


def test_whoever_calls_a_service_knows_its_ports() -> None:
    for manifest in EVERYWHERE:
        for path, value in walk(manifest):
            if path[-1] == "service" and "port" in value:
                names = {p["name"] for p in named("Service", value["name"])["spec"]["ports"]}
                assert value["port"]["name"] in names
            if path[-1] == "backendRefs":  # the Gateway API knows numbers alone
                for one in value:
                    service = named("Service", one["name"], EVERYWHERE)
                    assert one["port"] in {p["port"] for p in service["spec"]["ports"]}
    for monitor in of_kind("PodMonitor", EVERYWHERE):
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            assert endpoint["port"] in ports(PODS[monitor["metadata"]["name"]])


def test_mounts_name_volumes_and_volumes_are_mounted() -> None:
    for name, pod in PODS.items():
        volumes = {v["name"] for v in pod["spec"]["volumes"]}
        if name == "redis":
            claims = named("StatefulSet", name)["spec"]["volumeClaimTemplates"]
            volumes |= {claim["metadata"]["name"] for claim in claims}
        mounted = {m["name"] for c in containers(pod) for m in c["volumeMounts"]}
        assert mounted == volumes


def test_autoscalers_aim_at_what_leaves_the_number_to_them() -> None:
    for scaler in of_kind("HorizontalPodAutoscaler", EVERYWHERE):
        target = scaler["spec"]["scaleTargetRef"]
        deployment = named(target["kind"], target["name"])
        assert deployment["apiVersion"] == target["apiVersion"]
        assert "replicas" not in deployment["spec"]
        for container in containers(pods()[target["name"]]):  # or it computes nothing
            assert "cpu" in container["resources"]["requests"]
    for scaler in of_kind("HorizontalPodAutoscaler"):  # what a plain cluster can compute
        for metric in scaler["spec"]["metrics"]:
            assert (metric["type"], metric["resource"]["name"]) == ("Resource", "cpu")
    for scaled in of_kind("ScaledObject", EVERYWHERE):  # KEDA refuses what an HPA scales
        name = scaled["spec"]["scaleTargetRef"]["name"]
        assert not exists("HorizontalPodAutoscaler", name, EVERYWHERE)
        assert "replicas" not in named("Deployment", name, EVERYWHERE)["spec"]


# Who may talk to whom.


def test_everything_is_denied_that_no_policy_allows() -> None:
    deny = named("NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def allowed(policy: Manifest, direction: str, peer: str) -> set[tuple[str, Any]]:
    """(what starts the other pod, port) pairs that `policy` lets through."""
    return {
        (name, port["port"])
        for rule in policy["spec"][direction]
        for one in rule.get(peer, [])
        if "podSelector" in one
        for name in selected(one["podSelector"]["matchLabels"])
        for port in rule["ports"]
    }


BENTOS, TRITONS, TRAININGS = ({"bento", "bento-trial"}, {"triton", "triton-trial"},
                              {"retraining", "batch-scoring"})  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "pods", "calls", "called_by"),
    [
        ("bento", BENTOS, {*((t, "grpc") for t in TRITONS), ("redis", "redis")}, set()),
        ("triton", TRITONS, set(), {(b, "grpc") for b in BENTOS}),
        ("redis", {"redis"}, set(), {(name, "redis") for name in BENTOS | TRAININGS}),
        ("training", TRAININGS, {("redis", "redis")}, set()),
    ],
)
def test_a_policy_lets_its_pods_call_and_be_called_by_those_alone(
    policy: str, pods: set[str], calls: set[tuple[str, str]], called_by: set[tuple[str, str]]
) -> None:
    found = named("NetworkPolicy", policy)
    assert set(found["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    assert set(selected(found["spec"]["podSelector"]["matchLabels"])) == pods
    assert allowed(found, "egress", "to") == calls
    assert allowed(found, "ingress", "from") == called_by


def test_whoever_may_call_out_may_ask_for_names_wherever_a_cluster_keeps_them() -> None:
    def dns(name: str) -> list[Any]:
        rules = named("NetworkPolicy", name)["spec"]["egress"]
        return [rule for rule in rules if not any("podSelector" in peer for peer in rule["to"])]

    assert dns("bento") == dns("training")
    usual, openshift = dns("bento")
    assert [peer["ipBlock"]["cidr"] for peer in usual["to"] if "ipBlock" in peer] == [
        "169.254.20.10/32", "169.254.169.254/32",
    ]  # fmt: skip
    # Of the metadata server names alone: its port 80 hands out a node's credentials.
    assert {port["port"] for port in usual["ports"]} == {53}
    assert {port["port"] for port in openshift["ports"]} == {5353}


def test_both_ends_of_a_call_are_open() -> None:
    policies = ("bento", "triton", "redis", "training")
    out, into = set(), set()
    for policy in [named("NetworkPolicy", name) for name in policies]:
        own = selected(policy["spec"]["podSelector"]["matchLabels"])
        out |= {(one, *to) for one in own for to in allowed(policy, "egress", "to")}
        into |= {(by, one, port) for one in own for by, port in allowed(policy, "ingress", "from")}
    assert out == into


def test_policies_open_only_ports_that_the_pods_have() -> None:
    for policy in of_kind("NetworkPolicy", EVERYWHERE):
        for rule in policy["spec"].get("ingress", ()):
            for name in selected(policy["spec"]["podSelector"]["matchLabels"]):
                assert {port["port"] for port in rule["ports"]} <= set(ports(PODS[name]))


def test_the_http_port_of_triton_is_open_to_probes_alone() -> None:
    rules = named("NetworkPolicy", "triton")["spec"]["ingress"]
    assert "http" not in {port["port"] for rule in rules for port in rule["ports"]}
    assert "http" not in {p["name"] for p in named("Service", "triton")["spec"]["ports"]}
    assert {probe["port"] for probe in probes(main_container("triton"))} == {"http"}


def test_redis_without_a_password_is_out_of_reach_from_other_namespaces() -> None:
    for rule in named("NetworkPolicy", "redis")["spec"]["ingress"]:
        assert all(set(peer) == {"podSelector"} for peer in rule["from"])


OUTSIDE = {"/v1/recommend", "/v1/similar", "/v1/rank", "/v1/popular", "/v1/events"}


def test_from_outside_nothing_is_reached_but_what_a_shop_calls() -> None:
    (rule,) = named("Ingress", "bento")["spec"]["rules"]
    assert {path["pathType"] for path in rule["http"]["paths"]} == {"Exact"}
    assert {path["path"] for path in rule["http"]["paths"]} == OUTSIDE
    (rule,) = named("HTTPRoute", "bento", EVERYWHERE)["spec"]["rules"]
    assert {match["path"]["type"] for match in rule["matches"]} == {"Exact"}
    assert {match["path"]["value"] for match in rule["matches"]} == OUTSIDE


def test_of_triton_s_methods_those_alone_are_reached_from_outside_that_infer_and_ask() -> None:
    (rule,) = named("GRPCRoute", "triton", EVERYWHERE)["spec"]["rules"]
    by_route = {"/{service}/{method}".format(**match["method"]) for match in rule["matches"]}
    (rule,) = named("Ingress", "triton", EVERYWHERE)["spec"]["rules"]
    assert {path["path"] for path in rule["http"]["paths"]} == by_route
    allowed = {"ModelInfer", "ModelMetadata", "ModelReady", "ServerLive"}
    assert {path.rpartition("/")[2] for path in by_route} == allowed
    # ingress-nginx refuses a "." in other types of paths, and takes these as prefixes.
    assert {path["pathType"] for path in rule["http"]["paths"]} == {"ImplementationSpecific"}
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    methods = {f"/{service.full_name}/{method.name}" for method in service.methods}
    assert {m for m in methods if any(m.startswith(path) for path in by_route)} == by_route


def test_the_ingress_of_the_api_has_paths_that_ingress_nginx_takes_as_exact() -> None:
    assert all(re.fullmatch(r"/[A-Za-z0-9/_-]*", path) for path in OUTSIDE)


def test_an_ingress_has_tls_for_its_host_and_a_limit_of_bodies() -> None:
    for ingress in of_kind("Ingress", EVERYWHERE):
        hosts = {rule["host"] for rule in ingress["spec"]["rules"]}
        assert {host for tls in ingress["spec"]["tls"] for host in tls["hosts"]} == hosts
        assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"]


def test_the_service_variables_of_the_namespace_stay_out_of_the_pods() -> None:
    assert all(pod["spec"]["enableServiceLinks"] is False for pod in PODS.values())
