"""An open loop of load: on schedule whatever the server does, alone or in several processes."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop
from known_server import Reply, answering, right, write_release

from client.load.arrivals import Arrivals
from client.load.objective import holds, objectives
from client.load.plan import Plan
from client.load.recording import RIGHT, Part, Recording, merged
from client.load.report import Report, report
from client.load.result import Result, Wanted, examine
from client.load.session import Progress, run
from recommender.errors import BadInput, Unavailable
from serving import cli

WARM_UP = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("repository"))


def load(address: str, folder: Path, arrivals: Arrivals, **plan: Any) -> Report:
    return uvloop.run(run(Plan(target=address, repository=folder, arrivals=arrivals, **plan)))


def test_a_server_that_stalls_cannot_hide_it(folder: Path) -> None:
    """Coordinated omission: with one caller, only the request that met the stall would show it."""
    stalled: list[float] = []

    def behaviour(number: int, body: dict[str, Any]) -> Reply:
        if number == WARM_UP + 60:
            stalled.append(time.perf_counter())
            time.sleep(2)  # the whole server
        return 0.0, 200, right(body)

    every = Arrivals(kind="constant", rate=100, duration_s=3)
    with answering(behaviour) as (address, _):
        found = load(address, folder, every)
    assert stalled and found.requests == found.right == 300
    # Of 300 requests, 200 were due in the 2 s of the stall: their latencies go from 2 s to 0.
    assert found.latency_ms["max"] >= 1900
    assert found.latency_ms["p99"] >= 1850
    assert found.latency_ms["p90"] >= 1500
    second = found.seconds[1].p99_ms
    assert second is not None and second >= 1000  # due while nothing was answered

    with answering(lambda n, b: (2.0 if n == WARM_UP + 60 else 0.0, 200, right(b))) as (address, _):
        closed = uvloop.run(
            run(Plan(target=address, repository=folder, concurrency=1, requests=400))
        )
    assert closed.latency_ms["max"] >= 2000 > 2 * closed.latency_ms["p99"]  # what it hides


def test_requests_leave_on_schedule_whatever_is_under_way(folder: Path) -> None:
    with answering(lambda _, body: (0.5, 200, right(body))) as (address, server):
        found = load(address, folder, Arrivals(kind="constant", rate=100, duration_s=1))
    assert found.requests == found.right == 100
    assert server.most >= 30  # 50 by Little's law; a busy machine sends in bursts
    assert found.elapsed_s < 10  # 50 s one after another
    assert found.offered_rate == pytest.approx(100)


def test_who_finds_no_free_connection_waits_and_the_wait_counts(folder: Path) -> None:
    with answering(lambda _, body: (0.1, 200, right(body))) as (address, server):
        found = load(
            address, folder, Arrivals(kind="constant", rate=50, duration_s=1), connections=2
        )
    assert server.most == 2
    # 50 requests by 20 a second take 2.5 s; the last of them was due after 0.98 s.
    assert found.latency_ms["max"] >= 1400
    assert found.right == 50


def test_the_warm_up_is_asked_and_not_counted(folder: Path) -> None:
    with answering(lambda n, body: (0.3 if n < 40 else 0.0, 200, right(body))) as (address, server):
        arrivals = Arrivals(kind="constant", rate=50, duration_s=1)
        found = load(address, folder, arrivals, warm_up_s=1)
    assert found.requests == 50 and next(server.numbers) == WARM_UP + 50 + 50
    assert found.latency_ms["p50"] < 300


def test_a_generator_that_cannot_keep_up_is_refused_as_a_measurement(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["load", "--repository", str(folder), "--rate", "300000", "--requests", "1500000"]
    arguments += ["--warm-up", "0"]
    lenient = ["--slo", "p99=60s", "--slo", "errors=100%", "--slo", "refused=100%"]
    for objectives_ in ([], lenient):
        with answering(lambda _, body: (0.0, 200, right(body))) as (address, _):
            assert cli.run([*arguments, *objectives_, address]) == 1
        said = " ".join(capsys.readouterr().out.split())
        assert "No measurement: the generator could not keep up, it gave up on" in said
        assert "at most too long" not in said


@pytest.mark.parametrize("stated", [["p99=60s", "errors=100%"], ["errors=100%"]])
def test_requests_that_were_given_up_hold_no_objective(folder: Path, stated: list[str]) -> None:
    """The generator itself is held up for longer than it can catch up with: what was due then is
    not sent, and what is under way is not waited for. Each counts in the phase where it was due."""

    async def held_up() -> Result:
        loop = asyncio.get_running_loop()

        def behaviour(number: int, body: dict[str, Any]) -> Reply:
            if number == WARM_UP + 100:
                loop.call_soon_threadsafe(time.sleep, 2.6)
            return 0.3, 200, right(body)

        arrivals = Arrivals(kind="constant", rate=50, duration_s=4)
        with answering(behaviour) as (address, server):
            plan = Plan(target=address, repository=folder, arrivals=arrivals)
            wanted = Wanted(objectives=objectives(stated), command="true", duration_s=4)
            found = await examine(plan, wanted)
            assert found.report is not None
            answered = found.report.requests - found.report.unsent
            assert answered < next(server.numbers) - WARM_UP  # some of them had been sent
        return found

    found = uvloop.run(held_up())
    assert found.report is not None and found.during is not None
    assert found.report.requests == 200 and 60 < found.report.unsent < 200
    assert "it gave up on" in found.report.why_behind
    assert not found.measured and not found.passed
    assert not holds(objectives(stated), found.report)
    assert [one.held for one in found.verdicts] == [*(one != "p99=60s" for one in stated), True]
    phases = found.during.phases
    assert sum(one.requests for one in phases.values()) == 200
    assert sum(one.unsent for one in phases.values()) == found.report.unsent
    assert phases["after"].behind and phases["after"].failed >= phases["after"].unsent > 0
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told["unsent"] == found.report.unsent and not told["measured"]


def test_what_was_given_up_is_what_was_due_and_not_heard_of() -> None:
    recording = Recording()
    for due in (1.0, 2.0, 2.0, 4.0):
        recording.add(Part("recommend"), due, due, due, RIGHT)
    recording.give_up(np.array([0.5, 1.0, 2.0, 2.0, 2.0, 3.0, 4.0, 5.0]))
    rows = recording.rows(1.0)  # what was due before is warm-up
    assert rows.unsent.tolist() == [1.0, 2.0, 4.0] and len(rows) == 4
    assert rows.between(1.5, 4.0).unsent.tolist() == [0.5]
    assert len(merged([rows, rows]).unsent) == 6


def test_lateness_is_a_fault_of_the_generator_only_where_it_distorts(folder: Path) -> None:
    arrivals = Arrivals(kind="constant", rate=100, duration_s=10)
    plan = Plan(target="http://x", repository=folder, arrivals=arrivals)

    def late_by(late_s: float, latency_s: float, every: int = 1) -> Report:
        """Latency is from the sending; of those that are late alone."""
        recording = Recording()
        for i in range(1000):
            due = i / 100
            sent = due + (0 if i % every else late_s)
            done = sent + (0.2 if i % every else latency_s)
            recording.add(Part("recommend"), due, sent, done, RIGHT)
        return report(plan, recording.rows(0.0))

    assert late_by(0.0009, 0.002).passed  # too little to matter
    assert late_by(0.010, 0.600).passed  # less than 2% of what is measured
    for behind in (late_by(0.010, 0.300), late_by(0.010, 0.020), late_by(0.0015, 0.002)):
        assert behind.behind and not behind.passed
        assert behind.adds_ms["p50"] == pytest.approx(behind.lag_ms["p99"])
    # One in twenty is late and then answered quickly: no percentile shows it, the schedule does.
    bunched = late_by(0.100, 0.001, every=20)
    assert bunched.behind and bunched.adds_ms["p99"] == pytest.approx(0)
    assert "100.0 ms late" in bunched.why_behind


def test_a_busy_generator_of_a_closed_loop_is_refused(folder: Path) -> None:
    plan = Plan(target="http://x", repository=folder, duration_s=10)
    recording = Recording()
    for i in range(1000):
        recording.add(Part("recommend"), i / 100, i / 100, (i + 1) / 100, RIGHT)
    assert report(plan, recording.rows(0.0, busy=0.5)).passed
    behind = report(plan, recording.rows(0.0, busy=0.99))
    assert behind.behind and behind.busy == 0.99 and "99% of the time" in behind.why_behind


# Several processes.


def test_several_processes_ask_together_what_was_planned(folder: Path) -> None:
    seen: list[Progress] = []
    arrivals = Arrivals(kind="constant", rate=100, duration_s=2)
    with answering(lambda _, body: (0.05, 200, right(body))) as (address, server):
        plan = Plan(target=address, repository=folder, arrivals=arrivals, processes=2)
        found = uvloop.run(run(plan, progress=seen.append))
        assert (found.requests, found.right, found.processes) == (200, 200, 2)
        assert [second.sent for second in found.seconds] == [100, 100]
        assert next(server.numbers) == 2 * WARM_UP + 200
        plan = Plan(target=address, repository=folder, concurrency=3, requests=51, processes=2)
        found = uvloop.run(run(plan))
    assert found.requests == found.right == 51
    assert seen and seen[-1].right <= 200
    assert found.cpu_s > 0


def test_what_one_of_several_processes_meets_is_raised(folder: Path) -> None:
    plan = Plan(target="http://127.0.0.1:13299", repository=folder, processes=2, requests=10)
    with pytest.raises(Unavailable, match="none of 20 first requests to"):
        uvloop.run(run(plan))


def test_percentiles_of_several_recordings_are_those_of_all_latencies(folder: Path) -> None:
    """And not the mean of their percentiles."""
    parts = []
    for endpoint, ms in (("recommend", range(1, 100)), ("similar", range(100, 1001))):
        recording = Recording()
        for i in ms:
            recording.add(Part(endpoint), 0.0, 0.0, i / 1000, RIGHT)
        parts.append(recording.rows(0.0, cpu_s=1.0))
    plan = Plan(target="http://x", repository=folder, requests=1000, processes=2)
    found = report(plan, merged(parts))
    everything = np.arange(1, 1001)
    assert found.latency_ms["p50"] == pytest.approx(np.percentile(everything, 50))
    assert found.latency_ms["p99"] == pytest.approx(np.percentile(everything, 99))
    assert {name: share.requests for name, share in found.by.items()} == {
        "recommend": 99,
        "similar": 901,
    }
    assert found.cpu_s == 2


def test_more_processes_than_callers_are_refused(folder: Path) -> None:
    with pytest.raises(BadInput, match="Give every process at least one caller"):
        Plan(target="http://x", repository=folder, requests=1, concurrency=2, processes=3)


# The command.


def test_the_command_takes_every_kind_of_arrivals(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace.txt"
    trace.write_text("\n".join(str(1_700_000_000 + i / 50) for i in range(30)))
    fixed = ["load", "--repository", str(folder), "--json"]
    with answering(lambda _, body: (0.0, 200, right(body))) as (address, _):
        for kind in ("constant", "poisson", "ramp", "flash"):
            rate = ["--rate", "60", "--duration", "0.5", "--arrivals", kind]
            cli.run([*fixed, *rate, address])
            found = json.loads(capsys.readouterr().out)
            assert found["right"] + found["unsent"] == found["requests"] > 0
            assert found["concurrency"] is None and found["offered_rate"] > 0
        cli.run([*fixed, "--arrivals", "trace", "--trace", str(trace), address])
    assert json.loads(capsys.readouterr().out)["requests"] == 30


@pytest.mark.parametrize(
    "arguments",
    [
        ["--arrivals", "sometimes", "--rate", "5"],
        ["--arrivals", "flash"],
        ["--arrivals", "trace", "--rate", "5"],
        ["--arrivals", "ramp", "--rate", "5", "--requests", "5"],
        ["--mix", "recommend=1,dance=2"],
        ["--filtered", "1.5"],
        ["--rate", "1000000", "--duration", "1000"],
    ],
)
def test_what_makes_no_sense_is_bad_usage(
    folder: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["load", "http://x:1", "--repository", str(folder), *arguments]) == 2
    assert capsys.readouterr().err
