"""A container of k8s/ as its YAML has it, on this machine: its command, user, mounts and
read-only root, in a mount namespace; for whom the kernel lets make one (root with CAP_SYS_ADMIN).

Elsewhere the same command runs without them, on paths of the test's own.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from manifests import Manifest

ROOT = Path(__file__).parent.parent
USER = 1000
# Not of the machine's own: what the pod has of them is said by its YAML.
OWN = {"tmp", "root", "proc", "sys", "dev", "var", "models"}


@cache
def confined() -> bool:
    """May this process make a mount namespace?"""
    trial = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /mnt && mount -t proc p /proc"]
    try:
        return subprocess.run(trial, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def contained(
    command: list[str], pod: Manifest, models: Path, root: Path, tools: tuple[Path, ...] = ()
) -> list[str]:
    """`command` under the mounts of the only container of `pod`, as its user, without capabilities.

    `models`: what the init container would have copied. `root`: an empty folder, to build the
    file system on. `tools`: what the image has and this machine has elsewhere.
    """
    (container,) = pod["spec"]["containers"]
    volumes = {v["name"]: v for v in pod["spec"].get("volumes", ())}
    lines = [f"mount -t tmpfs -o mode=755 root {root}", f"cd {root}"]
    for top in sorted(Path("/").iterdir()):
        if top.name in OWN:
            continue
        if top.is_symlink():
            lines.append(f"ln -s {top.readlink()} .{top}")
        elif top.is_dir():
            lines += [f"mkdir .{top}", *_bound(top, str(top), readonly=True)]
    lines += [
        "mkdir -p proc sys dev tmp root var",
        "mount -t proc proc proc",
        "mount --rbind /dev dev",
    ]
    for mount in container["volumeMounts"]:
        at, readonly = mount["mountPath"], mount.get("readOnly", False)
        lines.append(f"mkdir -p .{at}")
        if mount["name"] == "models":
            lines += _bound(models, at, readonly=readonly)
        elif "emptyDir" in volumes.get(mount["name"], {}):
            size = volumes[mount["name"]]["emptyDir"]["sizeLimit"].removesuffix("i").lower()
            lines.append(f"mount -t tmpfs -o mode=2777,gid={USER},size={size} none .{at}")
    # The Python of these tests, its packages and this code, wherever they are.
    for path in {Path(sys.base_prefix), Path(sys.prefix).resolve(), ROOT, *tools}:
        if path.parts[1] in OWN:
            lines += [f"mkdir -p .{path}", *_bound(path, str(path), readonly=True)]
    lines += [
        f"mount -o remount,ro {root}",
        f"exec chroot {root} setpriv --reuid={USER} --regid={USER} --clear-groups --no-new-privs"
        f" --bounding-set=-all --inh-caps=-all sh -c {shlex.quote(_begin(container))}"
        f" sh {shlex.join(command)}",
    ]
    return ["unshare", "--mount", "--propagation=private", "sh", "-ec", "\n".join(lines)]


def _bound(source: Path, at: str, *, readonly: bool) -> list[str]:
    bound = [f"mount --rbind {source} .{at}"]
    return [*bound, f"mount -o remount,bind,ro .{at}"] if readonly else bound


def _begin(container: Manifest) -> str:
    """Before the command: a write to the root has to fail, or this proves nothing."""
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    return f'cd {ROOT}; if touch /x /etc/x 2>/dev/null; then exit 99; fi; exec "$@"'


@contextmanager
def running(
    command: list[str], environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Told to stop by SIGTERM at the end, as the kubelet does, and then gone with exit code 0."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=dict(environment), cwd=ROOT, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield process
        process.terminate()
        assert process.wait(60) == 0, log.read_text()[-2000:]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()
