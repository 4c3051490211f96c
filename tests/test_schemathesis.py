"""What /docs.json promises, schemathesis tries: bodies of the schema and against it, with and
without keys. No 5xx, no answer outside the document, on the whole stack."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bento_process import Service, answers, bentoml_serve, wait_until
from served import Stack


@pytest.fixture(scope="module")
def locked(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    """A service of the same release and Triton that takes keys, and a key that may do all."""
    tmp = tmp_path_factory.mktemp("locked")
    file = tmp / "keys.json"
    command = [sys.executable, "-m", "serving.cli", "keys", "add", "all", "--scope", "admin"]
    added = subprocess.run(
        [*command, "--keys", str(file)], capture_output=True, text=True, check=True
    )
    (key,) = [word for word in added.stdout.split() if word.startswith("rsk_")]
    variables = {
        "RECSERVE_REPOSITORY": str(stack.repository),
        "RECSERVE_TRITON": stack.grpc,
        "RECSERVE_STORE": f"sqlite:///{tmp / 'events.db'}",
        "RECSERVE_KEYS": str(file),
    }
    with bentoml_serve(tmp, variables) as running:
        wait_until(lambda: answers(running.http, "/readyz"))
        yield running, key


examples = pytest.mark.parametrize(
    "examples", [10, pytest.param(200, marks=pytest.mark.faults)], ids=str
)


@examples
def test_without_keys(aside: Service, tmp_path: Path, examples: int) -> None:
    run(aside.url, examples, tmp_path)


@examples
def test_with_a_key(locked: tuple[Service, str], tmp_path: Path, examples: int) -> None:
    service, key = locked
    run(service.url, examples, tmp_path, "-H", f"Authorization: Bearer {key}")


def run(url: str, examples: int, folder: Path, *options: str) -> None:
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/docs.json"]
    command += ["--checks", "all", "--max-examples", str(examples), "--seed", "1"]
    command += ["--continue-on-failure", "--no-color", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
