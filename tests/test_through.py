"""`recserve evaluate --through URL`: what is served answers as well as what was evaluated."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from known_server import Behaviour, Reply, answering, write_release
from served import Stack, serving

from client.answers import Question, answers
from export.releases import publish
from recommender import config, protocols, runs
from recommender.contract import Array
from recommender.data.dataset import load
from recommender.data.synthetic import write_synthetic
from recommender.errors import Unavailable
from recommender.features import Request
from recommender.release import Release, read_release
from serving.cli import run as recserve
from serving.promotion import promote

TARGETS = ("grpc", "http", "url")  # of a Stack: Triton by gRPC, Triton by HTTP, Bento


SMALL = ("training.epochs=2", "encoder.width=16", "encoder.layers=1", "training.batch=32")


@pytest.fixture(scope="module")
def shop(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder with users of several kinds: a hundred leave half-way,
    the last fifty come in the test window."""
    folder = tmp_path_factory.mktemp("data") / "shop"
    shutil.copytree(data_folder, folder)
    (path,) = folder.glob("interactions.*")
    events = pl.read_csv(path, infer_schema=False).sort(pl.col("timestamp").cast(pl.Int64))
    row, user = pl.int_range(len(events)), pl.col("user_id")
    half, window = len(events) // 2, int(0.91 * len(events))
    leaves = user.is_between(pl.lit("user-000100"), pl.lit("user-000199")) & (row > half)
    late = (user >= "user-000250") & (row < window)
    events.filter(~leaves & ~late).write_csv(path)
    return folder


@pytest.fixture(scope="module")
def reports(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each protocol: one server each."""
    out, dataset = tmp_path_factory.mktemp("reports"), load(shop)[0]
    recipe = config.read("quick", settings=SMALL)
    for protocol in protocols.PROTOCOLS:
        protocols.evaluate(dataset, protocol, out, families=["deep"], config=recipe)
    return out


def _served(reports: Path, name: str, folder: Path) -> Iterator[Stack]:
    repository = folder / "model_repository"
    publish(runs.read(reports / "runs" / name), repository)
    with serving(repository, folder) as running:
        yield running


@pytest.fixture(scope="module")
def deep(reports: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    yield from _served(reports, "leave-one-out-deep", tmp_path_factory.mktemp("deep"))


@pytest.fixture(scope="module")
def temporal(reports: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    yield from _served(reports, "temporal-deep", tmp_path_factory.mktemp("temporal"))


@pytest.fixture(scope="module")
def newer(deep: Stack, reports: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository that `deep` serves, and a release 2 of the same run in it."""
    repository = tmp_path_factory.mktemp("newer") / "model_repository"
    shutil.copytree(deep.repository, repository)
    publish(runs.read(reports / "runs" / "leave-one-out-deep"), repository)
    promote(repository, 2)
    return repository


def _evaluate(folder: Path, reports: Path, address: str, repository: Path, *more: str) -> int:
    return recserve([
        "evaluate", str(folder), "--out", str(reports), "--through", address,
        "--repository", str(repository), *more,
    ])  # fmt: skip


def _means(figures: dict[str, Any]) -> dict[str, float]:
    return {
        f"{group} {metric}": round(value["mean"], 4)
        for group, metrics in figures.items()
        for metric, value in metrics.items()
    }


@pytest.mark.parametrize("target", TARGETS)
def test_leave_one_out_through_a_server_gives_the_figures_in_process(
    deep: Stack, shop: Path, reports: Path, target: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    address = getattr(deep, target)
    assert _evaluate(shop, reports, address, deep.repository) == 0
    printed = capsys.readouterr().out
    assert "ndcg@10" in printed and address in printed
    _same_figures(reports, "leave-one-out", address)


@pytest.mark.parametrize("target", TARGETS)
def test_the_temporal_protocol_with_users_without_history_does_so_too(
    temporal: Stack, shop: Path, reports: Path, target: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    address, flags = getattr(temporal, target), ("--protocol", "temporal", "--json")
    assert _evaluate(shop, reports, address, temporal.repository, *flags) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["queries"]["warm"] > printed["queries"]["no history"] > 20
    _same_figures(reports, "temporal", address)


def _same_figures(reports: Path, protocol: str, address: str) -> None:
    evaluated = json.loads((reports / f"{protocol}.json").read_text())
    through = json.loads((reports / f"{protocol}-through.json").read_text())
    assert through["queries"] == evaluated["queries"]
    assert _means(through["models"]["deep"]) == _means(evaluated["models"]["deep"])
    assert through["source"]["deep"]["url"] == address
    assert through["source"]["deep"]["release"] == 1
    agreement = through["agreement"]["deep"]
    assert agreement["same_lists"] == agreement["queries"] == evaluated["queries"]["all"]


@pytest.mark.parametrize("target", TARGETS)
def test_a_server_with_other_weights_under_the_same_number_is_found_out(
    stack: Stack, deep: Stack, shop: Path, reports: Path, target: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """`stack` serves a release 1 that has seen the test rows."""
    assert _evaluate(shop, reports, getattr(stack, target), deep.repository) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "is not what its run answers" in line
    through = json.loads((reports / "leave-one-out-through.json").read_text())
    assert through["models"]["deep"] != through["in_process"]["deep"]


@pytest.mark.parametrize("target", TARGETS)
def test_a_server_of_another_release_is_refused_with_the_remedy(
    deep: Stack, newer: Path, shop: Path, reports: Path, target: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert _evaluate(shop, reports, getattr(deep, target), newer) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "the run is release 2" in line
    assert "recserve releases promote 2" in line


def test_a_repository_without_the_run_is_refused(
    stack: Stack, shop: Path, reports: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _evaluate(shop, reports, stack.grpc, stack.repository) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "no release" in line and "recserve export" in line


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--models", "popularity"], "holds no run"),
        (["--models", "sasrec"], "does not exist"),
        (["--through", "ftp://127.0.0.1:1"], "no address of a server"),
        (["--through", "grpc://127.0.0.1:9"], "no Triton answers"),
        (["--through", "triton+http://127.0.0.1:9"], "no Triton answers"),
        (["--through", "http://127.0.0.1:9"], "no recserve answers"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_asked_is_named_in_one_line(
    deep: Stack, shop: Path, reports: Path, flags: list[str], named: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    code = _evaluate(shop, reports, "grpc://127.0.0.1:9", deep.repository, *flags)
    assert code == (2 if named.endswith(("exist", "server")) else 1)
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line


def test_a_run_of_other_rows_is_not_judged(
    reports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    write_synthetic(other, users=40, items=30, events=800, seed=9)
    assert _evaluate(other, reports, "grpc://127.0.0.1:9", tmp_path) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "was not trained on the leave-one-out rows" in line


def _asked_of(behaviour: Behaviour, release: Release, times: list[int]) -> Array:
    """The items that a service of that behaviour gives user-0, user-1, ... at `times`."""
    asked = [
        Question(user_id=f"user-{user}", request=Request(request_time=time))
        for user, time in enumerate(times)
    ]
    with answering(behaviour) as (url, _):
        items, _ = answers(url, release, asked, deadline_ms=50, progress=lambda *_: None)
    return items


def _reply(items: list[int], *, fallback: bool = False) -> Reply:
    ranked = [
        {"item_id": f"item-{item}", "score": -float(rank), "rank": rank, "categories": []}
        for rank, item in enumerate(items, start=1)
    ]
    rest = {"model": "m", "variant": "v", "ignored": [], "request_id": "r", "release": 1}
    return 0.0, 200, {"items": ranked, "fallback": fallback, **rest}


@pytest.fixture
def known(tmp_path: Path) -> Release:
    return read_release(write_release(tmp_path))


def test_each_user_is_asked_at_its_own_time_and_for_every_answer_there_is(known: Release) -> None:
    def behaviour(_: int, body: dict[str, Any]) -> Reply:
        assert body["deadline_ms"] == 50
        user = int(body["user_id"].removeprefix("user-"))
        return _reply([user + 1, body["context"]["time"] - 1_000_000, body["n"]])

    times = [1_000_010 + user for user in range(12)]
    items = _asked_of(behaviour, known, times)
    assert items.shape == (12, known.limits.answers)
    assert items[:, 0].tolist() == list(range(1, 13))
    assert items[:, 1].tolist() == list(range(10, 22))
    assert (items[:, 2] == known.limits.answers).all()
    assert not items[:, 3:].any()


def test_popular_items_are_asked_for_again_and_never_taken_for_the_model(known: Release) -> None:
    items = _asked_of(lambda number, _: _reply([7], fallback=number < 2), known, [1_000_000])
    assert items[0, 0] == 7
    with pytest.raises(Unavailable, match="popular items"):
        _asked_of(lambda *_: _reply([7], fallback=True), known, [1_000_000])
