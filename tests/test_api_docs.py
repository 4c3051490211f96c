"""docs/api.md: its commands and its Python run as written, its JSON and its figures hold."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
from served import Stack

from bento.operations import OPERATIONS
from client.api import Answer, Refusal

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "api.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
ADDRESS = "http://127.0.0.1:3000"


def blocks(kind: str) -> list[str]:
    return [block for found, block in BLOCKS if found == kind]


def test_every_command_is_answered_with_items(stack: Stack) -> None:
    lines = [line for block in blocks("sh") for line in block.strip().splitlines()]
    assert len(lines) >= 10
    for line in lines:
        command = line.replace(ADDRESS, stack.url)
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        answer = json.loads(done.stdout)
        assert "error" not in answer, line
        if not line.endswith("/v1/release"):
            assert answer["items"], line
            assert "notes" not in answer and not answer["ignored"], line


def test_the_python_runs_and_prints_reasons(stack: Stack) -> None:
    (code,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", code.replace(ADDRESS, stack.url)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4 and lines[0].startswith("1 ") and lines[3].startswith("[Item(")


def test_the_json_is_of_the_types_of_the_api() -> None:
    answer, refusal = blocks("json")
    assert msgspec.json.decode(answer, type=Answer).items[0].title == "Titanic"
    assert msgspec.json.decode(refusal, type=Refusal).error.field == "diversity"


def test_every_route_stands_in_the_page_and_links_exist() -> None:
    for one in OPERATIONS:
        assert one.path in PAGE, one.path
    for path in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (ROOT / "docs" / path).exists(), path
