"""What k8s/ does with data: Redis keeps it, retraining and batch scoring read it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import bento_process
import pytest
import redis
import typer
from manifests import containers, main_container, workloads
from pod import running
from redis_pod import RedisPod

from serving.cli import app


def test_redis_keeps_what_it_acknowledged_when_it_is_killed_in_the_midst_of_a_write(
    tmp_path: Path,
) -> None:
    server = RedisPod(tmp_path)
    with suppress(AssertionError), server.runs() as process:  # it does not end with 0
        client = redis.Redis(port=server.port)
        client.set("acknowledged", "1")
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
    (written,) = (tmp_path / "data" / "appendonlydir").glob("*.incr.aof")
    with written.open("ab") as file:  # half of the next one
        file.write(b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$")
    with server.runs(), redis.Redis(port=server.port) as client:
        assert client.get("acknowledged") == b"1"
        assert client.config_get("aof-load-truncated") == {"aof-load-truncated": "no"}
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_redis_asks_for_a_password_once_its_secret_has_one(tmp_path: Path) -> None:
    server = RedisPod(tmp_path)
    (server.auth / "auth.conf").write_text("requirepass abc\n")
    command = [server.placed(part) for part in main_container("redis")["command"]]
    with running(command, os.environ, tmp_path / "log") as process:
        wait = bento_process.wait_until
        wait(lambda: server.answers(REDISCLI_AUTH="abc"), process, tmp_path / "log")
        assert not server.answers()  # the probe takes a refusal for what it is


def test_a_retraining_is_commands_of_recserve_that_exist_one_after_the_other() -> None:
    commands = {name: [c["command"] for c in containers(pod)] for name, pod in workloads().items()
                if name in ("retraining", "batch-scoring")}  # fmt: skip
    order = [command[1:3] for command in commands["retraining"]]
    assert [" ".join(words).partition(" /")[0] for words in order] == [
        "data from-store", "data check", "train", "evaluate", "export", "releases promote",
        "releases gc",
    ]  # fmt: skip
    for command in (command for some in commands.values() for command in some):
        assert command[0] == "recserve"
        # Arguments are read before --help is: an unknown flag or a missing word would show.
        arguments = [argument.replace("$(POD)", "x") for argument in command[1:]]
        parse(arguments)
    with pytest.raises(AssertionError, match="no-such-flag"):
        parse(["train", "/work/data", "--no-such-flag"])
    with pytest.raises(AssertionError, match="out"):
        parse(["train", "/work/data"])


def parse(arguments: list[str]) -> None:
    """By the command's own parser, without running it."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("recserve", arguments, resilient_parsing=True)
    while hasattr(command, "resolve_command"):
        _, command, arguments = command.resolve_command(context, arguments)
    try:
        command.make_context("command", arguments)
    except Exception as error:  # typer's own copy of click's UsageError
        raise AssertionError(str(error)) from error
