"""The serving paths that are compared, as processes: started, paused, measured, stopped.

All answer POST /v1/recommend on a port of their own, from the same repository. Only one is awake
while it is measured: the others are stopped (SIGSTOP), since some poll even when nobody asks.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp

import httpx
import psutil
import serving_ours

from serving.cli import SHORT_SPINS
from serving.processes import free_ports
from serving.wheel import LARGE_PAGES

PEERS = Path(__file__).resolve().parent / "peers"
ROOT = PEERS.parent.parent
AS_OURS = dict([SHORT_SPINS]) | LARGE_PAGES  # what `recserve` tells its own processes
START_S = 300.0  # all settings of a path start at once
OURS = "recserve"
TORCH, ONNX, BENTOML, LITSERVE = "FastAPI + torch", "FastAPI + ORT", "BentoML", "LitServe"

Settings = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to serve a release; `settings` are those that served best (serving_settings.py)."""

    name: str
    about: str
    command: Callable[[int, Settings], list[str]]  # port, settings -> arguments
    settings: Settings = field(default_factory=dict)
    cwd: Path = ROOT
    ready: str = ""  # what its log says once all is loaded

    def under(self, settings: Settings) -> Way:
        return replace(self, settings={**self.settings, **settings})


def _uvicorn(app: str) -> Callable[[int, Settings], list[str]]:
    def command(port: int, settings: Settings) -> list[str]:
        return [sys.executable, "-m", "uvicorn", "--app-dir", str(PEERS), f"{app}:app",
                "--host", "127.0.0.1", "--port", str(port), "--workers", settings["WORKERS"],
                "--loop", "uvloop", "--http", "httptools", "--no-access-log",
                "--log-level", "warning"]  # fmt: skip

    return command


def _bentoml(port: int, _: Settings) -> list[str]:
    return [sys.executable, "-m", "bentoml", "serve", "bentoml_batching:Peer",
            "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip


def _litserve(port: int, _: Settings) -> list[str]:
    return [sys.executable, str(PEERS / "litserve_batching.py"), "--port", str(port)]


def _recserve(port: int, settings: Settings) -> list[str]:
    http, grpc, metrics = free_ports(3)
    store = settings.get("STORE", "sqlite:///events.db")  # in the folder that it runs in
    return [sys.executable, "-m", "serving.cli", "serve", "--repository", settings["REPOSITORY"],
            "--port", str(port), "--http-port", str(http), "--grpc-port", str(grpc),
            "--metrics-port", str(metrics), "--store", store]  # fmt: skip


PATHS = {
    path.name: path
    for path in (
        Way(
            name=OURS,
            about="Triton behind BentoML, requests joined; SQLite store, history read per request",
            command=_recserve,
            settings=serving_ours.DEFAULTS,
            # It answers before its last models are there, and a Triton stopped then can crash.
            ready="is served at",
        ),
        Way(
            name=TORCH,
            about="TorchScript in process, a call a request",
            command=_uvicorn("fastapi_torchscript"),
            settings={"WORKERS": "2", "POOL": "0", "OPTIMIZED": "0"},
        ),
        Way(
            name=ONNX,
            about="ONNX Runtime in process, a call a request",
            command=_uvicorn("fastapi_onnx"),
            settings={"WORKERS": "2", "POOL": "0", "THREADS": "1"},
        ),
        Way(
            name=BENTOML,
            about="ONNX Runtime in process, adaptive batching",
            command=_bentoml,
            settings={"WORKERS": "2", "BATCH": "64", "LONGEST_MS": "1000"},
            cwd=PEERS,
        ),
        Way(
            name=LITSERVE,
            about="ONNX Runtime in its worker process, batching",
            command=_litserve,
            settings={"WORKERS": "1", "API_SERVERS": "1", "BATCH": "64", "WAIT_S": "0.001"},
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Server:
    """A path that runs, with all processes it has started."""

    path: Way
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def tree(self) -> list[psutil.Process]:
        try:
            top = psutil.Process(self.process.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess as error:
            raise SystemExit(f"{self.path.name} has ended; its log:\n{self.tail()}") from error

    def cpu_s(self) -> float:
        """User and system time of all that live."""
        return sum(t.user + t.system for t in (one.cpu_times() for one in self.tree()))

    def memory_mb(self) -> float:
        """What would be free if it were gone; pages that processes share count once."""
        return sum(one.memory_full_info().pss for one in self.tree()) / 2**20

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, signum: int) -> None:
        for one in self.tree():
            one.send_signal(signum)

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])


@contextmanager
def awake(server: Server) -> Iterator[Server]:
    """Of servers that are paused, this one."""
    server.go_on()
    try:
        yield server
    finally:
        server.pause()


@contextmanager
def serving(path: Way, repository: Path, folder: Path) -> Iterator[Server]:
    """Ready to answer; `folder`, on the repository's disk, is for its log and its store."""
    with _launched(path, repository, folder) as server:
        _wait(server)
        yield server


@contextmanager
def all_paused(paths: Sequence[Way], repository: Path, folder: Path) -> Iterator[list[Server]]:
    """All of them at once, in this order, ready and paused."""
    with ExitStack() as stack:
        servers = [stack.enter_context(_launched(one, repository, folder)) for one in paths]
        for server in servers:
            _wait(server)
        for server in servers:
            server.pause()
        yield servers


@contextmanager
def _launched(path: Way, repository: Path, folder: Path) -> Iterator[Server]:
    (port,) = free_ports(1)
    # Not named by the port: of hundreds of servers one after the other some have the same.
    home = Path(mkdtemp(prefix=f"{path.name.replace(' ', '')}-", dir=folder))
    ours = path.name == OURS
    served = serving_ours.copy_of(repository, path.settings, home) if ours else repository.resolve()
    settings = {**path.settings, "REPOSITORY": str(served)}
    own = serving_ours.variables(path.settings) if ours else AS_OURS
    log = home / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            path.command(port, settings),
            cwd=home if ours else path.cwd,
            env={**_environment(home, settings), **own},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(path=path, url=f"http://127.0.0.1:{port}", process=process, log=log)
    try:
        yield server
    finally:
        _stop(server)


def _environment(home: Path, settings: Settings) -> dict[str, str]:
    """Ours hides nothing from a peer: the same variables, nobody's own settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RECSERVE_", "BENTOML_"))}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(PEERS))),
        "BENTOML_HOME": str(home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        **{f"PEER_{name}": value for name, value in settings.items()},
    }


def _wait(server: Server) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if server.process.poll() is not None:
            break
        try:
            asked = httpx.post(f"{server.url}/v1/recommend", json={"n": 1}, timeout=5)
            answered = asked.status_code == 200 and not asked.json()["fallback"]
            if answered and server.path.ready in server.log.read_text(errors="replace"):
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"{server.path.name} does not answer; its log:\n{server.tail()}")


def _stop(server: Server) -> None:
    if server.process.poll() is not None:
        return
    tree = server.tree()
    server.go_on()
    server.process.send_signal(signal.SIGINT)
    _, left = psutil.wait_procs(tree, timeout=15)
    for one in left:
        with suppress(psutil.NoSuchProcess):  # it ended by itself
            one.kill()
    server.process.wait()
