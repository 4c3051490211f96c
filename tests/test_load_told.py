"""What a load test tells besides its figures: how to run it again, what it cost, the page."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from browser import chromium
from known_server import Reply, answering, right, write_release

from client.load.cost import Cost, Servers
from client.load.mix import Mix
from client.load.objective import objectives, verdicts
from client.load.plan import Plan
from client.load.recording import Fate, Outcome, Part, Recording
from client.load.report import report
from client.load.result import Result
from client.load.session import run
from serving import cli

WARM_UP = 20  # what the generator asks before it records, with few workers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("repository"))


def test_a_run_is_warmed_up_whatever_says_how_long_it_lasts(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace.txt"
    trace.write_text("\n".join(str(i / 50) for i in range(31)))
    lengths = {
        ("--requests", "10"): 1.0,
        ("--duration", "0.5"): 0.05,
        ("--rate", "100", "--requests", "50"): 0.05,
        ("--rate", "100", "--duration", "0.4"): 0.04,
        ("--arrivals", "trace", "--trace", str(trace)): 0.06,
    }
    for options, warm_up_s in lengths.items():
        with answering(lambda _, body: (0.001, 200, right(body))) as (address, server):
            cli.run(["load", address, "--repository", str(folder), "--json", *options])
        found = json.loads(capsys.readouterr().out)
        assert found["asked"]["warm_up_s"] == pytest.approx(warm_up_s)
        assert next(server.numbers) > WARM_UP + found["requests"]  # and it is asked


def test_what_is_told_of_a_run_is_enough_to_run_it_again(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = list[str]()

    def noted(_: int, body: dict[str, Any]) -> Reply:
        asked.append(json.dumps(body))
        return 0.0, 200, right(body)

    page = tmp_path / "load.html"
    options = ["--rate", "60", "--duration", "0.5", "--arrivals", "constant", "--seed", "5",
               "--mix", "recommend=3,similar=1", "--filtered", "0.4", "--zipf", "1.1",
               "--html", str(page)]  # fmt: skip
    with answering(noted) as (address, _):
        cli.run(["load", address, "--repository", str(folder), "--json", *options])
        told = json.loads(capsys.readouterr().out)["asked"]
        first, asked[:] = sorted(asked), []
        plan = msgspec.convert(
            {name: value for name, value in told.items() if value is not None},
            Plan,
            dec_hook=lambda kind, text: kind(text),
        )
        asyncio.run(run(plan))
    assert sorted(asked) == first and len(set(first)) > 20
    for words in ("open loop, constant, 60/s, 0.5 s", "recommend=3,similar=1", "categories=0.4",
                  "exponent 1.1", "0.05 s of the same"):  # fmt: skip
        assert words in page.read_text(), words


def test_each_side_of_a_comparison_has_its_cost(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over all its rounds; and of the servers that are its own."""

    def behaviour(_: int, body: dict[str, Any]) -> Reply:
        return 0.01, 200, right(body)

    options = ["--repository", str(folder), "--requests", "20", "--rounds", "2", "--warm-up", "0",
               "--price-per-hour", "0.5"]  # fmt: skip
    pid = ["--server-pid", str(os.getpid())]  # both listen in this process
    with answering(behaviour) as (a, _), answering(behaviour) as (b, _):
        for more in ([], pid):
            assert cli.run(["load", a, "--compare", b, *options, *more, "--json"]) in (0, 1)
            found = json.loads(capsys.readouterr().out)
            assert found["costs"].keys() == {"a", "b"}
            for side, cost in enumerate(found["costs"].values()):
                runs = [pair[side] for pair in found["compare"]["rounds"]]
                right_, took = (sum(run[name] for run in runs) for name in ("right", "elapsed_s"))
                assert right_ == 40 and cost["pids"] == [os.getpid()]
                assert cost["per_dollar"] == pytest.approx(right_ / took * 3600 / 0.5)
                assert cost["per_core_second"] == pytest.approx(right_ / cost["cpu_s"])
        cli.run(["load", a, "--compare", b, *options])
    said = " ".join(capsys.readouterr().out.split())
    assert "A: The servers (processes" in said and "B: The servers (processes" in said


def test_a_run_without_an_answer_costs_nothing_that_could_be_told(folder: Path) -> None:
    found = Cost.of(
        right=0, recommended=0, elapsed_s=0.0, servers=Servers(pids=(1,)), cpu_s=1.0, price=0.5
    )
    assert found.per_dollar is None and "nothing to tell" in found.said()


def test_a_result_is_json_whatever_was_wanted(folder: Path) -> None:
    plan = Plan(target="http://x", repository=folder, requests=5, mix=Mix.of("similar=1", "0.1"))
    none = Result(plan=plan, report=None, at="now", machine="this")
    told = json.loads(json.dumps(none.to_json(), allow_nan=False))
    assert told.keys() == {"passed", "measured", "at", "machine", "asked"}
    assert told["asked"]["mix"] == {"endpoints": {"similar": 1}, "filters": {"categories": 0.1}}
    recording = Recording()
    recording.add(Part("similar"), 0.0, 0.0, 1.0, Outcome(Fate.FAILED, "HTTP 500"))
    failed = report(plan, recording.rows(0.0))
    found = tuple(verdicts(objectives(["p99=25ms"]), failed))
    told = replace(none, report=failed, verdicts=found).to_json()
    json.dumps(told, allow_nan=False)
    assert told["objectives"][0]["seen"] is None and told["errors"] == {"HTTP 500": 1}


@pytest.mark.parametrize("right_b", [True, False], ids=["both are right", "B is wrong"])
def test_the_page_of_a_comparison_is_shown_whole_and_its_exit_code_is_of_both(
    right_b: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def b(number: int, body: dict[str, Any]) -> Reply:
        return 0.01, 200, right(body) if right_b or number % 10 else {"items": []}

    repository = write_release(tmp_path / "model_repository")
    page_file = tmp_path / "compared.html"
    options = ["--requests", "30", "-c", "2", "--rounds", "6", "--warm-up", "0.1", "--seed", "9",
               "--price-per-hour", "0.1", "--html", str(page_file), "--json"]  # fmt: skip
    with answering(lambda _, body: (0.0, 200, right(body))) as (one, _), answering(b) as (other, _):
        code = cli.run(["load", one, "--repository", str(repository), "--compare", other, *options])
    found = json.loads(capsys.readouterr().out)
    assert code == (0 if found["passed"] else 1)
    faults = sum(run["requests"] - run["right"] for _, run in found["compare"]["rounds"])
    assert (faults == 0) == right_b
    assert right_b or not found["passed"]
    with chromium() as browser:
        context = browser.new_context(offline=True)
        page = context.new_page()
        page.goto(page_file.as_uri())
        text = page.inner_text("main")
        for words in (f"A is {one}, B is {other}; 6 rounds", "B against A", "throughput", "p99",
                      "What it cost", "A: The servers", "B: The servers",
                      "closed loop, 2 callers, 30 requests", "recommend=1",
                      "0.1 s of the same"):  # fmt: skip
            assert words in text, words
        assert page.locator("svg[role=img]").count() == 1
        every = page.locator("details", has_text="Every round")
        every.locator("summary").click()
        assert every.locator("tbody tr").count() == 12
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        context.close()
