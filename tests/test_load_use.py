"""What is built upon the load generator: objectives, the search, a command, a comparison, cost."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop
from known_server import Reply, answering, at_once, command, right, write_release

from client.load.arrivals import Arrivals
from client.load.compare import interval_of_median, ratio
from client.load.cost import Meter, Servers, listening
from client.load.objective import Objective, Search, objectives, verdicts
from client.load.plan import Plan
from client.load.recording import RIGHT, Fate, Outcome, Part, Recording
from client.load.report import Report, report
from client.load.result import Wanted, examine
from recommender.errors import BadInput, MachineError
from serving import cli


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("repository"))


def reported(
    folder: Path, ms: float, *, rate: float = 100, errors: int = 0, late_ms: float = 0.0
) -> Report:
    """100 requests answered after `ms`, of which some were not; each was sent late by `late_ms`."""
    recording, failed = Recording(), Outcome(Fate.FAILED, "HTTP 500")
    for number in range(100):
        due = number / rate
        outcome = failed if number < errors else RIGHT
        sent = due + late_ms / 1000
        recording.add(Part("recommend"), due, sent, sent + ms / 1000, outcome)
    pace = Arrivals(rate=rate, duration_s=100 / rate)
    return report(Plan(target="http://x", repository=folder, arrivals=pace), recording.rows(0.0))


# Objectives


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("p99=25ms", Objective("p99", 25.0)),
        ("p50 = 1.5s", Objective("p50", 1500.0)),
        ("p95=800us", Objective("p95", 0.8)),
        ("errors=0.1%", Objective("errors", 0.001)),
        ("refused=5%", Objective("refused", 0.05)),
    ],
)
def test_an_objective_is_read_as_it_is_written(text: str, wanted: Objective) -> None:
    found = Objective.of(text)
    assert (found.name, found.limit) == (wanted.name, pytest.approx(wanted.limit))
    assert Objective.of(str(found)) == found  # and written as it is read


@pytest.mark.parametrize("text", ["p99", "p99=25", "p98=1ms", "p99=0ms", "p99=1%", "errors=1ms",
                                  "errors=-1%", "", "p99=25 parsecs"])  # fmt: skip
def test_what_is_no_objective_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="p99=25ms") as refused:
        Objective.of(text)
    assert refused.value.field == "--slo"


def test_what_is_not_stated_is_allowed_to_nobody(folder: Path) -> None:
    stated = objectives(["p99=25ms"])
    assert all(one.held for one in verdicts(stated, reported(folder, 20)))
    late, errors, refused = verdicts(stated, reported(folder, 30, errors=1))
    assert (late.held, errors.held, refused.held) == (False, False, True)
    assert errors.seen == 0.01 and "30.00 ms" in late.shown
    lenient = objectives(["p99=25ms", "errors=2%"])
    assert all(one.held for one in verdicts(lenient, reported(folder, 20, errors=1)))
    with pytest.raises(BadInput, match="stated twice"):
        objectives(["p99=25ms", "p99=30ms"])


def test_no_answer_at_all_holds_no_latency(folder: Path) -> None:
    (late, *_) = verdicts(objectives(["p99=25ms"]), reported(folder, 1, errors=100))
    assert not late.held and late.shown == "not known"


# The search, where the latency of each rate is known; a real one: test_load_use_docs.py.


def searched(
    folder: Path,
    limit: float,
    resolution: float,
    *,
    first: float = 2,
    late: float = math.inf,
    late_ms: float = 0.0,
    slow_ms: float = 1000,
) -> Any:
    """Against one that takes 5 ms up to `limit` requests/s, and `slow_ms` above; by a generator
    that sends late by `late_ms` above a rate of `late`."""

    async def ask(plan: Plan) -> Report:
        if plan.arrivals is None:
            return replace(reported(folder, 5), throughput=first * limit)
        rate = plan.arrivals.rate
        assert rate is not None and plan.arrivals.kind == "poisson"
        took = 5 if rate <= limit else slow_ms
        return reported(folder, took, rate=rate, late_ms=late_ms if rate > late else 0.0)

    search = Search(
        Plan(target="http://x", repository=folder, requests=1), objectives(["p99=25ms"]), ask,
        trial_s=2, last_s=10, resolution=resolution, say=lambda _: None,
    )  # fmt: skip
    return uvloop.run(search.run())


@pytest.mark.parametrize("limit", [3.3, 100, 4321.0])
def test_the_highest_rate_is_found_to_the_resolution(folder: Path, limit: float) -> None:
    found = searched(folder, limit, 0.05)
    assert found.rate <= limit < found.missed <= 1.05 * found.rate
    assert found.trials[-1].last and found.report is found.trials[-1].report
    assert all(trial.held == (trial.rate <= limit) for trial in found.trials)
    rates = [trial.rate for trial in found.trials]
    assert all(rates.count(rate) >= 2 for rate in rates[:-1])  # confirmed


def test_no_rate_may_hold(folder: Path) -> None:
    found = searched(folder, 0.5, 0.05)
    assert found.rate is None and found.report is None and "Not even 1.0" in found.said()


def test_what_the_generator_cannot_offer_is_no_limit_of_the_server(folder: Path) -> None:
    found = searched(folder, 10_000, 0.05, first=0.01, late=100, late_ms=990)
    assert found.missed is None and found.rate <= 100 and "could not offer more" in found.said()
    assert any(trial.starved for trial in found.trials)
    with pytest.raises(MachineError, match="could not keep up with 140"):
        searched(folder, 10_000, 0.05, first=0.02, late=100, late_ms=990)


def test_what_a_late_generator_found_too_slow_by_more_is_the_servers(folder: Path) -> None:
    found = searched(folder, 100, 0.05, late=0, late_ms=15, slow_ms=40)
    assert found.rate <= 100 < found.missed <= 1.05 * found.rate
    assert all(trial.report.behind for trial in found.trials)
    assert not any(trial.starved for trial in found.trials)


def test_an_objective_that_is_missed_at_a_fixed_rate_is_a_failure(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--rate", "60", "--duration", "0.5")
    with answering(lambda _, body: (0.05, 200, right(body))) as (address, _):
        assert cli.run(command(address, folder, *options, "--slo", "p50=40ms")) == 1
        assert "missed" in capsys.readouterr().out
        assert cli.run(command(address, folder, *options, "--slo", "p50=20s")) == 0
    with answering(lambda n, body: (0.0, 500 if n == 30 else 200, right(body))) as (address, _):
        assert cli.run(command(address, folder, *options, "--slo", "errors=0.1%")) == 1
        assert cli.run(command(address, folder, *options, "--slo", "errors=10%")) == 0


# A command in the middle of a run


def test_what_a_command_does_shows_where_it_ran(folder: Path, tmp_path: Path) -> None:
    flag = tmp_path / "broken"

    def behaviour(number: int, body: dict[str, Any]) -> Reply:
        return (0.0, 500, {}) if flag.exists() else (0.0, 200, right(body))

    line = f"echo broken; touch {flag}; sleep 0.5; rm {flag}"
    pace = Arrivals(kind="constant", rate=50, duration_s=5)
    wanted = Wanted(command=line, duration_s=5)
    with answering(behaviour) as (address, _):
        plan = Plan(target=address, repository=folder, arrivals=pace, warm_up_s=0.2)
        found = uvloop.run(examine(plan, wanted))
    assert found.during is not None and found.report is not None
    ran, phases = found.during.command, found.during.phases
    assert (ran.code, ran.output) == (0, "broken")
    assert ran.began_s >= 1.6 and ran.ended_s - ran.began_s >= 0.5
    assert list(phases) == ["before", "during", "after"]
    assert sum(one.requests for one in phases.values()) == found.report.requests == 250
    assert phases["before"].right > 0
    assert phases["during"].errors["HTTP 500"] > 0
    assert phases["after"].right == phases["after"].requests > 0
    assert not found.passed  # errors that no objective allows
    assert phases["before"].offered_rate == pytest.approx(50, rel=0.1)


def test_a_command_that_fails_is_a_failure(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--rate", "30", "--duration", "0.9", "--during")
    with answering(at_once) as (address, _):
        assert cli.run(command(address, folder, *options, "exit 7", "--slo", "p50=60s")) == 1
        assert "exit 7: exit code 7" in capsys.readouterr().out
        assert cli.run(command(address, folder, *options, "true", "--slo", "p50=60s")) == 0
    assert cli.run(command(address, folder, "--during", "true", "--requests", "5")) == 2


def test_a_command_is_ended_when_the_run_fails(folder: Path, tmp_path: Path) -> None:
    wanted = Wanted(command="sleep 600", duration_s=1)
    plan = Plan(target="http://127.0.0.1:13299", repository=folder, duration_s=1)
    with pytest.raises(Exception, match="none of 20 first requests to"):
        uvloop.run(examine(plan, wanted))


# A comparison


def test_the_interval_of_a_median_is_that_of_order_statistics() -> None:
    assert interval_of_median([3, 1, 2, 6, 5, 4]) == (1, 6, 1 - 2 / 64)
    low, high, confidence = interval_of_median(range(1, 21))
    assert (low, high) == (6, 15) and confidence == pytest.approx(0.9586, abs=1e-4)
    assert interval_of_median([7.0])[:2] == (7.0, 7.0)
    random = np.random.default_rng(0)
    held = [
        low <= 1 <= high
        for low, high, _ in (interval_of_median(random.normal(1, 1, 9)) for _ in range(2000))
    ]
    assert 0.94 <= sum(held) / 2000 <= 0.98  # 96.1% in theory


def test_few_rounds_say_so() -> None:
    assert not ratio([2.0] * 4).clear and ratio([2.0] * 6).clear
    assert not ratio([0.5, 0.9, 1.1, 1.2, 1.3, 2.0]).clear


def test_a_slower_target_is_told_from_a_faster_one(folder: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    def noted(name: str, delay: float) -> Any:
        def behaviour(number: int, body: dict[str, Any]) -> Reply:
            asked.append(name)
            return delay, 200, right(body)

        return behaviour

    with answering(noted("a", 0.04)) as (a, _), answering(noted("b", 0.0)) as (b, _):
        plan = Plan(target=a, repository=folder, concurrency=8, requests=24)
        found = uvloop.run(examine(plan, Wanted(against=b, rounds=6)))
    assert found.compare is not None and found.passed
    turns = [name for name, before in zip(asked, ["", *asked], strict=False) if name != before]
    # Whether both are there: ab; then ab, ba, ab, ...: neighbours of two rounds run into one.
    assert "".join(turns) == "ab" + "abababa"
    speed, p50 = found.compare.ratios["throughput"], found.compare.ratios["p50"]
    assert p50.median < 1 and len(speed.rounds) == 6
    assert speed.low <= speed.median <= speed.high and speed.confidence > 0.95


def test_a_comparison_goes_with_no_objective(folder: Path) -> None:
    options = ("--compare", "http://127.0.0.1:1", "--slo", "p99=1ms")
    assert cli.run(command("http://127.0.0.1:2", folder, *options)) == 2


# Cost


@pytest.fixture
def spinning() -> Iterator[int]:
    """A process whose child works for a while of CPU time, and who then listens."""
    code = (
        "import subprocess, sys, socket\n"
        "work = 'import time\\nwhile time.process_time() < 0.3: pass'\n"
        "subprocess.run([sys.executable, '-c', work])\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "print(listener.getsockname()[1], flush=True)\n"
        "input()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True)
    meter = Meter([process.pid])
    assert process.stdout is not None
    port = int(process.stdout.readline())
    try:
        assert 0.2 <= meter.cpu_s() <= 3  # of the child that has ended, too
        yield port
    finally:
        process.communicate("\n")


def test_cpu_time_is_that_of_a_process_and_its_children(spinning: int) -> None:
    (pid,) = listening([spinning])
    before = Meter([pid])
    assert before.cpu_s() < 0.5
    assert listening([]) == []


def test_processes_that_are_not_there_are_refused_before_anything_runs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(at_once) as (address, server):
        assert cli.run(command(address, folder, "--server-pid", "4194304")) == 2
    assert next(server.numbers) == 0 and "no process 4194304" in capsys.readouterr().err


def test_a_price_gives_recommendations_for_a_dollar(folder: Path) -> None:
    with answering(at_once) as (address, _):
        plan = Plan(target=address, repository=folder, requests=100)
        found = uvloop.run(
            examine(plan, Wanted(price_per_hour=0.5, servers=Servers(pids=(os.getpid(),))))
        )
    assert found.cost is not None and found.report is not None and found.cost.cpu_s is not None
    assert found.cost.per_dollar == pytest.approx(found.report.throughput * 3600 / 0.5)
    assert found.cost.per_core_second == pytest.approx(100 / found.cost.cpu_s)
    assert f"{found.cost.per_dollar:,.0f} recommendations" in found.cost.said()


def test_the_releases_of_each_phase_are_its_own(folder: Path, tmp_path: Path) -> None:
    """And none of the warm-up's."""
    flag = tmp_path / "promoted"

    def behaviour(number: int, body: dict[str, Any]) -> Reply:
        return 0.0, 200, right(body) | {"release": 2 if flag.exists() else 1}

    pace = Arrivals(kind="constant", rate=50, duration_s=3)
    # Not at once: on busy cores a request that was due before the command may be sent after that.
    wanted = Wanted(command=f"sleep 0.5; touch {flag}", duration_s=3)
    with answering(behaviour) as (address, _):
        plan = Plan(target=address, repository=folder, arrivals=pace, warm_up_s=0.5)
        found = uvloop.run(examine(plan, wanted))
    assert found.during is not None and found.report is not None
    phases = found.during.phases
    assert list(phases["before"].releases) == [1] and list(phases["after"].releases) == [2]
    for one in (found.report, *phases.values()):
        assert sum(one.releases.values()) == one.requests
