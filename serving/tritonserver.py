"""A model repository -> the real tritonserver of the PyPI wheel, on this machine.

`launch()` starts it empty and in explicit mode; `load_release()` has it load
exactly one release's versions; `stop()` leaves no process and no shared memory.
Local use only: that server (2.51) has known remote holes, so everything binds
127.0.0.1 unless told otherwise. Knows files, processes and `client`, no tensors.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from client.control import KEY, Control
from export.triton_config import check_config
from recommender.errors import MachineError, Unavailable
from recommender.release import Release
from serving import doctor, processes, tracing, wheel
from serving.running import Running

# Whoever reaches the ports may infer; what loads code wants a header that the launcher knows.
RESTRICTED = f"model-repository,shared-memory,trace,logging:{KEY}="
GRPC_FLAG, HTTP_FLAG = (
    f"--grpc-restricted-protocol={RESTRICTED}",
    f"--http-restricted-api={RESTRICTED}",
)
SHM_FLAG = "--backend-config=python,shm-region-prefix-name="
SHM_NAME, SHM_DIGITS = "recserve-", 12
SHM_BYTES = 4 << 20  # per instance at start: room for a few full batches (it grows when needed)
EXIT_TIMEOUT_S = 3  # for requests in flight when it is told to stop


@dataclass(frozen=True)
class Ports:
    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002


def launch(
    repository: Path, ports: Ports, *, host: str = "127.0.0.1", log: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start tritonserver on `repository` with no model loaded; does not wait for it.

    Its output is appended to `log`, or goes to the terminal. It gets SIGTERM when the
    thread that called this dies, so call it from the main thread. Raises MachineError
    naming what this machine lacks, or the port that is taken.
    """
    require(doctor.machine() + doctor.installed())
    flags = {"--http-port": ports.http, "--grpc-port": ports.grpc, "--metrics-port": ports.metrics}
    require(doctor.ports(flags, host))
    _sweep()
    command = _command(repository, ports, host)
    if log is None:
        return processes.spawn(command, env=wheel.environment())
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return processes.spawn(command, log=file, env=wheel.environment())


def load_release(
    release: Release,
    ports: Ports,
    *,
    process: subprocess.Popen[bytes],
    host: str = "127.0.0.1",
    log: Path | None = None,
    timeout_s: float = 120,
) -> None:
    """Wait for the server, load exactly `release.version` of each model, wait until they answer.

    Raises MachineError when the server dies first (quoting `log`), ReleaseError for a config.pbtxt
    of something else, or with Triton's reason, Unavailable after `timeout_s`.
    """
    server = Control(_address(host, ports), control_key(process))
    asyncio.run(_load_watching(release, server, process, log, timeout_s))


def load_beside(
    release: Release, server: Running, *, last: str | None = None, timeout_s: float = 120
) -> None:
    """Load `release` beside what is there.

    Model `last` (default: the first) comes last: whoever waits for it has all of them or none.
    Raises what `load_release` raises, but for the death of the server, which is Unavailable too.
    """
    asyncio.run(_load_beside(release, server, last or release.models[0], timeout_s))


def dead_models(release: Release, process: subprocess.Popen[bytes]) -> tuple[str, ...]:
    """Models of a loaded `release` whose process has died.

    This server never restarts a dead stub, calls the model ready all the same, and lets each
    request wait two seconds to fail (measured): whoever supervises it asks now and then.
    """
    running = "\n".join(_stubs(_shm_prefix(process)).values())
    return tuple(m for m in release.models if f"/{m}/{release.version}/" not in running)


def revive(release: Release, models: tuple[str, ...], server: Running) -> None:
    """Load these dead models of `release` again."""
    asyncio.run(_reload(release, models, server))


def control_key(process: subprocess.Popen[bytes]) -> str:
    """The key that `launch` gave the server."""
    return _argument(process, GRPC_FLAG)


def stop(process: subprocess.Popen[bytes], timeout_s: float = EXIT_TIMEOUT_S + 3) -> None:
    """End the server, by force after `timeout_s`, and what it leaves when it was killed."""
    processes.stop(process, timeout_s)
    prefix = _shm_prefix(process)
    for pid in _stubs(prefix):
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            os.kill(pid, signal.SIGKILL)
    for region in Path("/dev/shm").glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


# --- starting


def require(checks: Iterable[doctor.Check]) -> None:
    """Raise MachineError for the first thing that is lacking."""
    for check in checks:
        if check.state == doctor.LACKS:
            raise MachineError(f"{check.name}: {check.seen}", remedy=check.remedy)


def _command(repository: Path, ports: Ports, host: str) -> list[str]:
    key = secrets.token_hex(16)
    return [
        str(wheel.wheel() / "bin" / "tritonserver"),
        f"--model-repository={repository.resolve()}",
        f"--backend-directory={wheel.backend_directory()}",
        "--model-control-mode=explicit",
        "--disable-auto-complete-config",  # configs are whole; completing starts a process more
        f"--http-address={host}",
        f"--http-port={ports.http}",
        f"--grpc-address={host}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-address={host}",
        f"--metrics-port={ports.metrics}",
        f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
        f"{GRPC_FLAG}{key}",
        f"{HTTP_FLAG}{key}",
        f"{SHM_FLAG}{SHM_NAME}{uuid.uuid4().hex[:SHM_DIGITS]}",  # never shared
        f"--backend-config=python,shm-default-byte-size={SHM_BYTES}",
        *tracing.flags(),
    ]


# --- loading


def _address(host: str, ports: Ports) -> str:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    return f"{reachable}:{ports.grpc}"


async def _load_watching(
    release: Release,
    server: Control,
    process: subprocess.Popen[bytes],
    log: Path | None,
    timeout_s: float,
) -> None:
    """Load, but give up the moment the server dies."""
    see = f"See {log}." if log else "See its output above."
    loading = asyncio.create_task(_load(release, server))
    until = time.monotonic() + timeout_s
    while process.poll() is None and not loading.done():
        if time.monotonic() > until:
            loading.cancel()
            raise Unavailable(
                f"Triton at {server.tensors.address} has not loaded release {release.version} "
                f"after {timeout_s:g} s",
                remedy=see,
            )
        await asyncio.wait({loading}, timeout=0.05)
    if loading.done() and isinstance(loading.exception(), Unavailable):
        await asyncio.sleep(0.5)  # the connection may break a moment before the process has ended
    if process.poll() is not None:
        loading.cancel()
        raise MachineError(
            f"tritonserver ended with code {process.returncode}: {_last_error(log)}", remedy=see
        )
    loading.result()


async def _load(release: Release, server: Control) -> None:
    async with server as triton:
        while not await triton.tensors.live():
            await asyncio.sleep(0.05)
        loads = (load_model(triton, release, m, [release.version]) for m in release.models)
        await asyncio.gather(*loads)


async def _load_beside(release: Release, server: Running, last: str, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s), Control(server.triton, server.key) as triton:
            for model in sorted(release.models, key=lambda model: model == last):
                there = await triton.versions(model)
                if release.version not in there:
                    await load_model(triton, release, model, [*there, release.version])
    except TimeoutError as error:
        raise Unavailable(
            f"Triton at {server.triton} has not loaded release {release.version} after "
            f"{timeout_s:g} s",
            remedy="See its log.",
        ) from error


async def load_model(triton: Control, release: Release, model: str, versions: list[int]) -> None:
    """Have exactly `versions` of a model of `release` loaded, and answering."""
    config = check_config(release.repository / model / "config.pbtxt", model, release.limits)
    cpu_only = {b: "KIND_CPU" for b in wheel.CUDA_LIBRARIES if not wheel.has_cuda(b)}
    await triton.load(model, versions, config, automatic=cpu_only)
    for version in versions:  # the load returns a moment before the version answers
        while not await triton.tensors.ready(model, version):
            await asyncio.sleep(0.05)


async def _reload(release: Release, models: Iterable[str], server: Running) -> None:
    async with Control(server.triton, server.key) as triton:
        for model in models:
            others = [v for v in await triton.versions(model) if v != release.version]
            # Gone first: a load alone finds nothing changed and does nothing. The other
            # versions go on answering.
            if others:
                await load_model(triton, release, model, others)
            else:
                await triton.unload(model)
            await load_model(triton, release, model, [*others, release.version])


def _last_error(log: Path | None) -> str:
    """What tritonserver gave as the reason when it ended, else the last line it wrote."""
    lines = log.read_text(errors="replace").splitlines() if log and log.is_file() else []
    lines = [line.strip() for line in lines if line.strip()]
    reasons = [line for line in lines if line.startswith("error:")]
    return (reasons or lines or ["it said nothing"])[-1]


# --- watching and stopping


def _shm_prefix(process: subprocess.Popen[bytes]) -> str:
    """The name that all shared memory of this server begins with."""
    return _argument(process, SHM_FLAG)


def _argument(process: subprocess.Popen[bytes], flag: str) -> str:
    """What stands behind `flag` on its command line."""
    assert isinstance(process.args, list)
    return next(str(a)[len(flag) :] for a in process.args if str(a).startswith(flag))


def _stubs(prefix: str) -> dict[int, str]:
    """Process id -> command line of this server's stubs: weights' path, shared memory's name."""
    commands = _commands().items()
    return {p: c for p, c in commands if "triton_python_backend_stub" in c and prefix in c}


def _commands() -> dict[int, str]:
    """Process id -> command line of every process on this machine."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        found[int(entry.parent.name)] = command
    return found


def _sweep() -> None:
    """Remove shared memory of servers that were killed, launcher and all."""
    regions = list(Path("/dev/shm").glob(f"{SHM_NAME}*"))  # listed first: its server lives by then
    alive = "\n".join(_commands().values())
    for region in regions:
        prefix = region.name[: len(SHM_NAME) + SHM_DIGITS]
        if prefix not in alive and region.stat().st_uid == os.getuid():
            region.unlink(missing_ok=True)
