"""Who serves a repository on this machine right now: said by `serve`, read by `releases`.

    .serving-PORT.json     addresses; locked for as long as its `serve` lives

The lock goes with the process, so a file that `kill -9` left behind says nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from client.load.cost import NOBODY, Servers, listening
from client.service import RecserveClient
from client.trust import pinned

_PREFIX = ".serving-"
LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class Running:
    triton: str  # host:port of gRPC
    url: str  # of Bento
    key: str  # to load and unload in that Triton: for this user's eyes alone
    certificate: str | None = None  # of Bento, a file, where it speaks TLS

    def bento(self) -> RecserveClient:
        """What this Bento tells everybody; close it."""
        ca = None if self.certificate is None else pinned(Path(self.certificate))
        return RecserveClient(self.url, ca=ca)


@contextmanager
def announced(repository: Path, port: int, running: Running) -> Iterator[None]:
    """Others can find these servers while the body runs. A repository that cannot be written to
    cannot be promoted in either: nobody needs to find them."""
    path = repository / f"{_PREFIX}{port}.json"
    try:
        file = path.open("w")
        os.fchmod(file.fileno(), 0o600)
    except OSError as error:
        print(f"{path}: {error.strerror}; releases cannot be promoted from here", flush=True)
        yield
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(asdict(running)))
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def running(repository: Path) -> list[Running]:
    """All that serve from `repository` now."""
    return [
        Running(**json.loads(path.read_text()))
        for path in sorted(repository.glob(f"{_PREFIX}*.json"))
        if _held(path)
    ]


def _held(path: Path) -> bool:
    """Does a process hold the lock? (One that begins to serve writes a moment after it has it.)"""
    try:
        with path.open() as file:
            try:  # shared: two who look must not take each other for a server
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return path.stat().st_size > 0
    except FileNotFoundError:
        pass
    return False


def servers_of(target: str, repository: Path) -> Servers:
    """Of a target on this machine: who listens there, and at the Triton of a `serve` from
    `repository` whose Bento it is. None of a target elsewhere."""
    parts = urlsplit(target)
    if parts.hostname not in LOCAL or not parts.port:
        return NOBODY
    ports = {parts.port}
    for here in running(repository):
        if urlsplit(here.url).port == parts.port:
            ports.add(int(here.triton.rpartition(":")[2]))
    alone = parts.scheme.startswith("http") and len(ports) == 1
    lacking = f"its Triton, which no `serve` of {repository} names: --server-pid" if alone else ""
    return Servers(pids=tuple(listening(ports)), lacking=lacking)
