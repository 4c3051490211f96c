"""A real tritonserver with both formats of the toy model, for the tests that need one."""

from __future__ import annotations

import asyncio
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import toy
from ports import free_ports

from client.control import Control
from client.over_grpc import TritonGrpc
from client.tensors import connect
from recommender.release import read_release
from serving import tritonserver
from serving.tritonserver import Ports

MODELS = ("toy_onnx", "toy_torchscript")
BACKENDS = {"toy_onnx": "onnxruntime", "toy_torchscript": "pytorch"}
SCHEMES = ("grpc", "triton+http")


@dataclass(frozen=True)
class Server:
    repository: Path
    ports: Ports
    process: subprocess.Popen[bytes]
    log: Path

    def address(self, scheme):
        port = self.ports.grpc if scheme == "grpc" else self.ports.http
        return f"{scheme}://127.0.0.1:{port}"

    @property
    def grpc(self):
        return f"127.0.0.1:{self.ports.grpc}"


def three_ports() -> Ports:
    return Ports(*free_ports(3))


def start(repository: Path, log: Path) -> Server:
    ports = three_ports()
    return Server(repository, ports, tritonserver.launch(repository, ports, log=log), log)


def load(server: Server, models=MODELS, version=1):
    tritonserver.load_release(
        toy.release(server.repository, models, version),
        server.ports,
        process=server.process,
        log=server.log,
    )


def assert_ended(process: subprocess.Popen[bytes], log: Path) -> None:
    """By itself, once its exit timeout is over at the latest: a busy machine may need longer to
    unload, and Triton says so."""
    code = process.wait(tritonserver.EXIT_TIMEOUT_S + 20)
    assert code == 0 or (code == 1 and "Exit timeout expired" in log.read_text())


def leftovers(server: Server) -> list[str]:
    """Processes and shared memory of a server."""
    prefix = tritonserver._shm_prefix(server.process)
    found = [str(path) for path in Path("/dev/shm").glob(f"{prefix}*")]
    for process in psutil.process_iter(["cmdline", "status"]):
        if process.info["status"] != psutil.STATUS_ZOMBIE:
            found += [a for a in process.info["cmdline"] or () if prefix in a]
    return found


def wait_until(condition, what, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"{what} after {seconds} s"
        time.sleep(0.05)


def infer(address, model, arrays, version=1, timeout_s=20):
    async def ask():
        client = connect(address)
        try:
            return await client.infer(model, version, arrays, timeout_s=timeout_s)
        finally:
            await client.close()

    return asyncio.run(ask())


def at_once(address, model, batches):
    """The answer or error to each of `batches`, sent together, and in how many executions."""

    async def run():
        client = TritonGrpc(address)
        async with Control(address) as control:
            before = await control.statistics(model, 1)
            asked = (client.infer(model, 1, batch, timeout_s=20) for batch in batches)
            answers = await asyncio.gather(*asked, return_exceptions=True)
            rows = sum(
                len(next(iter(batch.values())))
                for batch, answer in zip(batches, answers, strict=True)
                if not isinstance(answer, BaseException)
            )
            after = await counted(control, model, before.inferences + rows)
        await client.close()
        return answers, after.executions - before.executions

    return asyncio.run(run())


def joined(address, model, batches):
    """As `at_once`, again until rows of several calls were executed together.

    A model that is quick and idle joins only what arrives while it executes: on cores that are
    busy elsewhere the calls may trickle in one by one."""
    for _ in range(20):
        answers, executions = at_once(address, model, batches)
        if executions < sum(not isinstance(answer, BaseException) for answer in answers):
            return answers
    raise AssertionError(f"{model} executed each of {len(batches)} calls alone, 20 times over")


async def counted(control, model, inferences):
    """The statistics once that many are counted: an answer comes a moment before, part by part."""
    after = await control.statistics(model, 1)
    for _ in range(100):
        last = after
        await asyncio.sleep(0.02)
        after = await control.statistics(model, 1)
        if after == last and after.inferences == inferences:
            break
    return after


def controlled(server, action):
    """The result of `await action(control)`."""

    async def run():
        async with Control(server.grpc, tritonserver.control_key(server.process)) as control:
            return await action(control)

    return asyncio.run(run())


def assert_equal(answer, wanted):
    np.testing.assert_array_equal(answer["item"], wanted["item"])
    np.testing.assert_allclose(answer["score"], wanted["score"], atol=1e-4)
    assert answer["score"].dtype == np.float32


@pytest.fixture(scope="session")
def toy_weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    toy.write_onnx(folder / "model.onnx")
    toy.write_torchscript(folder / "model.pt")
    return {"onnxruntime": folder / "model.onnx", "pytorch": folder / "model.pt"}


@pytest.fixture(scope="session")
def toy_repository(toy_weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    for model, backend in BACKENDS.items():
        toy.add_model(folder, model, backend, toy_weights[backend], versions=(1, 2, 3))
    # What else lies in a repository, and must not disturb: the index, an export under way.
    (folder / "releases.json").write_text("{}")
    (folder / "toy_onnx" / ".tmp-4").mkdir()
    return folder


@pytest.fixture(scope="session")
def toy_server(toy_repository, tmp_path_factory):
    server = start(toy_repository, tmp_path_factory.mktemp("log") / "triton.log")
    load(server)
    yield server
    tritonserver.stop(server.process)


def stubs_of(server, model):
    """Process ids of the python-based backend's stubs that serve `model`."""
    prefix = tritonserver._shm_prefix(server.process)
    return [p for p, command in tritonserver._stubs(prefix).items() if f"/{model}/" in command]


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


class Returning:
    """A tritonserver on fixed ports that can go and come back, with the release that serves."""

    def __init__(self, repository: Path, log: Path) -> None:
        self.repository, self.log = repository, log
        self.ports = three_ports()
        self.start()

    def start(self) -> None:
        """Back, and loaded."""
        self.process = tritonserver.launch(self.repository, self.ports, log=self.log)
        tritonserver.load_release(
            read_release(self.repository), self.ports, process=self.process, log=self.log
        )

    def kill(self) -> None:
        """kill -9, of the server alone; its stubs notice."""
        self.process.kill()
        self.process.wait()
