"""An upgrade and a rollback in the order of docs/kubernetes.md, by two Tritons and two Bentos.

Every pod has an address of its own (127.0.0.x), a DNS server plays the headless Service, the
command lines are those of k8s/. Somebody asks all the time and is never failed; and at every
moment every Triton that the Service names answers every version that a Bento may ask for.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import bento_process
import httpx
import pytest
import toy
from manifests import main_container, named, probes, workloads
from pod import running
from ports import free_ports

from client.over_grpc import CHANNEL_OPTIONS
from recommender.contract import RECOMMENDER_ONNX
from serving import wheel

AGE = "--grpc-max-connection-age"
HURRY_MS = 1000  # instead of its 20 s: the test's own time is short
# In k8s/: 35 s for connections of 20 s. Both have to last: a connection's age (+10%), the 2 s in
# which a client does not ask the name twice, and what the name's own caches take.
PRE_STOP_S = HURRY_MS * 1.1 / 1000 + 2 + 0.5
READY = next(probes(main_container("triton")))["path"].replace("/1/", "/{release}/")


class Dns:
    """One name, and the addresses of the pods that are ready: what a headless Service is."""

    def __init__(self) -> None:
        self.addresses: tuple[str, ...] = ()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                query, caller = self.socket.recvfrom(512)
            except OSError:  # closed
                return
            question = query[12 : query.index(b"\0", 12) + 5]
            (kind,) = struct.unpack("!H", question[-4:-2])
            found = self.addresses if kind == 1 else ()  # A; there are no AAAA
            head = query[:2] + struct.pack("!HHHHH", 0x8580, 1, len(found), 0, 0)
            records = (
                b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 0, 4) + socket.inet_aton(address)
                for address in found
            )
            self.socket.sendto(head + question + b"".join(records), caller)


@dataclass(frozen=True)
class Pod:
    address: str  # of a Triton its IP, of a Bento its URL
    release: int
    process: subprocess.Popen[bytes]
    ends: ExitStack

    def retire(self) -> None:
        """SIGTERM, once; what it had accepted is answered, and it ends with 0."""
        self.ends.close()


@dataclass(kw_only=True)
class Cluster:
    folder: Path
    images: dict[int, Path]
    dns: Dns = field(default_factory=Dns)
    tritons: list[Pod] = field(default_factory=list)  # ready, as the Services list them
    bentos: list[Pod] = field(default_factory=list)
    kubelet: ThreadPoolExecutor = field(default_factory=ThreadPoolExecutor)
    leaving: list[Future[object]] = field(default_factory=list)
    pods: list[Pod] = field(default_factory=list)  # all that were ever started
    count: int = 1

    def __post_init__(self) -> None:
        self.http, self.grpc, self.metrics = free_ports(3)

    # --- pods

    def triton(self, release: int) -> Pod:
        self.count += 1
        ip = f"127.0.0.{self.count}"
        arguments = [a for a in main_container("triton")["args"][1:]
                     if not a.startswith(("--load-model", "--model-repository", AGE))]  # fmt: skip
        command = [
            str(wheel.wheel() / "bin" / "tritonserver"),
            f"--model-repository={self.images[release]}", f"--load-model={RECOMMENDER_ONNX}",
            *(argument.replace("$(POD_UID)", "1234") for argument in arguments),
            f"{AGE}={HURRY_MS}",
            f"--backend-directory={wheel.backend_directory()}",
            f"--backend-config=python,shm-region-prefix-name=recserve-test-rollout{self.count}",
            f"--http-address={ip}", f"--http-port={self.http}",
            f"--grpc-address={ip}", f"--grpc-port={self.grpc}",
            f"--metrics-address={ip}", f"--metrics-port={self.metrics}",
        ]  # fmt: skip
        return self._started(command, wheel.environment(), ip, release)

    def bento(self, release: int) -> Pod:
        (port,) = free_ports(1)
        container = main_container("bento")
        here = {
            "/models": str(self.images[release]),
            "/var/lib/bentoml": str(self.folder / f"bentoml-{port}"),
            "grpc://triton:8001": f"grpc://dns://127.0.0.1:{self.dns.port}/triton:{self.grpc}",
        }
        variables = {e["name"]: here.get(e["value"], e["value"]) for e in container["env"]}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RECSERVE_", "BENTOML_"))}
        arguments = ["serve", "--host=127.0.0.1", *container["args"][2:], f"--port={port}"]
        command = [sys.executable, "-m", "bentoml", *arguments]
        return self._started(command, kept | variables, f"http://127.0.0.1:{port}", release)

    def _started(
        self, command: list[str], environment: dict[str, str], address: str, release: int
    ) -> Pod:
        ends = ExitStack()
        log = self.folder / f"{address.rpartition('/')[2]}.log"
        process = ends.enter_context(running(command, environment, log))
        self.pods.append(Pod(address, release, process, ends))
        return self.pods[-1]

    def answers(self, pod: Pod, path: str) -> bool:
        base = (
            pod.address if pod.address.startswith("http") else f"http://{pod.address}:{self.http}"
        )
        try:
            return httpx.get(f"{base}{path}", timeout=20).status_code == 200
        except httpx.TransportError:
            return False

    def asked(self, pod: Pod) -> int:
        """How many requests this Triton has answered."""
        text = httpx.get(f"http://{pod.address}:{self.metrics}/metrics", timeout=20).text
        lines = [ln for ln in text.splitlines() if ln.startswith("nv_inference_request_success{")]
        return sum(int(float(line.rpartition(" ")[2])) for line in lines)

    def leave(self, pod: Pod, *, after: float) -> None:
        """As a pod does that is told to: preStop, then SIGTERM, and nobody waits for it."""
        self.leaving.append(self.kubelet.submit(lambda: (time.sleep(after), pod.retire())))

    # --- the Services

    def name(self) -> None:
        self.dns.addresses = tuple(pod.address for pod in self.tritons)

    def roll_tritons(self, release: int) -> None:
        """New pods one by one, each in the place of an old one once it gets traffic."""
        coming = [self.triton(release) for _ in range(2)]  # started together: time is short
        for new in coming:
            ready = READY.format(release=release)
            bento_process.wait_until(lambda new=new, ready=ready: self.answers(new, ready),
                                     new.process)  # fmt: skip
            self.tritons.append(new)
            self.name()
            if self.bentos:
                bento_process.wait_until(lambda new=new: self.asked(new) > 0)
            if len(self.tritons) > 2:
                old = self.tritons.pop(0)
                self.name()
                self.leave(old, after=PRE_STOP_S)

    def roll_bentos(self, release: int, *started: Pod) -> None:
        coming = [*started, *(self.bento(release) for _ in range(2 - len(started)))]
        for new in coming:
            bento_process.wait_until(lambda new=new: self.answers(new, "/readyz"), new.process)
            self.bentos = [*self.bentos, new]
            if len(self.bentos) > 2:
                old, *left = self.bentos
                self.bentos = left
                self.leave(old, after=0.5)  # nobody is sent there any more


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    toy.write_onnx(tmp_path / "model.onnx")
    images = {}
    for release in (1, 2):  # the image of release 2 holds release 1, too
        images[release] = tmp_path / f"image-{release}"
        toy.add_model(images[release], RECOMMENDER_ONNX, "onnxruntime", tmp_path / "model.onnx")
        for version in range(1, release + 1):
            home = images[release] / RECOMMENDER_ONNX / str(version)
            if version > 1:
                home.mkdir()
                shutil.copy(tmp_path / "model.onnx", home)
            bento_process.write_release(images[release], toy.LIMITS, items=toy.ITEMS - 1,
                                        models=(RECOMMENDER_ONNX,), version=version)  # fmt: skip
    cluster = Cluster(folder=tmp_path, images=images)
    try:
        yield cluster
    finally:
        for pod in cluster.pods:
            cluster.leave(pod, after=0)
        cluster.kubelet.shutdown()
        cluster.dns.socket.close()
    for left in cluster.leaving:
        left.result()  # each ended with exit code 0


@contextmanager
def somebody_asks_and_somebody_looks(cluster: Cluster) -> Iterator[list[int]]:
    """Without a pause: the releases that answered, in their order. Nothing may go wrong."""
    stop, wrong, seen = threading.Event(), list[str](), list[int]()

    def ask() -> None:
        turn = 0
        with httpx.Client(timeout=20) as http:
            while not stop.is_set():
                turn += 1
                url = cluster.bentos[turn % len(cluster.bentos)].address
                body = {"history": ["i3"], "n": 3, "deadline_ms": 2000}
                try:
                    reply = http.post(f"{url}/v1/recommend", json=body)
                except httpx.TransportError as error:
                    wrong.append(repr(error))
                    continue
                if reply.status_code != 200 or reply.json()["fallback"]:
                    wrong.append(reply.text)
                else:
                    seen.append(reply.json()["release"])
                time.sleep(0.02)

    def look() -> None:
        while not stop.is_set():
            for release in {pod.release for pod in cluster.bentos}:
                for triton in tuple(cluster.tritons):
                    there = cluster.answers(triton, READY.format(release=release))
                    if not there and triton in cluster.tritons:
                        wrong.append(f"{triton} does not answer release {release}")
            time.sleep(0.1)

    threads = [threading.Thread(target=target) for target in (ask, ask, look)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_triton_rolls_first_bento_second_and_back_in_reverse_without_a_failed_request(
    cluster: Cluster,
) -> None:
    cluster.roll_tritons(1)
    early = cluster.bento(2)  # in the wrong order
    cluster.roll_bentos(1)
    with somebody_asks_and_somebody_looks(cluster) as seen:
        bento_process.wait_until(lambda: cluster.answers(early, "/livez"), early.process)
        assert not cluster.answers(early, "/readyz")  # no Triton holds what it would name
        cluster.roll_tritons(2)
        assert set(seen) == {1}  # the new Tritons answer what the old Bentos name
        cluster.roll_bentos(2, early)
        asked = len(seen)
        bento_process.wait_until(lambda: len(seen) > asked + 20)
        assert set(seen[asked + 4 :]) == {2}
        cluster.roll_bentos(1)
        cluster.roll_tritons(1)
        asked = len(seen)
        bento_process.wait_until(lambda: len(seen) > asked + 20)
        assert set(seen[asked:]) == {1}


def test_a_pod_serves_on_until_no_client_comes_any_more() -> None:
    """Told to end, Triton refuses what still comes over open connections: wait before that."""
    container, pod = main_container("triton"), workloads()["triton"]["spec"]
    flags = dict(a.split("=", 1) for a in container["args"] if a.startswith("--grpc-max"))
    age = int(flags[AGE]) / 1000 * 1.1
    asks_again, dns_cached = 2, 5  # CHANNEL_OPTIONS of client/tensors.py; what CoreDNS says
    assert dict(CHANNEL_OPTIONS)["grpc.dns_min_time_between_resolutions_ms"] == asks_again * 1000
    sleeps = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert sleeps > age + asks_again + dns_cached
    # New pods are known before old ones go, and within 30 s.
    ready = named("Deployment", "triton")["spec"]["minReadySeconds"]
    assert age + asks_again + dns_cached < ready <= 30
    assert pod["terminationGracePeriodSeconds"] > sleeps + 30
