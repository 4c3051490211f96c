"""The containers' command lines of k8s/, run here as they stand and held to the contract."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bento_process
import httpx
import pytest
import toy
from manifests import main_container, named, pods, ports, probes
from ports import free_ports
from tritonclient.grpc import service_pb2

from client.tensors import TritonGrpc, connect
from recommender.contract import RECOMMENDER_ONNX, Array, model_names
from recommender.errors import Unavailable
from serving import wheel
from serving.tritonserver import Ports

# Flags that NVIDIA's 26.07 knows and the local 2.51 does not: flag -> release that brought it.
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
    ready = f"/v2/models/{RECOMMENDER_ONNX}/ready"
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

    Only what differs on this machine is added: folders, addresses, ports.
    """
    folder = tmp_path_factory.mktemp("container")
    toy.write_onnx(folder / "model.onnx")
    toy.write_torchscript(folder / "model.pt")
    repository, ports = folder / "models", Ports(*free_ports(3))
    toy.add_model(repository, "recommender_onnx", "onnxruntime", folder / "model.onnx")
    toy.add_model(repository, "recommender_torchscript", "pytorch", folder / "model.pt")
    models = model_names("deep")
    recommender = (repository / "recommender_onnx" / "config.pbtxt").read_text()
    for model in models[2:]:  # only that they load counts here: the toy again, under their names
        config = recommender.replace('"recommender_onnx"', f'"{model}"')
        toy.add_model(repository, model, "onnxruntime", folder / "model.onnx", config=config)
    bento_process.write_release(repository, toy.LIMITS, items=toy.ITEMS - 1, models=models)
    program, *arguments = main_container("triton")["args"]
    assert program == "tritonserver"
    here = [
        argument.replace("/models", str(repository)).replace("$(POD_UID)", "1234")
        for argument in arguments
        if argument.partition("=")[0] not in NEWER_FLAGS
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                str(wheel.wheel() / "bin" / "tritonserver"),
                *here,
                f"--backend-directory={wheel.backend_directory()}",
                "--backend-config=python,shm-region-prefix-name=recserve-test-k8s",
                *("--http-address=127.0.0.1", f"--http-port={ports.http}"),
                *("--grpc-address=127.0.0.1", f"--grpc-port={ports.grpc}"),
                *("--metrics-address=127.0.0.1", f"--metrics-port={ports.metrics}"),
            ],
            env=wheel.environment(),
            stdout=log,
            stderr=log,
        )
    address = f"http://127.0.0.1:{ports.http}"
    try:
        for _ in range(600):
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            try:
                if httpx.get(f"{address}/v2/health/live").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        yield Container(address, f"127.0.0.1:{ports.grpc}", repository)
    finally:
        process.terminate()
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_the_probes_pass_under_the_container_s_command_line(container: Container) -> None:
    for probe in probes(main_container("triton")):
        assert httpx.get(f"{container.http}{probe['path']}").status_code == 200
    assert httpx.get(f"{container.http}/v2/models/another_model/ready").status_code == 400


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


def test_bento_serves_under_the_container_s_environment_and_arguments(
    container: Container, tmp_path: Path
) -> None:
    bento = main_container("bento")
    here = {"/models": str(container.models), "grpc://triton:8001": f"grpc://{container.grpc}"}
    variables = {e["name"]: here[e["value"]] for e in bento["env"] if "RECSERVE" in e["name"]}
    arguments = tuple(a for a in bento["args"][1:] if not a.startswith("--host"))
    with bento_process.bentoml_serve(tmp_path, variables, target=arguments) as service:
        for probe in probes(bento):
            path = str(probe["path"])
            bento_process.wait_until(lambda path=path: bento_process.answers(service.http, path))
        assert service.http.get(
            pods()["bento"]["metadata"]["annotations"]["prometheus.io/path"]
        ).is_success
        answer = service.recommend(user_id="reader", n=3, deadline_ms=2000)
    assert len(answer["items"]) == 3 and answer["fallback"] is False


def test_bentoml_knows_the_arguments_of_its_container() -> None:
    def accepted(*arguments: str) -> bool:
        bentoml = [sys.executable, "-m", "bentoml", *arguments, "--help"]
        return subprocess.run(bentoml, capture_output=True, timeout=60).returncode == 0

    arguments = main_container("bento")["args"]
    assert arguments[0] == "serve" and "--host=0.0.0.0" in arguments
    assert accepted(*arguments)
    assert not accepted("serve", "--no-such-flag", "20")


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


def test_the_service_variables_of_the_namespace_stay_out_of_the_pods() -> None:
    assert all(pod["spec"]["enableServiceLinks"] is False for pod in pods().values())
