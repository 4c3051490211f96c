"""A closed loop of load against servers whose delay, errors and wrong answers are known."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from known_server import Reply, answering, right, seen_by, write_release
from served import Stack

from client.load.recording import RIGHT, Fate, Outcome, Part, Recording
from client.load.report import Report, report
from client.load.sending.checking import Expected, fault
from client.load.session import Plan, run
from recommender.errors import BadInput, ReleaseError, Unavailable
from serving import cli

WARM_UP = 20  # what the generator asks before it records, with few workers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("repository"))


def load(address: str, folder: Path, **plan: Any) -> Report:
    return asyncio.run(run(Plan(target=address, repository=folder, **plan)))


# Speed: bounds that hold however busy the machine is.


def test_a_server_of_known_delay_is_never_measured_as_faster(folder: Path) -> None:
    with answering(lambda _, body: (0.02, 200, right(body))) as (address, server):
        found = load(address, folder, concurrency=4, requests=100)
    assert found.passed and found.requests == found.right == 100
    assert server.paths == {"/v1/recommend"}
    assert next(server.numbers) == 100 + WARM_UP
    assert server.most == 4  # as many callers as asked for, and no more
    assert found.latency_ms["p50"] >= 20
    assert found.elapsed_s >= 100 / 4 * 0.02
    assert found.throughput == pytest.approx(100 / found.elapsed_s)


def test_slow_answers_show_in_the_tail(folder: Path) -> None:
    def behaviour(number: int, body: dict[str, Any]) -> Reply:
        return (0.3 if number % 10 == 0 else 0.0), 200, right(body)

    with answering(behaviour) as (address, _):
        found = load(address, folder, concurrency=1, requests=50)
    assert found.latency_ms["p95"] >= 300 > found.latency_ms["p50"]


def test_the_warm_up_counts_only_when_it_brings_no_answer_at_all(folder: Path) -> None:
    def behaviour(number: int, body: dict[str, Any]) -> Reply:
        return (0.0, 200, right(body)) if number >= WARM_UP else (0.0, 500, {})

    with answering(behaviour) as (address, _), pytest.raises(Unavailable, match="HTTP 500"):
        load(address, folder, requests=10)  # a warm-up without one answer is refused
    with answering(lambda n, b: (0.0, 200 if n else 500, right(b))) as (address, _):
        assert load(address, folder, concurrency=1, requests=10).passed


def test_a_duration_ends_the_run(folder: Path) -> None:
    with answering(lambda _, body: (0.01, 200, right(body))) as (address, _):
        found = load(address, folder, concurrency=2, duration_s=0.3)
    assert found.passed and found.elapsed_s >= 0.3
    assert found.requests <= 2 * 0.3 / 0.01 + 2


def test_percentiles_are_those_of_the_latencies(folder: Path) -> None:
    recording, twice = Recording(), Outcome(Fate.WRONG, "an item twice")
    for i in range(1, 101):
        at = 0.02 * (i - 1)  # when it was due; the last answer is there at 1.98 + 0.1 s
        recording.add(Part("recommend"), at, at, at + i / 1000, twice if i % 10 == 0 else RIGHT)
    plan = Plan(target="http://x", repository=folder, requests=100)
    found = report(plan, recording.rows(0.0))
    known = {"mean": 50.5, "p50": 50.5, "p90": 90.1, "p95": 95.05, "p99": 99.01, "max": 100}
    assert {name: found.latency_ms[name] for name in known} == pytest.approx(known)
    assert found.throughput == pytest.approx(90 / 2.08)  # right answers only
    assert found.wrong == {"an item twice": 10} and not found.passed
    assert [second.sent for second in found.seconds] == [50, 50]


# Errors are counted exactly, by kind.


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        pytest.param((0.0, 500, {}), "HTTP 500", id="an HTTP error"),
        pytest.param((0.0, 200, b"<html>"), "an answer that is none of /v1/recommend", id="HTML"),
        pytest.param(
            (0.0, 200, {"items": [{}]}), "an answer that is none of /v1/recommend", id="no fields"
        ),
        pytest.param(
            (0.0, 0, None),
            "the connection was lost (closed by the server)",
            id="a connection that is closed",
        ),
    ],
)
def test_a_known_error_rate_is_counted_exactly(folder: Path, reply: Reply, kind: str) -> None:
    def behaviour(number: int, body: dict[str, Any]) -> Reply:
        return reply if number >= WARM_UP and number % 4 == 0 else (0.0, 200, right(body))

    with answering(behaviour) as (address, _):
        found = load(address, folder, concurrency=4, requests=200)
    assert found.errors == {kind: 50}
    assert (found.requests, found.right, found.passed) == (200, 150, False)


def test_fallbacks_are_counted_and_checked_too(folder: Path) -> None:
    def behaviour(number: int, body: dict[str, Any]) -> Reply:
        answer = right(body) | {"fallback": number % 4 == 0}
        if number % 8 == 0:
            del answer["items"][1]
        return (0.05 if number % 8 == 4 else 0.0), 200, answer

    with answering(behaviour) as (address, _):
        found = load(address, folder, concurrency=4, requests=200)
    assert found.errors == {"fallback: the model did not answer": 25}
    assert found.fallback_ms["p50"] >= 50 > found.latency_ms["p50"]  # a latency of their own
    assert found.wrong == {"9 items instead of 10": 25}
    assert (found.fallbacks, found.right, found.passed) == (25, 150, False)


@pytest.mark.parametrize("status", [429, 503])
def test_refusals_are_counted_apart_with_their_own_latency(folder: Path, status: int) -> None:
    def behaviour(number: int, body: dict[str, Any]) -> Reply:
        if number >= WARM_UP and number % 4 == 0:
            return 0.0, status, {}
        return 0.05, 200, right(body)

    with answering(behaviour) as (address, _):
        found = load(address, folder, concurrency=4, requests=80)
    assert found.refused == {f"HTTP {status}": 20}
    assert not found.errors and found.right == 60
    assert found.refused_ms["p50"] < 50 <= found.latency_ms["p50"]
    assert found.passed  # who was refused was told so in time


def test_nothing_but_refusals_is_no_success(folder: Path) -> None:
    with answering(lambda n, body: (0.0, 200 if n < WARM_UP else 429, right(body))) as (address, _):
        found = load(address, folder, concurrency=4, requests=20)
    assert found.refused == {"HTTP 429": 20} and not found.passed


def test_an_answer_that_does_not_come_is_given_up(folder: Path) -> None:
    def behaviour(number: int, body: dict[str, Any]) -> Reply:
        return (30.0 if number == WARM_UP else 0.0), 200, right(body)

    with answering(behaviour) as (address, _):
        found = load(address, folder, concurrency=1, requests=10, timeout_s=1)
    assert found.errors == {"no answer within 1 s": 1}
    assert found.right == 9


def test_a_server_that_is_not_there_is_said_at_once(folder: Path) -> None:
    for address in ("http://127.0.0.1:13299", "grpc://127.0.0.1:13299"):
        with pytest.raises(Unavailable, match="none of 20 first requests to"):
            load(address, folder, concurrency=1, requests=10)


# Wrong answers are found, whatever the status says.


def changed(**change: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The right answer with one thing wrong in its second item."""

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        found = right(body)
        found["items"][1] |= {k: v(body) if callable(v) else v for k, v in change.items()}
        return found

    return answer


def first_seen(body: dict[str, Any]) -> str:
    return f"item-{seen_by(int(body['user_id'].removeprefix('user-')))[0]}"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (lambda body: right(body | {"n": 9}), "9 items instead of 10"),
        (lambda body: right(body | {"n": 11}), "11 items instead of 10"),
        (changed(item_id=lambda b: right(b)["items"][0]["item_id"]), "an item twice"),
        (changed(item_id="item-61"), "an item outside the catalogue"),
        (changed(item_id=first_seen), "an item the user has seen"),
        (changed(score=0.01), "scores not in order"),
        (
            lambda body: right(body) | {"release": 2},
            "release 2, which the repository does not hold",
        ),
    ],
)
def test_a_wrong_answer_is_found(
    folder: Path, answer: Callable[[dict[str, Any]], Any], kind: str
) -> None:
    def behaviour(number: int, body: dict[str, Any]) -> Reply:
        return 0.0, 200, answer(body) if number % 5 == 0 else right(body)

    with answering(behaviour) as (address, _):
        found = load(address, folder, concurrency=2, requests=50)
    assert found.wrong == {kind: 10}
    assert not found.errors and found.right == 40 and not found.passed


def test_a_score_that_is_no_number_is_found() -> None:
    """JSON has none; Triton's tensors may."""
    ids = frozenset({"a", "b"})
    expected = Expected(
        items=2, seen=frozenset(), excluded=frozenset(), allowed=None, catalogue=ids
    )
    assert fault(["a", "b"], [2.0, 1.0], expected) is None
    for score in (float("nan"), float("-inf")):
        assert fault(["a", "b"], [2.0, score], expected) == "a score that is no number"


def test_a_catalogue_that_is_nearly_used_up_may_answer_with_fewer(folder: Path) -> None:
    with answering(lambda _, body: (0.0, 200, right(body | {"n": 60}))) as (address, _):
        assert load(address, folder, requests=20, n=60).passed  # 55 of 60 items are left
    with answering(lambda _, body: (0.0, 200, right(body | {"n": 54}))) as (address, _):
        assert load(address, folder, requests=20, n=60).wrong == {"54 items instead of 55": 20}


# The three targets, on the real servers and a trained release.


@pytest.mark.parametrize("target", ["url", "grpc", "http"])
def test_a_running_stack_answers_rightly_on_every_target(stack: Stack, target: str) -> None:
    found = load(getattr(stack, target), stack.repository, concurrency=8, requests=100)
    assert (found.errors, found.wrong) == ({}, {})
    assert found.passed and found.requests == 100


@pytest.mark.parametrize("target", ["grpc", "http"])
def test_triton_is_asked_for_the_model_that_is_named(stack: Stack, target: str) -> None:
    address = getattr(stack, target)
    assert load(address, stack.repository, requests=20, model="recommender_torchscript").passed
    with pytest.raises(Unavailable, match="Triton has no such model"):
        load(address, stack.repository, requests=1, model="nothing")


# The command.


def test_the_command_prints_json_and_fails_on_any_error(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["load", "--repository", str(folder), "-c", "2", "--requests", "40", "--json"]
    arguments += ["--warm-up", "0"]
    with answering(lambda _, body: (0.0, 200, right(body))) as (address, _):
        assert cli.run([*arguments, address]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["target"], found["release"], found["right"]) == (address, 1, 40)
    assert found["passed"] and found["measured"] and found["machine"] and found["at"]
    assert list(found["latency_ms"]) == ["mean", "p50", "p90", "p95", "p99", "p99.9", "max"]
    with answering(lambda n, body: (0.0, 500 if n == 30 else 200, right(body))) as (address, _):
        assert cli.run([*arguments, address]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["errors"] == {"HTTP 500": 1}
    assert found["measured"] and not found["passed"]


def test_the_command_prints_a_table_that_names_the_faults(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    options = ["--requests", "40", "--warm-up", "0", "--seed", "3", "--zipf", "1.2"]
    with answering(lambda n, body: (0.0, 500 if n == 30 else 200, right(body))) as (address, _):
        assert cli.run(["load", "--repository", str(folder), *options, address]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("right/s", "p50 ms", "p95 ms", "p99 ms", "1 without an answer: HTTP 500",
                  "The generator used 0.", "of CPU time", "closed loop, 8 callers, 40 requests",
                  "mix recommend=1", "exponent 1.2", "seed 3", "warm-up none"):  # fmt: skip
        assert words in shown, words


@pytest.mark.parametrize(
    "address",
    ["ftp://x:1", "127.0.0.1:3000", "http://", "http://x:99999", "grpc://:1", "http://x:1/v1", ""],
)
def test_a_target_of_another_kind_is_refused(folder: Path, address: str) -> None:
    with pytest.raises(BadInput, match=r"Write http://"):
        load(address, folder, requests=1)


def test_a_repository_without_a_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="holds no release"):
        load("http://127.0.0.1:13299", tmp_path, requests=1)


def test_requests_and_duration_together_are_bad_usage(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ["--requests", "5", "--duration", "1"]
    assert cli.run(["load", "http://x", "--repository", str(folder), *both]) == 2
    assert "not both" in capsys.readouterr().err
