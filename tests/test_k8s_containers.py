"""The containers' command lines of k8s/, run here as they stand and held to the contract."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bento_process
import httpx
import pytest
import toy
from manifests import main_container, named, pods, ports, probes
from pod import confined, contained, running
from ports import free_ports
from redis_pod import RedisPod
from tritonclient.grpc import service_pb2

from client.over_grpc import TritonGrpc
from client.tensors import connect
from recommender.contract import RECOMMENDER_ONNX, Array, model_names
from recommender.errors import Unavailable
from serving import wheel
from serving.tritonserver import Ports

# Flags that NVIDIA's 26.07 knows and the local 2.51 does not: flag -> release that brought it.
# None so far: every flag of the YAML was there in 24.10 (2.51).
NEWER_FLAGS: dict[str, str] = {}


def flags(name: str) -> dict[str, list[str]]:
    """--flag -> its values, of a container's arguments."""
    found: dict[str, list[str]] = {}
    for argument in main_container(name)["args"]:
        if argument.startswith("--"):
            flag, _, value = argument.partition("=")
            found.setdefault(flag, []).append(value)
    return found


def test_triton_loads_exactly_the_models_of_a_release_and_is_probed_for_the_one_that_serves() -> (
    None
):
    triton = flags("triton")
    assert triton["--model-control-mode"] == ["explicit"]
    assert tuple(triton["--load-model"]) == model_names("deep")
    container = main_container("triton")
    (release,) = pods()["triton"]["spec"]["initContainers"]
    number = release["image"].rpartition(":")[2]
    ready = f"/v2/models/{RECOMMENDER_ONNX}/versions/{number}/ready"
    assert [probe["path"] for probe in probes(container)] == [ready, ready, "/v2/health/live"]


def test_triton_is_given_no_flag_it_does_not_know() -> None:
    server = wheel.wheel() / "bin" / "tritonserver"
    told = subprocess.run(
        [str(server), "--help"], env=wheel.environment(), capture_output=True, text=True, timeout=60
    )
    known = set(re.findall(r"^\s+(--[a-z0-9-]+)", told.stdout + told.stderr, re.MULTILINE))
    assert "--model-repository" in known  # the help was read
    assert set(flags("triton")) - known == set(NEWER_FLAGS)


@dataclass(frozen=True)
class Container:
    http: str
    grpc: str
    models: Path  # what is mounted at /models


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """Triton under the container's own command line, on a release of toy models.

    Only what differs on this machine is added: backends, addresses, ports. Where the kernel lets
    us, its user, mounts and read-only root are the pod's too; elsewhere its paths are ours.
    """
    folder = tmp_path_factory.mktemp("container")
    repository, ports = toy_models(folder), Ports(*free_ports(3))
    program, *arguments = main_container("triton")["args"]
    assert program == "tritonserver"
    kept = [a for a in arguments if a.partition("=")[0] not in NEWER_FLAGS]
    backends = Path(shutil.copytree(wheel.backend_directory(), folder / "backends"))
    readable(backends)
    command = [
        str(wheel.wheel() / "bin" / "tritonserver"),
        *(argument.replace("$(POD_UID)", "1234") for argument in kept),
        f"--backend-directory={backends}",
        "--backend-config=python,shm-region-prefix-name=recserve-test-k8s",
        *("--http-address=127.0.0.1", f"--http-port={ports.http}"),
        *("--grpc-address=127.0.0.1", f"--grpc-port={ports.grpc}"),
        *("--metrics-address=127.0.0.1", f"--metrics-port={ports.metrics}"),
    ]
    log, address = folder / "log", f"http://127.0.0.1:{ports.http}"
    command = in_pod("triton", command, repository, folder, backends)
    # The stubs take the standard library of the first python3 of the PATH.
    path = f"{sys.base_prefix}/bin:{os.environ['PATH']}"
    with running(command, wheel.environment() | {"PATH": path}, log) as triton:
        bento_process.wait_until(lambda: live(address), triton, log)
        yield Container(address, f"127.0.0.1:{ports.grpc}", repository)


def live(address: str) -> bool:
    try:
        return httpx.get(f"{address}/v2/health/live").status_code == 200
    except httpx.TransportError:
        return False


def toy_models(folder: Path) -> Path:
    """A release of toys, under the names of all models."""
    toy.write_onnx(folder / "model.onnx")
    toy.write_torchscript(folder / "model.pt")
    repository = folder / "models"
    toy.add_model(repository, "recommender_onnx", "onnxruntime", folder / "model.onnx")
    toy.add_model(repository, "recommender_torchscript", "pytorch", folder / "model.pt")
    models = model_names("deep")
    recommender = (repository / "recommender_onnx" / "config.pbtxt").read_text()
    for model in models[2:]:  # only that they load counts here
        config = recommender.replace('"recommender_onnx"', f'"{model}"')
        toy.add_model(repository, model, "onnxruntime", folder / "model.onnx", config=config)
    bento_process.write_release(repository, toy.LIMITS, items=toy.ITEMS - 1, models=models)
    readable(repository)  # as the release image is made (docs/kubernetes.md)
    return repository


def readable(folder: Path) -> None:
    """For anybody: chmod -R a+rX."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))


def in_pod(name: str, command: list[str], models: Path, folder: Path, *tools: Path) -> list[str]:
    if not confined():  # paths of our own, and our user
        return [argument.replace("/models", str(models)) for argument in command]
    root = folder / f"root-{name}"
    root.mkdir()
    return contained(command, pods()[name], models, root, tools)


def test_the_probes_pass_under_the_container_s_command_line(container: Container) -> None:
    for probe in probes(main_container("triton")):
        assert httpx.get(f"{container.http}{probe['path']}").status_code == 200
    # A release that the image does not hold is not ready, whatever the server says of itself.
    other = f"{container.http}/v2/models/{RECOMMENDER_ONNX}/versions/2/ready"
    assert httpx.get(other).status_code == 400
    assert httpx.get(f"{container.http}/v2/health/ready").status_code == 200


def test_model_control_is_closed_to_callers_without_the_pod_s_uid(container: Container) -> None:
    index = f"{container.http}/v2/repository/index"
    assert httpx.post(index).status_code == 403
    assert httpx.post(f"{container.http}/v2/repository/models/x/load").status_code == 403
    assert httpx.post(index, headers={"key": "1234"}).status_code == 200
    grpc = TritonGrpc(container.grpc)

    async def ask_for_the_index() -> None:
        try:
            await grpc.call("RepositoryIndex", service_pb2.RepositoryIndexRequest(), timeout_s=5)
        finally:
            await grpc.close()

    with pytest.raises(Unavailable, match="restricted"):
        asyncio.run(ask_for_the_index())


def test_a_caller_may_infer_under_the_container_s_command_line(container: Container) -> None:
    arrays = toy.batch(3, 4)

    async def ask() -> dict[str, Array]:
        client = connect(container.grpc)
        try:
            return await client.infer("recommender_onnx", 1, arrays, timeout_s=20)
        finally:
            await client.close()

    answer, wanted = asyncio.run(ask()), toy.eager(arrays)
    assert answer["item"].tolist() == wanted["item"].tolist()


@pytest.fixture(scope="module")
def redis_of_the_pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisPod]:
    server = RedisPod(tmp_path_factory.mktemp("redis"))
    with server.runs():
        yield server


def test_bento_serves_under_the_container_s_environment_and_arguments(
    container: Container, redis_of_the_pod: RedisPod, tmp_path: Path
) -> None:
    bento = main_container("bento")
    store = named("ConfigMap", "recserve-store")["data"]["RECSERVE_STORE"]
    (port,) = free_ports(1)
    here = {
        "grpc://triton:8001": f"grpc://{container.grpc}",
        "redis://redis:6379/0": f"redis://127.0.0.1:{redis_of_the_pod.port}/0",
    }
    if not confined():
        here |= {"/models": str(container.models), "/var/lib/bentoml": str(tmp_path / "bentoml")}
    variables = {e["name"]: here.get(e["value"], e["value"]) for e in bento["env"]}
    environment = {"PATH": os.environ["PATH"], "HOME": "/", **variables,
                   "RECSERVE_STORE": here[store]}  # fmt: skip
    assert bento["args"][:2] == ["serve", "--host=0.0.0.0"]
    arguments = ["serve", "--host=127.0.0.1", *bento["args"][2:]]
    command = in_pod("bento", [sys.executable, "-m", "bentoml", *arguments, f"--port={port}"],
                     container.models, tmp_path)  # fmt: skip
    log = tmp_path / "log"
    with (
        running(command, environment, log) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False) as http,
    ):
        for probe in probes(bento):
            path = str(probe["path"])
            bento_process.wait_until(
                lambda path=path: bento_process.answers(http, path), process, log
            )
        metrics = pods()["bento"]["metadata"]["annotations"]["prometheus.io/path"]
        assert http.get(metrics).is_success
        body = {"user_id": "reader", "n": 3, "deadline_ms": 2000}
        answer = http.post("/v1/recommend", json=body).json()
        assert len(answer["items"]) == 3 and answer["fallback"] is False
        event = {"event_id": "1", "user_id": "reader", "item_id": "i7", "event": "view"}
        sent = http.post("/v1/events", json={"events": [event]})
        assert (sent.status_code, sent.json()["accepted"]) == (200, 1), sent.text


def test_bento_is_told_where_triton_and_the_release_are() -> None:
    environment = {e["name"]: e.get("value") for e in main_container("bento")["env"]}
    scheme, _, address = environment["RECSERVE_TRITON"].partition("://")
    host, _, port = address.partition(":")
    service = {p["name"]: p for p in named("Service", host)["spec"]["ports"]}
    assert (scheme, int(port)) == ("grpc", service["grpc"]["port"])
    # A headless Service has no translation of ports: the pod's own number is what counts.
    assert named("Service", host)["spec"]["clusterIP"] == "None"
    assert ports(pods()["triton"])["grpc"] == int(port)
    mounts = {m["mountPath"] for m in main_container("bento")["volumeMounts"]}
    assert environment["RECSERVE_REPOSITORY"] in mounts
    assert environment["BENTOML_HOME"] in mounts
    assert flags("triton")["--model-repository"][0] == environment["RECSERVE_REPOSITORY"]


def test_both_pods_copy_the_same_release() -> None:
    inits = [pod["spec"]["initContainers"] for pod in pods().values()]
    assert inits[0] == inits[1]
    ((init,),) = inits[:1]
    assert init["command"] == ["cp", "-R", "/model_repository/.", "/models/"]
    assert [m["mountPath"] for m in init["volumeMounts"]] == ["/models"]
