"""tritonserver and BentoML on this machine: both start, both stop, neither alone.

    checks -> tritonserver + bentoml start -> the serving release loads -> /readyz says 200
           -> on_ready() -> wait for a signal, or for the death of either

Knows which processes there are and in which order they stop; how Triton is
started and loaded is `serving/tritonserver.py`'s, what BentoML does `bento/`'s.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from recommender.errors import MachineError, RecserveError, Unavailable
from recommender.release import Release, read_release
from serving import doctor, processes, tritonserver
from serving.front import Front
from serving.keeper import Keeper
from serving.running import Running, announced
from serving.tritonserver import Ports

PACKAGE_ROOT = Path(__file__).resolve().parent.parent  # where `bento.service` is importable from
LOAD_TIMEOUT_S = 180.0
READY_TIMEOUT_S = 120.0
STARTUP_FAILED = b"Application startup failed"  # uvicorn's words
STOP_BENTO_S = 3.0  # together with Triton's and the sweep's: gone within 10 s of the signal
STOP_TRITON_S = 3.5
Servers = dict[str, tuple["subprocess.Popen[bytes]", Path]]  # each with its log
TRITON_HOST = "127.0.0.1"  # always: this Triton has holes that only newer containers closed


def serve(
    repository: Path,
    *,
    front: Front,
    ports: Ports,
    log_dir: Path | None = None,
    on_ready: Callable[[], None] | None = None,
) -> int:
    """Serve the repository's release, and its variants, until a signal asks to stop (then 0).

    Raises ReleaseError for a repository without a whole release, BadInput for keys that
    cannot be used, MachineError for a taken port or a lacking machine, Unavailable when a
    server fails to start or dies. Whatever happens, both are gone on return.
    """
    release = read_release(repository.resolve())
    check_machine(front, ports)
    logs = (log_dir or Path(".recserve") / str(front.port)).resolve()
    logs.mkdir(parents=True, exist_ok=True)
    try:
        with _alone(logs), processes.supervised(grace_s=1.0) as supervision:
            _run(supervision, release, front, ports, logs, on_ready)
    except processes.Stopped:
        print("Stopped.", flush=True)
    return 0


def _run(
    supervision: processes.Supervision,
    release: Release,
    front: Front,
    ports: Ports,
    logs: Path,
    on_ready: Callable[[], None] | None,
) -> None:
    print(f"Starting tritonserver and BentoML; logs in {logs}", flush=True)
    triton_log, bento_log = logs / "tritonserver.log", logs / "bento.log"
    for log in (triton_log, bento_log):
        if log.exists():
            log.replace(log.with_suffix(".previous.log"))
    triton = tritonserver.launch(release.repository, ports, host=TRITON_HOST, log=triton_log)
    servers = {"tritonserver": (triton, triton_log)}
    try:
        # Both start at once: most of their time is spent importing, and BentoML
        # says it is ready only after Triton has answered for the release.
        bento = _launch_bento(release, front, ports, bento_log)
        servers["bentoml"] = (bento, bento_log)
        try:
            with supervision.by_killing(triton):
                tritonserver.load_release(
                    release,
                    ports,
                    process=triton,
                    host=TRITON_HOST,
                    log=triton_log,
                    timeout_s=LOAD_TIMEOUT_S,
                )
                here = Running(
                    triton=f"{TRITON_HOST}:{ports.grpc}",
                    url=front.url,
                    key=tritonserver.control_key(triton),
                    certificate=None if front.tls is None else str(front.tls.certificate),
                )
                keeper = Keeper(here, release)
                keeper.load_variants(timeout_s=LOAD_TIMEOUT_S)
            _wait_ready(front, servers)
            print(f"Release {release.version} is served at {front.url}", flush=True)
            with announced(release.repository, front.port, here):
                if on_ready is not None:
                    on_ready()
                _watch(supervision, keeper, here, triton, servers)
        finally:
            processes.stop(bento, STOP_BENTO_S)
    finally:
        tritonserver.stop(triton, STOP_TRITON_S)


def _watch(
    supervision: processes.Supervision,
    keeper: Keeper,
    here: Running,
    triton: subprocess.Popen[bytes],
    servers: Servers,
) -> NoReturn:
    """Load again what has died, and put away what no longer serves."""
    while True:
        _check_alive(servers)
        for release in keeper.releases:
            if dead := tritonserver.dead_models(release, triton):
                with supervision.by_killing(triton):
                    keeper.revive(release, dead)
        with supervision.by_killing(triton):
            keeper.look()
        time.sleep(0.5)


def check_machine(front: Front, ports: Ports) -> None:
    """Raise MachineError for the first thing that is needed and not there; BadInput for keys."""
    flags = {"--http-port": ports.http, "--grpc-port": ports.grpc, "--metrics-port": ports.metrics}
    numbers = [*flags.values(), front.port]
    if len(set(numbers)) < len(numbers):
        raise MachineError(
            f"ports {', '.join(map(str, numbers))} are not four different ones",
            remedy="Give each of --http-port, --grpc-port, --metrics-port and --port its own.",
        )
    checks = doctor.ports(flags, TRITON_HOST) + doctor.ports({"--port": front.port}, front.host)
    tritonserver.require([*doctor.machine(), *doctor.installed(), *checks])
    front.check()


@contextmanager
def _alone(logs: Path) -> Iterator[None]:
    """Two servers must not write the same logs, nor move them away from each other."""
    with (logs / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MachineError(
                f"another `recserve serve` keeps its logs in {logs}",
                remedy="Name another folder with --log-dir.",
            ) from error
        yield


def _launch_bento(
    release: Release, front: Front, ports: Ports, log: Path
) -> subprocess.Popen[bytes]:
    env = {
        **os.environ,
        **front.environment(),
        "RECSERVE_REPOSITORY": str(release.repository),
        "RECSERVE_TRITON": f"triton+http://{TRITON_HOST}:{ports.http}",
        "BENTOML_HOME": str(log.parent / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "PYTHONUNBUFFERED": "1",  # the last line of its log is what we show when it dies
    }
    command = [sys.executable, "-m", "bentoml", "serve", "bento.service:Recserve"]
    command += front.arguments()
    with log.open("wb") as out:
        return processes.spawn(command, log=out, cwd=PACKAGE_ROOT, env=env)


def _wait_ready(front: Front, servers: Servers) -> None:
    bento_log = servers["bentoml"][1]
    began = time.monotonic()
    seen: str | None = "no answer"
    while time.monotonic() < began + READY_TIMEOUT_S:
        _check_alive(servers)
        if STARTUP_FAILED in bento_log.read_bytes():
            break  # BentoML's master would start its worker anew for ever
        if (seen := front.ready()) is None:
            return
        time.sleep(0.1)
    raise Unavailable(
        f"BentoML was not ready after {time.monotonic() - began:.0f} s (/readyz: {seen})",
        remedy=f"Its log is {bento_log}; last line: {last_line(bento_log)}",
    )


def _check_alive(servers: Servers) -> None:
    for name, (process, log) in servers.items():
        if (code := process.poll()) is not None:
            raise died(name, code, log)


def died(name: str, code: int, log: Path) -> RecserveError:
    """The error for a server that ended by itself, with the last line of its log."""
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return Unavailable(f"{name} {how}", remedy=f"Its log is {log}; last line: {last_line(log)}")


def last_line(log: Path) -> str:
    """The last line of a log that says something, shortened: the cause ends a traceback, and
    uvicorn's "startup failed" below it says nothing."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        lines = file.read().decode(errors="replace").splitlines()
    telling = [s for line in lines if (s := line.strip()) and STARTUP_FAILED.decode() not in s]
    return telling[-1][:300] if telling else "(empty)"
