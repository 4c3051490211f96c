"""Promotions and rollbacks of a live stack: nobody notices, and what is refused changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from scale import often
from served import Stack, Threads, serving
from triton_process import wait_until
from two_catalogues import MODEL, OTHER
from worse_releases import reseal

from client.service import RecserveClient
from export import golden
from export.releases import publish
from recommender import heldout
from recommender.errors import ReleaseError
from recommender.release import read_index, read_release
from recommender.runs import Run
from serving import cli
from serving.promotion import promote, rollback


@pytest.fixture(scope="module")
def repository(one: Run, other: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Releases 1 and 2 answer with different items."""
    folder = tmp_path_factory.mktemp("promotion") / "repository"
    assert [publish(run, folder) for run in (one, other)] == [1, 2]
    return folder


@pytest.fixture(scope="module")
def stack(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with serving(repository, tmp_path_factory.mktemp("serve")) as running:
        yield running


class Callers(Threads):
    """Ask for recommendations without a pause, and look at every answer."""

    def __init__(self, url: str, users: int, count: int = 4) -> None:
        super().__init__(count)
        self._url, self._users = url, users
        self.seen: Counter[int] = Counter()  # release -> answers
        self.wrong: list[str] = []

    def _call(self, number: int) -> None:
        user = number
        with RecserveClient(self._url) as bento:
            while not self._stop.is_set():
                user = (user + 7) % self._users
                try:
                    answer = bento.recommend(user_id=f"u{user}", n=5, deadline_ms=2000)
                except Exception as error:  # whatever it is, the promotion was noticed
                    self.wrong.append(repr(error))
                    continue
                self.seen[answer.release] += 1
                theirs = {item.item_id.startswith(OTHER) for item in answer.items}
                if answer.fallback or theirs != {answer.release == 2}:
                    self.wrong.append(repr(answer))


def loaded(stack: Stack, version: int) -> bool:
    url = stack.http.replace("triton+", "")
    return httpx.get(f"{url}/v2/models/{MODEL}/versions/{version}/ready").status_code == 200


@pytest.mark.parametrize(("loads", "turns"), [(2, 4), *often(2, 50, 9)])
def test_switches_under_load_fail_nobody_and_never_mix_releases(
    stack: Stack, repository: Path, loads: int, turns: int
) -> None:
    """`loads` times the other release is loaded for its turn, after which both are there and take
    `turns` turns, until the one that does not serve has been put away."""
    promote(repository, 1)
    with Callers(stack.url, users=300) as callers:
        for load in range(loads):
            there, other = 1 + load % 2, 2 - load % 2
            wait_until(lambda gone=other: not loaded(stack, gone), "it is not put away")
            promote(repository, other)
            assert loaded(stack, there), "it is there until its requests have ended"
            for turn in range(turns):
                if turn % 2:
                    promote(repository, other)
                else:
                    assert rollback(repository) == there
            promote(repository, other)
    assert not callers.wrong, callers.wrong[0]
    assert min(callers.seen[1], callers.seen[2]) > 20
    assert read_index(repository).serving == 1 + loads % 2


def test_what_serves_is_told(stack: Stack, repository: Path) -> None:
    promote(repository, 1)
    with RecserveClient(stack.url) as bento:
        served = bento.release()
    assert (served.release, served.models[0]) == (1, MODEL)
    assert served.created == read_release(repository, 1).details["created"]


def spoilt_golden(home: Path) -> None:
    """Its model answers as it should, but something else was promised."""
    with np.load(home / golden.FILE) as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays["0/outputs/score"] = arrays["0/outputs/score"] + 1
    np.savez_compressed(home / golden.FILE, **arrays)


def spoilt_model(home: Path) -> None:
    """Without scores."""
    model = onnx.load(home / "model.onnx")
    model.graph.output.pop()
    onnx.save(model, home / "model.onnx")


@pytest.mark.parametrize(
    ("spoil", "checksum", "reason"),
    [
        (spoilt_golden, True, r"golden request of popularity_onnx, random, batch 1"),
        (spoilt_model, True, "Triton did not load popularity_onnx"),
        (spoilt_model, False, "model.onnx is corrupted"),
    ],
)
def test_a_release_that_is_not_as_it_was_is_refused_and_the_old_one_serves(
    stack: Stack, repository: Path, one: Run, spoil: Callable[[Path], None], checksum: bool,
    reason: str,
) -> None:  # fmt: skip
    promote(repository, 1)
    bad = publish(one, repository)
    home = repository / MODEL / str(bad)
    spoil(home)
    if checksum:
        reseal(home)
    with Callers(stack.url, users=300) as callers, pytest.raises(ReleaseError, match=reason):
        promote(repository, bad)
    assert not callers.wrong
    assert read_index(repository).serving == 1
    assert loaded(stack, 1)
    assert not loaded(stack, bad)


def test_a_clearly_worse_release_is_refused(one: Run, tmp_path: Path) -> None:
    good = dict.fromkeys(one.held_out, 0.6)
    slightly = {user: 0.6 - 0.1 * (row % 2 - 0.45) for row, user in enumerate(good)}
    for run in (one, replace(one, held_out=good), replace(one, held_out=slightly)):
        publish(run, tmp_path)
    promote(tmp_path, 2)
    with pytest.raises(ReleaseError, match=r"less release 2, NDCG@10 on the same held-out .*worse"):
        promote(tmp_path, 1)
    assert read_index(tmp_path).serving == 2
    said: list[str] = []
    promote(tmp_path, 3, say=said.append)  # within the interval
    assert "+0.0" in said[0] or "-0.0" in said[0]
    promote(tmp_path, 1, accept_worse=True)
    assert rollback(tmp_path) == 3
    assert rollback(tmp_path) == 1  # back and forth


def test_a_pipeline_promotes_the_newest_release_by_that_name(one: Run, tmp_path: Path) -> None:
    for _ in range(2):
        publish(one, tmp_path)

    def promoted(which: str) -> int:
        return cli.run(["releases", "promote", which, "--repository", str(tmp_path)])

    assert promoted("latest") == 2
    assert read_index(tmp_path).serving == 1
    assert promoted("newest") == 0
    assert read_index(tmp_path).serving == 2


def test_a_rollback_needs_a_release_to_go_back_to(one: Run, tmp_path: Path) -> None:
    publish(one, tmp_path)
    with pytest.raises(ReleaseError, match="no release served before release 1"):
        rollback(tmp_path)


def test_figures_of_other_data_are_compared_as_independent_means() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(400)
    old = {f"u{i}": float(v) for i, v in enumerate(base)}
    new = {f"u{i}": float(v) - 0.02 for i, v in enumerate(base)}
    paired = heldout.difference(new, old, same_questions=True)
    apart = heldout.difference(new, old, same_questions=False)
    assert paired is not None and apart is not None
    assert paired.mean == pytest.approx(apart.mean) == pytest.approx(-0.02)
    assert paired.half < 1e-6 < 0.03 < apart.half
    assert heldout.difference(new, {}, same_questions=True) is None


def test_gc_keeps_the_newest_and_what_serves(one: Run, tmp_path: Path) -> None:
    for _ in range(5):
        publish(one, tmp_path)
    promote(tmp_path, 2)
    assert cli.run(["releases", "gc", "--keep", "1", "--repository", str(tmp_path)]) == 0
    assert sorted(read_index(tmp_path).releases) == [1, 2, 5]  # 1 served before 2
    assert not (tmp_path / MODEL / "3").exists()
    read_release(tmp_path)
