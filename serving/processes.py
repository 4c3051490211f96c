"""Child processes that never outlive this one.

`supervised()` turns the first SIGINT, SIGTERM or SIGHUP into `Stopped`, and on
the way out ends every descendant. Two kernel features carry it: as child
subreaper this process inherits orphans (BentoML's workers and Triton's stubs
live in sessions of their own, where a group's signal misses them), and the
parent-death signal ends the children should this process itself be killed with
SIGKILL. Linux only; knows no server.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal asked this process to stop. Of KeyboardInterrupt's kind, the one that neither
    `except Exception` nor asyncio's event loop swallows."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(signal.Signals(signum).name)


def die_with_parent() -> Callable[[], None]:
    """A preexec_fn: the child gets SIGTERM when this process dies, even by SIGKILL."""
    parent = os.getpid()

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before prctl took effect
            os._exit(1)

    return prepare


def spawn(
    command: Sequence[str],
    *,
    log: IO[bytes] | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command`. With `log`, its output goes there and the terminal's Ctrl-C misses it
    (a session of its own: we decide in which order servers stop); without, it shares our
    terminal."""
    return subprocess.Popen(
        list(command),
        cwd=cwd,
        env=env,
        stdin=None if log is None else subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=log is not None,
        preexec_fn=die_with_parent(),
    )


def stop(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """SIGTERM, and SIGKILL after `timeout_s`; quiet where it has already ended."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_ports(count: int) -> list[int]:
    """Of 127.0.0.1, for children to listen on: all different, each could be bound a moment ago."""
    with ExitStack() as open_ones:
        probes = [open_ones.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def descendants() -> set[int]:
    """Process ids of all children, their children and so on, zombies included."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    todo = [os.getpid()]
    while todo:
        new = children.get(todo.pop(), [])
        found.update(new)
        todo.extend(new)
    return found


def kill_descendants(signum: int) -> None:
    for pid in descendants():
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            continue  # it ended by itself


def _end_descendants(grace_s: float) -> None:
    for signum, seconds in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 2.0)):
        kill_descendants(signum)
        until = time.monotonic() + seconds
        while _reap() and time.monotonic() < until:
            time.sleep(0.02)


def _reap() -> bool:
    """Collect whatever has ended; is anything left?"""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return False
    return True


class Supervision:
    """What a signal does while `supervised()` runs its body."""

    def __init__(self) -> None:
        self.stopping = False
        self._signum: int | None = None
        self._victim: subprocess.Popen[bytes] | None = None

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.stopping:
            kill_descendants(signal.SIGKILL)
            return
        self.stopping = True
        if self._victim is None:
            raise Stopped(signum)
        self._signum = signum
        self._victim.kill()

    @contextmanager
    def by_killing(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """For a body that an exception out of a signal handler would crash (measured: gRPC's
        event loop, SIGSEGV): a signal kills `process`, the body notices, Stopped follows."""
        self._victim = process
        try:
            yield
        finally:
            self._victim = None
            if self._signum is not None:
                raise Stopped(self._signum)


@contextmanager
def supervised(grace_s: float = 3.0) -> Iterator[Supervision]:
    """Run the body; leave it with no descendant alive.

    The first signal raises Stopped in the body; a further one kills all
    descendants at once, so that an impatient second Ctrl-C hurries and never
    orphans. A SIGHUP that nohup ignores stays ignored; an ignored SIGINT, as a
    script's shell gives its background jobs, is heard all the same. After Stopped the process
    has nothing left to do but leave, and signals are ignored.
    """
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    supervision = Supervision()
    before = {s: signal.getsignal(s) for s in SIGNALS}
    for signum, handler in before.items():
        if signum != signal.SIGHUP or handler is not signal.SIG_IGN:
            signal.signal(signum, supervision.on_signal)
    asked = False
    try:
        yield supervision
    except Stopped:
        asked = True
        raise
    finally:
        supervision.stopping = True
        _end_descendants(grace_s)
        for signum, handler in before.items():
            signal.signal(signum, signal.SIG_IGN if asked else handler)
