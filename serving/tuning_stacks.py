"""A choice of settings -> a stack that serves with them, on free ports, for as long as a block.

    REPOSITORY ─ hard links ─> a copy whose configs are the choice's ─> `recserve serve`

The repository itself stays as it is, and so does whoever serves from it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from client.load.plan import Plan
from export.configs import SETTINGS, configure
from export.serving_config import parse
from recommender.errors import Unavailable
from recommender.release import Release
from serving import processes
from serving.front import Front
from serving.stack import LOAD_TIMEOUT_S, READY_TIMEOUT_S, died, last_line
from serving.tuning import Choice

CALLS = "RECSERVE_TRITON_CALLS"
TRITONS = ("batching", "queue_delay_us", "instances", "intra_op_threads")
STOP_S = 15.0
MADE = (".serving-*", ".lock", ".tmp-*")  # of a repository, by whoever runs on it


def base_of(release: Release, calls: int) -> Choice:
    """How the release's model is served by the repository's triton.toml."""
    file = release.repository / SETTINGS
    said = parse(file.read_bytes() if file.exists() else b"", str(file)).of(release.models[0])
    return Choice(triton_calls=calls, **{name: getattr(said, name) for name in TRITONS})


def toml_of(release: Release, choice: Choice) -> str:
    """The repository's triton.toml with the choice in the table of the model that serves."""
    file = release.repository / SETTINGS
    raw: dict[str, Any] = tomllib.loads(file.read_text()) if file.exists() else {}
    own = raw.get(release.models[0], {}) | {name: getattr(choice, name) for name in TRITONS}
    tables = {name: value for name, value in raw.items() if isinstance(value, dict)}
    plain = {name: value for name, value in raw.items() if name not in tables}
    text = _lines(plain)
    for name, table in {**tables, release.models[0]: own}.items():
        text += f"{chr(10) if text else ''}[{name}]\n{_lines(table)}"
    return text


def _lines(table: Mapping[str, Any]) -> str:
    """Words, numbers, yes and no, and lists of them: as in JSON."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in table.items())


def repository_under(release: Release, choice: Choice, folder: Path) -> Path:
    """A copy below `folder`, on the repository's disk, whose configs are the choice's."""
    copy = folder / "model_repository"
    shutil.copytree(
        release.repository, copy, copy_function=_linked, ignore=shutil.ignore_patterns(*MADE)
    )
    settings = folder / SETTINGS
    settings.write_text(toml_of(release, choice))
    configure(copy, settings)
    return copy


@contextmanager
def serving(release: Release, choice: Choice, folder: Path) -> Iterator[Plan]:
    """Whom to ask: Bento of a stack of its own, below `folder`. Raises Unavailable where it does
    not start; it is gone afterwards."""
    folder = Path(tempfile.mkdtemp(dir=folder))
    copy = repository_under(release, choice, folder)
    http, grpc, metrics, port = processes.free_ports(4)
    command = [sys.executable, "-P", "-m", "serving.cli", "serve", "--repository", str(copy)]
    flags = {"--http-port": http, "--grpc-port": grpc, "--metrics-port": metrics, "--port": port}
    command += [str(part) for flag in flags.items() for part in flag]
    log, front = folder / "serve.log", Front(port=port)
    with log.open("wb") as out, ExitStack() as ending:
        env = {**os.environ, CALLS: str(choice.triton_calls)}
        process = processes.spawn(command, log=out, cwd=folder, env=env)
        ending.callback(processes.stop, process, STOP_S)
        _wait(front, process, log)
        yield Plan(target=front.url, repository=copy, requests=1)


def _wait(front: Front, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + LOAD_TIMEOUT_S + READY_TIMEOUT_S
    while (seen := front.ready()) is not None:
        if (code := process.poll()) is not None:
            raise died("recserve serve", code, log)
        if time.monotonic() > until:
            raise Unavailable(
                f"a stack to measure was not ready in time (/readyz: {seen})",
                remedy=f"Its log is {log}; last line: {last_line(log)}",
            )
        time.sleep(0.1)


def _linked(source: str, target: str) -> str:
    """Weights are large and only read; what is written anew is replaced by rename."""
    os.link(source, target)
    return target
