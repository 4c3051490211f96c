"""`recserve tune-serving`: the search on stacks whose limits are known, and one real stack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import uvloop
from known_server import write_release
from test_load_use import reported

from client.load.objective import objectives
from client.load.plan import Plan
from client.load.report import Report
from export.serving_config import parse
from recommender.errors import MachineError
from recommender.release import read_release
from serving import tuning_stacks
from serving.tuning import Choice, Search, Staircase, TunedServing, space


def limit_of(choice: Choice) -> float:
    """Requests/s: best with 3 calls and a delay; instances and threads do not matter."""
    return 100 * (1.3 if choice.triton_calls == 3 else 1.0) * (
        1.2 if choice.queue_delay_us == 500 else 1.0
    )  # fmt: skip


class Stacks:
    """Stacks that hold a known rate; which ran, and how many at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.running = folder, list[str]()
        self.most = 0
        self.limits: dict[str, float] = {}

    @contextmanager
    def __call__(self, choice: Choice) -> Iterator[Plan]:
        address = f"http://{len(self.limits)}"
        self.limits[address] = limit_of(choice)
        self.running.append(address)
        self.most = max(self.most, len(self.running))
        try:
            yield Plan(target=address, repository=self.folder, requests=1)
        finally:
            self.running.remove(address)

    async def ask(self, plan: Plan) -> Report:
        assert plan.target in self.running
        limit = self.limits[plan.target]
        if plan.arrivals is None:
            return replace(reported(self.folder, 5), throughput=1.5 * limit)
        assert plan.arrivals.rate is not None
        return reported(self.folder, 5 if plan.arrivals.rate <= limit else 1000)


def tuned(folder: Path, *, until: float = float("inf"), base: Choice | None = None) -> TunedServing:
    stacks = Stacks(folder)
    search = Search(
        stacks, stacks.ask, objectives(["p99=25ms"]), run_s=1, until=until, say=lambda _: None
    )
    found = uvloop.run(search.run(base or Choice(), space(2), most=2))
    assert not stacks.running and stacks.most <= 3  # the best, a challenger; the base at the end
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("repository"))


@pytest.mark.parametrize("limit", [40.0, 100.0, 250.0])
def test_a_staircase_ends_where_the_objective_holds(limit: float) -> None:
    stairs = Staircase(rate=100)
    for _ in range(16):
        stairs.step(stairs.rate <= limit)
    assert 0.9 * limit <= stairs.reached <= 1.1 * limit


def test_the_best_settings_are_found_and_win_twice(folder: Path) -> None:
    found = tuned(folder)
    assert found.proposed == Choice(triton_calls=3, queue_delay_us=500)
    assert found.last is not None and found.last.won and found.last.best == Choice()
    won = [duel.challenger.over(duel.best) for duel in found.duels if duel.won]
    assert won == ["triton_calls 3", "queue_delay_us 500"]
    tried = [duel.challenger for duel in found.duels]
    assert len(set(tried)) == len(tried)
    assert all(choice.instances * choice.intra_op_threads <= 2 for choice in tried)


def test_what_is_best_already_stays(folder: Path) -> None:
    best = Choice(triton_calls=3, queue_delay_us=500)
    found = tuned(folder, base=best)
    assert found.proposed == best and found.last is None and found.duels


def test_an_objective_that_no_rate_holds_is_said(folder: Path) -> None:
    stacks = Stacks(folder)
    search = Search(
        stacks, stacks.ask, objectives(["p99=1ms"]), run_s=1, until=9e9, say=lambda _: None
    )
    with pytest.raises(MachineError, match="p99=1ms"):
        uvloop.run(search.run(Choice(), space(2), most=2))
    assert not stacks.running


def test_no_duel_begins_after_the_time_is_up(folder: Path) -> None:
    found = tuned(folder, until=0)
    assert not found.duels and found.proposed == Choice() and "time" in found.ended


def test_a_real_stack_serves_with_the_settings_and_leaves_the_repository(
    repository: Path, tmp_path: Path
) -> None:
    release = read_release(repository)
    model = release.models[0]
    config = repository / model / "config.pbtxt"
    before = config.read_text()
    choice = Choice(triton_calls=3, queue_delay_us=123, intra_op_threads=2)
    text = tuning_stacks.toml_of(release, replace(choice, batching=False))
    assert parse(text.encode(), "it").of(model).batching is False
    text = tuning_stacks.toml_of(release, choice)
    assert parse(text.encode(), "it").of(model).queue_delay_us == 123
    with tuning_stacks.serving(release, choice, tmp_path) as plan:
        answer = httpx.post(f"{plan.target}/v1/recommend", json={"n": 3}, timeout=20).json()
        assert len(answer["items"]) == 3 and not answer["fallback"]
        served = (plan.repository / model / "config.pbtxt").read_text()
        assert "max_queue_delay_microseconds: 123" in served
        weights = f"{model}/{release.version}/model.onnx"
        assert (plan.repository / weights).samefile(repository / weights)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{plan.target}/livez", timeout=5)
    assert config.read_text() == before and not (repository / "triton.toml").exists()


def test_other_settings_of_a_triton_toml_stay(repository: Path, tmp_path: Path) -> None:
    release = read_release(repository)
    copy = tmp_path / "copy"
    copy.mkdir()
    model = release.models[0]
    (copy / "triton.toml").write_text(
        f"queue_delay_us = 7\npreferred_batch_sizes = [8, 16]\n[{model}]\nwarmup = false\n"
        'kind = "cpu"\n[ranker]\ninstances = 2\n'
    )
    moved = replace(release, repository=copy)
    base = tuning_stacks.base_of(moved, calls=2)
    assert base == Choice(queue_delay_us=7)
    said = parse(tuning_stacks.toml_of(moved, replace(base, instances=2)).encode(), "it")
    assert said.of(model).instances == 2 and said.of(model).kind == "cpu"
    assert not said.of(model).warmup and said.of(model).preferred_batch_sizes == (8, 16)
    assert said.of("ranker").instances == 2 and said.everywhere.queue_delay_us == 7
