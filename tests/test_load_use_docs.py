"""docs/load-testing.md: its commands run as written, but for shorter, and what it names exists."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from browser import chromium
from known_server import Reply, answering, right, write_release
from served import Stack

from export.configs import CONFIG
from recommender.contract import inputs
from recommender.release import read_release
from serving import cli
from serving.analyzer import steps

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "load-testing.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.strip().splitlines()
]
SEARCH = [line for line in COMMANDS if "--slo" in line and "--rate" not in line]
SHORTER = {  # no timing is asserted: this machine may be busy
    r"--duration \d+": "--duration 0.6",
    r"--requests \d+": "--requests 16",
    r"--rounds \d+": "--rounds 1",
    r"--rate \d+": "--rate 20",
    r"p99=25ms": "p99=60s",
    r"-c \d+": "-c 4",
}


@pytest.fixture
def place(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where the page's commands find its repository."""
    (tmp_path / "model_repository").symlink_to(stack.repository)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def translated(line: str, stack: Stack) -> list[str]:
    for pattern, shorter in SHORTER.items():
        line = re.sub(pattern, shorter, line)
    for documented, real in (
        ("triton+http://127.0.0.1:8000", stack.http),
        ("grpc://127.0.0.1:8001", stack.grpc),
        ("http://127.0.0.1:3000", stack.url),
    ):
        line = line.replace(documented, real)
    recserve, *arguments = shlex.split(line)
    assert recserve == "recserve"
    return arguments


@pytest.mark.timeout(600)
@pytest.mark.parametrize("line", [line for line in COMMANDS if line not in SEARCH])
def test_every_command_runs(
    line: str, stack: Stack, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = cli.run(translated(line, stack))
    out, err = capsys.readouterr()
    assert code == 0 or "No measurement" in out or "could not keep up" in err, out + err
    assert "answered wrongly" not in out and "without an answer" not in out
    if "--price-per-hour" in line:  # Bento's port, and that of the Triton behind it
        assert re.search(r"processes \d+, \d+ and those", " ".join(out.split())), out


def test_the_search_ends_about_where_a_server_can_do_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    free = [0.0]

    def one_at_a_time(number: int, body: dict[str, Any]) -> Reply:
        """25 a second, and whoever comes waits in line."""
        now = time.monotonic()
        free[0] = max(now, free[0]) + 0.04
        return free[0] - now, 200, right(body)

    monkeypatch.chdir(tmp_path)
    write_release(tmp_path / "model_repository")
    (line,) = SEARCH
    line = line.replace("p99=25ms", "p99=500ms --resolution 1 --json")
    with answering(one_at_a_time) as (address, _):
        line = line.replace("http://127.0.0.1:3000", address)
        arguments = re.sub(r"--duration \d+", "--duration 1", line).split()[1:]
        assert cli.run(arguments) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    rate = found["search"]["rate"]
    assert 1 <= rate <= 75  # in so short a run, 75/s make a queue of two seconds
    assert found["search"]["trials"][-1]["last"] and found["objectives"][0]["held"]
    assert "right answers/s" in err and "holds" in err
    assert f"{rate:,.0f} requests/s hold p99=500ms" in (tmp_path / "load.html").read_text()


def test_a_page_is_shown_whole_in_a_browser(
    stack: Stack, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "recserve load http://127.0.0.1:3000 --rate 20 --duration 3 --mix recommend=2,similar=1"
    arguments = translated(line, stack)
    options = ["--during", "echo '<b>'; exit 3", "--slo", "p99=60s", "--html", "load.html"]
    assert cli.run([*arguments, "--duration", "2", *options]) == 1  # the command failed
    with chromium() as browser:
        for scheme in ("light", "dark"):
            context = browser.new_context(color_scheme=scheme, offline=True)
            page = context.new_page()
            asked: list[str] = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto((place / "load.html").as_uri())
            text = page.inner_text("main")
            for words in ("Before, during and after", "exit code 3", "Latency distribution",
                          "Over time", "By endpoint", "p99=60000ms", "What was asked",
                          "open loop, poisson, 20/s, 2 s", "recommend=2,similar=1"):  # fmt: skip
                assert words in text, words
            assert page.locator("svg[role=img]").count() >= 5
            assert page.locator("pre b").count() == 0  # what it printed is text
            assert len(asked) == 1  # the page itself, and nothing else
            wide = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert wide
            context.close()


# What NVIDIA's tools take


def test_the_requests_are_those_of_real_users(stack: Stack) -> None:
    release = read_release(stack.repository)
    found = steps(release, 40)
    wanted = {tensor.name: tensor for tensor in inputs(release.limits)}
    assert len(found) == 40
    for step in found:
        assert step.keys() == wanted.keys()
        for name, tensor in wanted.items():
            shape, content = step[name]["shape"], step[name]["content"]
            assert isinstance(shape, list) and isinstance(content, list)
            assert len(shape) == len(tensor.dims) and shape[-1] == len(content)
            assert all(size in (-1, real) for size, real in zip(tensor.dims, shape, strict=True))
    users = release.users
    asked = {tuple(step["history"]["content"][-3:]) for step in found}  # type: ignore[index]
    known = {tuple(users.history(row).items[-3:].tolist()) for row in range(len(users))}
    assert asked <= known and len(asked) > 20  # right-aligned, the newest last


# Of docs/config.md of model-analyzer 1.58: of profile, of a model, of its parameters.
TOP = {"model_repository", "triton_launch_mode", "client_protocol", "run_config_search_disable",
       "profile_models", "perf_analyzer_flags"}  # fmt: skip
OF_MODEL = {"cpu_only", "parameters", "model_config_parameters", "constraints", "objectives"}


@pytest.mark.parametrize("gpu", [False, True])
def test_the_analyzer_config_says_what_model_analyzer_reads(
    stack: Stack, place: Path, gpu: bool
) -> None:
    options = ["--out", "analyzer", "--p99", "25", *(["--gpu"] if gpu else [])]
    assert cli.run(["releases", "analyzer", *options]) == 0
    config = yaml.safe_load((place / "analyzer" / "model-analyzer.yaml").read_text())
    assert config.keys() == TOP
    assert (Path(config["model_repository"]) / "recommender_onnx" / CONFIG).is_file()
    ((name, model),) = config["profile_models"].items()
    assert name == "recommender_onnx" and model.keys() == OF_MODEL - (
        {"cpu_only"} if gpu else set()
    )
    assert model["constraints"] == {"perf_latency_p99": {"max": 25}}
    assert model["parameters"].keys() == {"concurrency", "batch_sizes"}
    kind = "KIND_GPU" if gpu else "KIND_CPU"
    # A list of lists: one alternative each; a plain list would be one model with all of them.
    groups = model["model_config_parameters"]["instance_group"]
    assert groups == [[{"kind": kind, "count": 1}], [{"kind": kind, "count": 2}]]
    asked = json.loads(Path(config["perf_analyzer_flags"]["input-data"]).read_text())
    assert len(asked["data"]) > 100


def test_a_model_that_recommends_nothing_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["releases", "analyzer", "--out", "analyzer", "--model", "ranker"]
    assert cli.run(arguments) == 2
    assert "recommender_torchscript" in capsys.readouterr().err
    assert not (place / "analyzer").exists()


def test_links_of_the_page_exist_and_its_options_are_those_of_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (ROOT / "docs" / path).exists(), path
    monkeypatch.setenv("COLUMNS", "200")
    cli.run(["load", "--help"])
    options = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}
    told = set(re.findall(r"--[a-z][a-z-]+", PAGE))
    assert options - told == {"--concurrency", "--model", "--seed"}  # plain
