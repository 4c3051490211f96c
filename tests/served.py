"""`recserve serve` as the tests run it, on ports that nobody uses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx
import psutil
import pytest
from ports import free_ports

from serving.processes import die_with_parent

ITEMS = 150  # of the synthetic data set


@dataclass(frozen=True, kw_only=True)
class Stack:
    """`recserve serve`, running."""

    process: subprocess.Popen[str]
    url: str
    grpc: str
    http: str
    metrics: str
    repository: Path
    folder: Path  # of its log

    def processes(self, words: str = "") -> list[psutil.Process]:
        """Those that it started and whose command line holds `words`; who has ended is no more."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # a zombie too, as psutil says it
                if words in " ".join(process.cmdline()):
                    found.append(process)
        return found


@contextmanager
def serving(repository: Path, folder: Path) -> Iterator[Stack]:
    """`recserve serve` of the repository, ready to answer; `folder` is for its logs."""
    http, grpc, metrics, port = free_ports(4)
    command = [sys.executable, "-m", "serving.cli", "serve", "--repository", str(repository),
               "--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics),
               "--port", str(port)]  # fmt: skip
    log = folder / "serve.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=out,
            text=True,
            cwd=folder,
            start_new_session=True,
            preexec_fn=die_with_parent(),  # whatever kills the tests, nothing is left running
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_ready(url, process, log)
        yield Stack(
            process=process, url=url, grpc=f"grpc://127.0.0.1:{grpc}",
            http=f"triton+http://127.0.0.1:{http}", metrics=f"http://127.0.0.1:{metrics}/metrics",
            repository=repository, folder=folder,
        )  # fmt: skip
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
        process.wait(timeout=20)


def wait_ready(url: str, process: subprocess.Popen[str], log: Path) -> None:
    until = time.monotonic() + 180
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            # BentoML is ready with the model that serves; `serve` says when all are loaded.
            ready = httpx.get(f"{url}/readyz", timeout=2).status_code == 200
            if ready and "is served at" in log.read_text():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail(f"not ready in time: {log.read_text()}")


class Threads:
    """`count` threads of `_call(number)` for as long as the block lasts; each looks at `_stop`."""

    def __init__(self, count: int) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(n,)) for n in range(count)]

    def _call(self, number: int) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
