"""What `recserve load` is asked for and cannot do is told at once, and nothing runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from known_server import answering, at_once, command, write_release

from serving import cli


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("repository"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--rate", "inf"), "--rate is inf"),
        (("--timeout", "inf"), "--timeout is inf"),
        (("--html", "/nowhere/x.html"), "there is no folder /nowhere"),
        (("--model", "other"), "--model is Triton's"),
        (("--rate", "0.01", "--duration", "0.1"), "no request is due"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_runs(
    folder: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, str], told: str
) -> None:
    with answering(at_once) as (address, server):
        assert cli.run(command(address, folder, *options)) != 0
        assert next(server.numbers) <= 20  # the first ones, whether anybody is there
    shown = capsys.readouterr().err
    assert told in " ".join(shown.split()) and "bug" not in shown


def test_both_targets_of_a_comparison_are_looked_for_first(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(at_once) as (address, server):
        away = "http://127.0.0.1:13299"
        assert cli.run(command(address, folder, "--compare", away, "--requests", "500")) == 1
        assert next(server.numbers) < 50  # none of the 500
    assert f"none of 20 first requests to {away}" in capsys.readouterr().err


def test_what_the_service_says_of_a_bad_request_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = {"error": {"field": "n", "value": 101, "remedy": "Ask for at most 100."}}
    with answering(lambda _, body: (0.0, 400, refusal)) as (address, _):
        assert cli.run(command(address, folder)) == 1
    assert "HTTP 400 (n: Ask for at most 100.)" in " ".join(capsys.readouterr().err.split())
