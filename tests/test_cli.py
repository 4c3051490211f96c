"""The command line as its users meet it: a process, its two streams and its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RECSERVE = [sys.executable, "-m", "serving.cli"]


def recserve(
    *arguments: str, cwd: Path | None = None, debug: str = "0"
) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "RECSERVE_DEBUG": debug, "COLUMNS": "100"}
    return subprocess.run(
        [*RECSERVE, *arguments], capture_output=True, text=True, cwd=cwd, env=env, timeout=60
    )


def commands() -> list[list[str]]:
    """Every command and sub-command, as typer knows them."""
    from typer.main import get_command

    from serving.cli import app

    found: list[list[str]] = []
    todo = [([], get_command(app))]
    while todo:
        path, command = todo.pop()
        children = getattr(command, "commands", {})
        todo += [([*path, name], child) for name, child in children.items()]
        if not children:
            found.append(path)
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_the_help_of_every_command_has_an_example_of_it(command: list[str]) -> None:
    done = recserve(*command, "--help")
    assert done.returncode == 0
    assert f"Example: recserve {' '.join(command)}" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "named", "help_of"),
    [
        (["serve", "--prot", "3000"], "--prot", "recserve serve"),
        (["serve", "--port", "three"], "--port", "recserve serve"),
        (["serve", "--port", "70000"], "--port", "recserve serve"),
        (["recommend"], "--user", "recserve recommend"),
        (["recommend", "--user"], "--user", "recserve recommend"),
        (["recomend"], "recomend", "recserve"),
        (["releases"], "No command", "recserve releases"),
        (["doctor", "extra"], "extra", "recserve doctor"),
    ],
    ids=" ".join,
)
def test_bad_usage_is_one_line_that_names_the_fault_and_exits_with_2(
    arguments: list[str], named: str, help_of: str
) -> None:
    done = recserve(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("recserve: ")
    assert named in line
    assert line.endswith(f"See `{help_of} --help`.")


def test_a_repository_without_a_release_is_refused_in_one_line(tmp_path: Path) -> None:
    done = recserve("serve", "--repository", "nowhere", cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "nowhere" in line
    assert "recserve export" in line
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_a_service_that_is_not_there_is_named_with_what_starts_it() -> None:
    done = recserve("recommend", "--user", "196", "--url", "http://127.0.0.1:13199")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "127.0.0.1:13199" in line
    assert "recserve serve" in line


def test_version_is_the_installed_one() -> None:
    from importlib.metadata import version

    assert recserve("--version").stdout == f"recserve {version('recserve')}\n"


def test_no_command_shows_the_help() -> None:
    done = recserve()
    assert done.returncode == 0
    assert "doctor" in done.stdout
    assert "recommend" in done.stdout


def test_a_reader_that_stops_early_gets_no_traceback() -> None:
    with subprocess.Popen(
        [*RECSERVE, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_help_imports_none_of_the_heavy_packages() -> None:
    code = (
        "import sys; sys.argv = ['recserve', '--help']\n"
        "from serving.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.argv[2:] if m in sys.modules], file=sys.stderr)"
    )
    heavy = ["torch", "onnx", "onnxruntime", "bentoml", "polars", "numpy", "grpc", "httpx"]
    code = code.replace("sys.argv[2:]", repr(heavy))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file or directory", "a.toml"), "a.toml: No such file"),
        (PermissionError(13, "Permission denied", "/root/x"), "/root/x: Permission denied"),
        (OSError(28, "No space left on device", "/data"), "Free some space"),
        (ZeroDivisionError("division by zero"), "RECSERVE_DEBUG=1"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_failure_is_explained_with_a_remedy_and_exits_with_1(
    error: Exception, line: str
) -> None:
    from serving.cli import explain

    text, code = explain(error)
    assert line in text
    assert code == 1


@pytest.mark.parametrize(("own", "spins"), [
    ({}, "GOMP_SPINCOUNT = '5000'"),
    ({"GOMP_SPINCOUNT": "7"}, "GOMP_SPINCOUNT = '7'"),
    ({"OMP_WAIT_POLICY": "ACTIVE"}, "OMP_WAIT_POLICY = 'ACTIVE'"),
], ids=["by itself", "as the user says", "by the user's policy"])  # fmt: skip
def test_threads_of_a_training_do_not_spin_for_long(
    own: dict[str, str], spins: str, tmp_path: Path
) -> None:
    """What the OpenMP that torch brings has taken from the environment, by itself."""
    others = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [*RECSERVE, "train", str(tmp_path / "none"), "--out", str(tmp_path / "run")],
        capture_output=True, text=True, timeout=60, check=False,
        env={**others, **own, "OMP_DISPLAY_ENV": "VERBOSE"},
    )  # fmt: skip
    assert done.returncode == 1 and "does not exist" in done.stderr
    assert spins in done.stderr
