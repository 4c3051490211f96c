"""What this machine has, lacks, or should be warned about, each with the remedy.

`machine()` needs nothing but Python's own library, and no more than Python 3.8's
syntax: `make install` runs it (`python3 -m serving.doctor`) before anything is
installed, with whatever python3 is there. `installed()`, `ports()` and `gpu()`
complete `recserve doctor`. Reads only: never installs, never calls a package
manager. Knows no server.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

OK, WARNS, LACKS = "ok", "warns", "lacks"

PYTHONS = ((3, 11),)  # the ones tested
GLIBC = (2, 35)
GIB = 1 << 30
MEMORY_GIB = 4
DISK_INSTALL_GIB = 6  # the environment and pip's temporary files
DISK_RUN_GIB = 1  # data, a run and a release of MovieLens-100K
SHM_MB = 64  # Docker's default; each model instance takes 1 MB and grows


@dataclass(frozen=True)
class Check:
    """One line of the doctor's table. `remedy` is empty where all is well."""

    name: str
    state: str  # OK, WARNS or LACKS
    seen: str
    remedy: str = ""


def _check(name: str, good: bool, seen: str, remedy: str, *, otherwise: str = LACKS) -> Check:
    return Check(name, OK, seen) if good else Check(name, otherwise, seen, remedy)


def machine() -> list[Check]:
    """What must be there before anything can be installed."""
    return [_platform(), _glibc(), _python(), _venv(), _libpython(), _memory(), _disk(), _shm()]


def _platform() -> Check:
    seen = f"{platform.system()} {platform.machine()}"
    remedy = "Use an x86-64 Linux machine: the PyPI tritonserver exists for no other."
    return _check("platform", seen == "Linux x86_64", seen, remedy)


def _glibc() -> Check:
    name, version = platform.libc_ver()
    numbers = tuple(int(n) for n in version.split(".")[:2] if n.isdigit())
    wanted = ".".join(map(str, GLIBC))
    remedy = f"Needs glibc {wanted} or newer: Debian 12, Ubuntu 22.04, RHEL 10 or later."
    return _check("C library", name == "glibc" and numbers >= GLIBC, f"{name} {version}", remedy)


def _python() -> Check:
    seen = f"{platform.python_implementation()} {platform.python_version()}"
    good = sys.version_info[:2] in PYTHONS and platform.python_implementation() == "CPython"
    remedy = "Install Python 3.11 (apt install python3.11 python3.11-venv), then "
    return _check("Python", good, seen, remedy + "`make install PYTHON=python3.11`.")


def _venv() -> Check:
    good = importlib.util.find_spec("ensurepip") is not None
    return _check(
        "venv",
        good or sys.prefix != sys.base_prefix,
        "ensurepip" if good else "no ensurepip",
        f"apt install python{_short()}-venv",
    )


def _short() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def libpython() -> Path | None:
    """The shared library of the running Python, which Triton's stub loads; None without one."""
    name = f"libpython{_short()}.so.1.0"
    folders = [sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib"]
    folders += ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/local/lib"]
    for folder in folders:
        if folder and (Path(folder) / name).is_file():
            return Path(folder) / name
    return None


def _libpython() -> Check:
    found = libpython()
    if found is None and ctypes.util.find_library(f"python{_short()}"):
        return Check("libpython", OK, f"libpython{_short()}.so known to the loader")
    return _check(
        "libpython",
        found is not None,
        str(found or f"no libpython{_short()}.so.1.0"),
        f"apt install libpython{_short()}, or with pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared "
        f"pyenv install {_short()}",
    )


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # A container's limit, where there is one: without cgroup v2, or with "max" in the
    # file, the machine's own memory counts.
    with contextlib.suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    # A "4 GiB" machine shows less: the kernel keeps a part.
    good = total >= 0.9 * MEMORY_GIB * GIB
    return _check("memory", good, f"{total / GIB:.1f} GiB", f"Needs {MEMORY_GIB} GiB or more.")


def _disk() -> Check:
    there = importlib.util.find_spec("bentoml") is not None
    needed = DISK_RUN_GIB if there else DISK_INSTALL_GIB
    free = shutil.disk_usage(Path.cwd()).free
    remedy = f"Needs {needed} GiB free in {Path.cwd()}."
    return _check("disk", free >= needed * GIB, f"{free / GIB:.1f} GiB free", remedy)


def _shm() -> Check:
    try:
        usage = shutil.disk_usage("/dev/shm")
    except OSError:
        usage = None
    total = usage.total if usage else 0
    free = usage.free if usage else 0
    return _check(
        "/dev/shm",
        total >= SHM_MB * 10**6 and free >= SHM_MB * 10**6 // 4,
        f"{free / 10**6:.0f} of {total / 10**6:.0f} MB free",
        f"Needs {SHM_MB} MB: docker run --shm-size=256m, or mount -o remount,size=256m /dev/shm",
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed() -> list[Check]:
    """The Python packages of each part; training is optional on a machine that only serves."""
    serve = ("bentoml", "httpx", "polars", "tritonclient")
    train = ("torch", "onnx", "onnxscript", "onnxruntime")
    return [_packages("serving", serve, LACKS), _numpy(), _triton(), _packages("training", train)]


def _packages(name: str, packages: tuple[str, ...], otherwise: str = WARNS) -> Check:
    versions = {p: _version(p) for p in packages}
    missing = [p for p, v in versions.items() if v is None]
    seen = ", ".join(f"{p} {v}" if v else f"no {p}" for p, v in versions.items())
    remedy = "make install" + ("" if otherwise == LACKS else " (needed to train and export only)")
    return _check(f"{name} packages", not missing, seen, remedy, otherwise=otherwise)


def _numpy() -> Check:
    version = _version("numpy")
    good = version is not None and int(version.split(".")[0]) < 2
    remedy = "make install (with numpy 2 this tritonserver silently reads zeros)"
    return _check("numpy < 2", good, version or "not installed", remedy)


def _triton() -> Check:
    """The wheel with tritonserver, and its python backend's stub for the running Python."""
    spec = importlib.util.find_spec("pytriton")  # finds, does not import
    version = _version("nvidia-pytriton")
    if spec is None or not spec.submodule_search_locations:
        return Check("tritonserver", LACKS, "no nvidia-pytriton", "make install")
    home = Path(spec.submodule_search_locations[0]) / "tritonserver"
    stub = home / "python_backend_stubs" / _short() / "triton_python_backend_stub"
    good = stub.is_file() and os.access(home / "bin" / "tritonserver", os.X_OK)
    seen = f"nvidia-pytriton {version}, {'with' if stub.is_file() else 'without'} a stub"
    remedy = "rm -rf .venv && make install PYTHON=python3.11"
    return _check("tritonserver", good, f"{seen} for {_short()}", remedy)


def port_owner(port: int, host: str = "127.0.0.1") -> str | None:
    """None where `host:port` is free, else who listens there, as far as we may see it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT is not taken
        try:
            probe.bind((host, port))
        except OSError as error:
            return _listener(port) or f"another process ({error.strerror})"
    return None


def _listener(port: int) -> str | None:
    """Name and pid of the process that listens on `port`, found through /proc."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:] if Path(table).exists() else ():
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(fd.readlink()) in inodes for fd in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:
            continue  # another user's process, or it ended while we looked
    return None


def ports(flags: dict[str, int], host: str = "127.0.0.1") -> list[Check]:
    """One check per flag, for instance {"--port": 3000}."""
    checks = []
    for flag, port in flags.items():
        owner = port_owner(port, host)
        remedy = f"Stop it, or move ours: {flag} N."
        seen = f"taken by {owner}" if owner else "free"
        checks.append(_check(f"port {port}", owner is None, seen, remedy))
    return checks


def gpu() -> Check:
    """For information: everything runs on the CPU too."""
    found = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi")
    return Check("GPU", OK, "NVIDIA driver found" if found else "none, models run on the CPU")


def main() -> int:
    """`python3 -m serving.doctor`: the machine's checks as plain lines, before the install."""
    missing = [c for c in machine() if c.state == LACKS]
    for check in missing:
        print(f"recserve: {check.name}: {check.seen}. {check.remedy}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
