"""tritonserver and BentoML as one: they start together, and nothing outlives `recserve serve`."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import toy
from bento_process import write_release
from ports import free_ports

from recommender.contract import RECOMMENDER_ONNX
from serving.processes import die_with_parent

FLAGS = ("--http-port", "--grpc-port", "--metrics-port", "--port")
PORTS = dict(zip(FLAGS, free_ports(4), strict=True))
URL = f"http://127.0.0.1:{PORTS['--port']}"
GONE_S = 10


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.onnx"
    toy.write_onnx(path)
    return path


@pytest.fixture
def toys(tmp_path: Path, weights: Path) -> Path:
    """A repository whose release loads in a second."""
    folder = tmp_path / "repository"
    toy.add_model(folder, RECOMMENDER_ONNX, "onnxruntime", weights)
    write_release(folder, toy.LIMITS, items=toy.ITEMS - 1, models=(RECOMMENDER_ONNX,))
    return folder


class Stack:
    """`recserve serve`, or `up`, in a process group of its own, as a shell would run it."""

    def __init__(self, repository: Path, *command: str, **env: str) -> None:
        self.folder = repository.parent
        flags = [str(part) for pair in PORTS.items() for part in pair]
        arguments = [*(command or ("serve",)), "--repository", str(repository), *flags]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "serving.cli", *arguments],
            cwd=self.folder,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=die_with_parent(),
        )
        self.started: list[psutil.Process] = []
        self.before: list[str] = []  # what it said before it served

    def until_served(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if URL in line:
                self.started = psutil.Process(self.process.pid).children(recursive=True)
                return
            self.before.append(line)
        raise AssertionError(f"it ended: {self.ended()}")

    def child(self, words: str) -> psutil.Process:
        (found,) = [p for p in self.started if words in " ".join(p.cmdline())]
        return found

    def ended(self) -> tuple[int, str]:
        """Exit code and stderr, once it has ended."""
        _, stderr = self.process.communicate(timeout=120)
        return self.process.returncode, stderr

    def left(self) -> list[psutil.Process]:
        """What it had started and is still there after the time it is given."""
        _, alive = psutil.wait_procs(self.started, timeout=GONE_S)
        return alive

    def mentioned(self) -> list[list[str]]:
        """Command lines anywhere on the machine that name our folder or Bento's port."""
        marks = (str(self.folder), f"--port {PORTS['--port']}")
        lines = [p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline"])]
        return [line for line in lines if any(m in " ".join(line) for m in marks)]


@pytest.fixture
def serve() -> Iterator[Callable[..., Stack]]:
    stacks: list[Stack] = []

    def start(repository: Path, *command: str, **env: str) -> Stack:
        stacks.append(Stack(repository, *command, **env))
        return stacks[-1]

    yield start
    for stack in stacks:
        for process in stack.started:
            if process.is_running():
                process.kill()
        stack.process.kill()
        stack.process.communicate()


def recommend(*arguments: str) -> str:
    command = [sys.executable, "-m", "serving.cli", "recommend", "--url", URL, *arguments]
    env = {**os.environ, "COLUMNS": "120"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout


def test_it_serves_and_sigterm_ends_everything_with_0(
    toys: Path, serve: Callable[..., Stack]
) -> None:
    stack = serve(toys)
    stack.until_served()
    table = recommend("--user", "reader", "-n", "5")
    assert "For user reader" in table
    assert len(re.findall(r"Title \d+", table)) == 5
    assert f"model {RECOMMENDER_ONNX}" in table
    assert '"fallback": false' in recommend("--user", "reader", "--json")
    assert "Unknown to this release, and ignored: Sung" in recommend(
        "--user", "stranger", "--category", "Sung", "--category", "Noir"
    )
    stack.process.send_signal(signal.SIGTERM)
    assert stack.ended() == (0, "")
    assert stack.left() == []
    for port in PORTS.values():
        socket.create_server(("127.0.0.1", port)).close()
    logs = stack.folder / ".recserve" / str(PORTS["--port"])
    assert (logs / "tritonserver.log").stat().st_size > 0
    assert (logs / "bento.log").stat().st_size > 0


def test_an_impatient_ctrl_c_to_the_whole_group_leaves_nothing(
    toys: Path, serve: Callable[..., Stack]
) -> None:
    stack = serve(toys)
    stack.until_served()
    for _ in range(3):
        if stack.process.poll() is None:
            os.killpg(stack.process.pid, signal.SIGINT)
        time.sleep(0.3)
    assert stack.ended()[0] == 0
    assert stack.left() == []


def test_ctrl_c_during_the_start_leaves_nothing(toys: Path, serve: Callable[..., Stack]) -> None:
    stack = serve(toys)
    parent = psutil.Process(stack.process.pid)
    while not any("bentoml" in " ".join(p.cmdline()) for p in parent.children()):
        time.sleep(0.05)
    stack.started = parent.children(recursive=True)
    os.killpg(stack.process.pid, signal.SIGINT)
    assert stack.ended() == (0, "")
    assert stack.left() == []
    assert stack.mentioned() == []


def test_a_kill_of_the_parent_takes_the_children_with_it(
    toys: Path, serve: Callable[..., Stack]
) -> None:
    stack = serve(toys)
    stack.until_served()
    stack.process.kill()
    assert stack.left() == []


@pytest.mark.parametrize(
    ("name", "words"),
    [("tritonserver", "bin/tritonserver"), ("bentoml", "-m bentoml serve")],
    ids=["tritonserver", "bentoml"],
)
def test_the_death_of_either_ends_both_and_says_which(
    toys: Path, serve: Callable[..., Stack], name: str, words: str
) -> None:
    stack = serve(toys)
    stack.until_served()
    stack.child(words).kill()
    code, stderr = stack.ended()
    assert code == 1
    (line,) = stderr.splitlines()
    assert line.startswith(f"recserve: {name} was killed by signal 9.")
    assert ".log" in line
    assert stack.left() == []


def test_a_triton_that_answers_nobody_for_a_while_is_asked_again_and_ends_nothing(
    toys: Path, serve: Callable[..., Stack]
) -> None:
    stack = serve(toys)
    stack.until_served()
    triton = stack.child("bin/tritonserver")
    triton.suspend()
    assert stack.process.stdout is not None
    assert stack.process.stdout.readline().startswith("Looking again later")
    triton.resume()
    assert stack.process.poll() is None
    os.killpg(stack.process.pid, signal.SIGINT)
    assert stack.ended() == (0, "")
    assert stack.left() == []


@pytest.mark.parametrize("flag", PORTS)
def test_a_taken_port_is_refused_before_anything_starts(
    toys: Path, serve: Callable[..., Stack], flag: str
) -> None:
    with socket.create_server(("127.0.0.1", PORTS[flag])):
        code, stderr = serve(toys).ended()
    assert code == 1
    (line,) = stderr.splitlines()
    assert f"port {PORTS[flag]}" in line
    assert flag in line
    assert not (toys.parent / ".recserve").exists()


def test_a_corrupted_file_is_refused_before_anything_starts(
    toys: Path, serve: Callable[..., Stack]
) -> None:
    catalogue = toys / RECOMMENDER_ONNX / "1" / "catalogue.parquet"
    catalogue.write_bytes(catalogue.read_bytes() + b"x")
    code, stderr = serve(toys).ended()
    assert code == 1
    (line,) = stderr.splitlines()
    assert "catalogue.parquet is corrupted" in line
    assert not (toys.parent / ".recserve").exists()


def test_a_model_that_triton_cannot_load_is_named_and_leaves_nothing(
    toys: Path, serve: Callable[..., Stack]
) -> None:
    model = toys / RECOMMENDER_ONNX / "1" / "model.onnx"
    model.unlink()
    model.write_bytes(b"no model at all")
    stack = serve(toys)
    code, stderr = stack.ended()
    assert code == 1
    (line,) = stderr.splitlines()
    assert RECOMMENDER_ONNX in line
    assert stack.mentioned() == []


def test_a_bento_that_cannot_start_is_named_with_its_reason_and_leaves_nothing(
    toys: Path, serve: Callable[..., Stack]
) -> None:
    stack = serve(toys, RECSERVE_DEADLINE_MS="soon")
    code, stderr = stack.ended()
    assert code == 1
    (line,) = stderr.splitlines()
    assert "bentoml ended" in line
    assert "RECSERVE_DEADLINE_MS is 'soon'" in line
    assert stack.mentioned() == []


def test_up_goes_on_where_it_stands_and_shows_the_first_recommendations(
    tmp_path: Path, data_folder: Path, run_folder: Path, serve: Callable[..., Stack]
) -> None:
    up = ["up", "--data", str(data_folder), "--run", str(run_folder)]
    for steps_there in (2, 3):  # the export is missing; then nothing is
        stack = serve(tmp_path / "repository", *up)
        stack.until_served()
        assert stack.process.stdout is not None
        shown = []
        while not shown or "Ctrl-C" not in shown[-1]:
            shown.append(stack.process.stdout.readline())
        assert "For user 196" in "".join(shown)
        assert URL in shown[-1]
        os.killpg(stack.process.pid, signal.SIGINT)
        assert stack.ended()[0] == 0
        assert stack.left() == []
        assert sum("is there" in line or "holds a release" in line for line in stack.before) == (
            steps_there
        )


def test_a_step_of_up_that_fails_says_why_and_stops_there(
    tmp_path: Path, data_folder: Path, serve: Callable[..., Stack]
) -> None:
    run = tmp_path / "run"
    run.write_text("a file where the run should be")
    stack = serve(tmp_path / "repository", "up", "--data", str(data_folder), "--run", str(run))
    code, stderr = stack.ended()
    assert code == 1
    (line,) = stderr.splitlines()
    assert str(run) in line
    assert not (tmp_path / "repository").exists()
