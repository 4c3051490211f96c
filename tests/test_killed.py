"""`kill -9` at random moments of an export or a promotion: one whole release serves, always."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from scale import often
from triton_process import infer, three_ports

from export import golden
from export.index import LOCK, gc
from export.parity import compare
from recommender import config
from recommender.data.dataset import Dataset
from recommender.release import Release, read_index, read_release
from recommender.runs import write
from recommender.train import blueprint_of, fit_run
from serving import tritonserver


@pytest.fixture
def run_folder(dataset: Dataset, tmp_path: Path) -> Path:
    blueprint = blueprint_of("popularity", dataset.users, dataset, config.read())
    write(fit_run(blueprint, dataset.users, dataset), tmp_path / "run")
    return tmp_path / "run"


def recserve(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "serving.cli", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def at_work(repository: Path, *arguments: str) -> tuple[subprocess.Popen[bytes], float]:
    """A command that has just taken the repository's lock (which sets the file's time), so that
    imports, most of its time, are behind it; and when that was."""
    lock = repository / LOCK
    before = lock.stat().st_mtime_ns
    process = recserve(*arguments)
    while process.poll() is None and lock.stat().st_mtime_ns == before:
        time.sleep(0.001)
    return process, time.monotonic()


def seconds_of(repository: Path, *arguments: str) -> float:
    """From then on to its end."""
    process, began = at_work(repository, *arguments)
    assert process.wait() == 0
    return time.monotonic() - began


@pytest.mark.parametrize("kills", often(4, 1_000))
def test_a_kill_leaves_one_whole_release_that_serves(
    run_folder: Path, tmp_path: Path, kills: int
) -> None:
    repository = tmp_path / "repository"
    where = ("--repository", str(repository))
    export = ("export", str(run_folder), *where)
    assert recserve(*export).wait() == 0
    longest = {"export": seconds_of(repository, *export)}
    longest["promote"] = seconds_of(repository, "releases", "promote", "2", *where)
    rng, ended = random.Random(0), 0
    # From the moment it has the lock to well after its end, evenly, in parts of the time it takes.
    moments = [1.2 * kill / (kills - 1) for kill in range(kills)]
    rng.shuffle(moments)
    with _triton(repository, tmp_path / "triton.log") as serves:
        for kill in range(kills):
            index = read_index(repository)
            if kill % 2:
                what, command = "export", export
            else:
                other = rng.choice([v for v in index.releases if v != index.serving])
                what, command = "promote", ("releases", "promote", str(other), *where)
            process, _ = at_work(repository, *command)
            time.sleep(longest[what] * moments[kill])
            if moments[kill] == max(moments):  # however busy the machine is by now
                process.wait()
            process.send_signal(signal.SIGKILL)
            ended += process.wait() == 0
            now = read_index(repository)
            for version in now.releases:
                read_release(repository, version)  # whole, or it raises
            assert set(now.releases) >= set(index.releases)
            serves(read_release(repository))
            if kill % 10 == 9:
                gc(repository, keep=2)
    assert 0 < ended < kills, "some end before they are killed, some do not"
    gc(repository, keep=1)
    versions = {path.parent.name for path in repository.glob("*/*/model.onnx")}
    assert len(versions) <= 3  # newest, serving, the one before


@contextmanager
def _triton(repository: Path, log: Path) -> Iterator[Callable[[Release], None]]:
    """A real one that lives through all of it: it loads a release, which answers as when it was
    exported."""
    ports = three_ports()
    process = tritonserver.launch(repository, ports, log=log)

    def serves(release: Release) -> None:
        tritonserver.load_release(release, ports, process=process, log=log)
        asked = next(golden.read(release.home))
        address = f"grpc://127.0.0.1:{ports.grpc}"
        seen = infer(address, release.models[0], dict(asked.inputs), version=release.version)
        compare(asked.outputs, seen, asked.name)

    try:
        yield serves
    finally:
        tritonserver.stop(process)
