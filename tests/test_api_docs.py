"""docs/api.md: its commands, its Python and its JavaScript run as written, its JSON and its
figures hold."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
from served import Stack

from bento.operations import OPERATIONS
from client.api import Answer, Refusal, Served

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
        if line.endswith("/v1/release"):
            assert answer["triton"] == "answers"
        else:
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


def test_the_javascript_resolves_to_items_and_rejects_with_the_remedy(stack: Stack) -> None:
    (code,) = blocks("js")
    (call,) = re.findall(r"`(recommend\(.*?\))` resolves to the items", PAGE)
    assert 'url = ""' in code  # a page asks where it came from; node came from nowhere
    code = code.replace('url = ""', f'url = "{stack.url}"')
    code += f"""
    console.log(JSON.stringify(await {call}));
    console.log(JSON.stringify(await recommend({{ n: 2 }}, {{ key: "nobody-asks-for-it" }})));
    await recommend({{ n: 0 }}).catch((error) => console.log(error.message));
    """
    done = subprocess.run(
        ["node", "--input-type=module", "-e", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    items, others, refused = done.stdout.splitlines()
    assert [item["rank"] for item in json.loads(items)] == [1, 2, 3, 4, 5]
    assert len(json.loads(others)) == 2
    assert re.fullmatch(r"n is 0\. Send a whole number from 1 to \d+\.", refused)


def test_the_json_is_of_the_types_of_the_api() -> None:
    answer, release, refusal = blocks("json")
    assert msgspec.json.decode(answer, type=Answer).items[0].title == "Titanic"
    (shown,) = (one.answered for one in OPERATIONS if one.path == "/v1/release")
    assert msgspec.json.decode(release, type=Served) == shown
    assert json.loads(release) == msgspec.to_builtins(shown)  # no field is left out
    assert msgspec.json.decode(refusal, type=Refusal).error.field == "diversity"


def test_every_route_stands_in_the_page_and_links_exist() -> None:
    for one in OPERATIONS:
        assert one.path in PAGE, one.path
    for path in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (ROOT / "docs" / path).exists(), path
