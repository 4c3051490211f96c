"""Peers answer as recserve does, and the page says what was measured."""

from __future__ import annotations

import importlib.util
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from served import Stack

from recommender.contract import RECOMMENDER_ONNX, RECOMMENDER_TORCHSCRIPT
from recommender.release import read_release

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
Import = Callable[[str], Any]
Ask = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Import:
    """Modules of benchmarks/ by their bare names, as its programs import them."""
    monkeypatch.syspath_prepend(str(BENCHMARKS / "peers"))
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def module(name: str) -> ModuleType:
        return importlib.import_module(name)

    return module


@pytest.fixture
def ask(stack: Stack) -> Iterator[Ask]:
    """Of the service, with the longest time that may be asked for: a model answers, not popular
    items."""
    with httpx.Client(base_url=stack.url, timeout=20) as http:

        def answer(body: dict[str, Any]) -> dict[str, Any]:
            found: dict[str, Any] = http.post(
                "/v1/recommend", json=body | {"deadline_ms": 2000}
            ).json()
            assert not found["fallback"]
            return found

        yield answer


@pytest.mark.parametrize("model", [RECOMMENDER_ONNX, RECOMMENDER_TORCHSCRIPT])
def test_a_peer_answers_as_the_service(stack: Stack, ask: Ask, load: Import, model: str) -> None:
    common, graphs, asking = load("common"), load("graphs"), load("serving_asking")
    saved = common.Saved(stack.repository, model)
    run = (graphs.onnx if model == RECOMMENDER_ONNX else graphs.torchscript)(saved.path)
    bodies = [
        *asking.bodies(saved.release),
        {"history": ["item-000007", "no such item"], "user_id": "user-000001", "n": 5},
    ]
    asked = [saved.asked(common.Body(**body)) for body in bodies]
    for body, told in zip(bodies, saved.answers(asked, run), strict=True):
        here, answer = ask(body), json.loads(common.encode(told))
        assert asking.difference(here, answer) is None
        assert here["ignored"] == answer["ignored"]


def test_another_answer_is_not_taken_for_the_same(ask: Ask, load: Import) -> None:
    difference = load("serving_asking").difference
    answer = ask({"user_id": "user-000001", "n": 10})
    assert difference(answer, answer) is None
    swapped, short, untitled = deepcopy(answer), deepcopy(answer), deepcopy(answer)
    items = swapped["items"]
    items[0]["item_id"], items[9]["item_id"] = items[9]["item_id"], items[0]["item_id"]
    assert difference(answer, swapped) is not None
    short["items"].pop()
    assert difference(answer, short) == "9 items instead of 10"
    untitled["items"][3]["title"] = "Another"
    assert "Another" in difference(answer, untitled)
    assert difference(answer, answer | {"fallback": True}) is not None


@pytest.mark.skipif(importlib.util.find_spec("fastapi") is None, reason="needs the extra bench")
def test_a_peer_is_started_paused_and_measured(
    repository: Path, tmp_path: Path, load: Import
) -> None:
    paths, asking = load("serving_paths"), load("serving_asking")
    peer = paths.PATHS[paths.ONNX].under({"WORKERS": "1"})
    with paths.all_paused([peer], repository, tmp_path) as (server,):
        tree = server.tree()
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/v1/recommend", json={"n": 1}, timeout=0.5)
        rate = asking.measured(server, repository, connections=4, seconds=0.5, warm_up_s=0.1)
        assert rate.rate > 0 < rate.cpu_ms
        assert 0 < rate.p50_ms <= rate.p99_ms
    assert not any(process.is_running() for process in tree)


def test_users_of_a_length_alone(repository: Path, tmp_path: Path, load: Import) -> None:
    from client.load.population import of_folder

    release = read_release(repository)
    folder_of, limits = load("serving_asking").folder_of, release.limits
    seen = 0
    for bucket in limits.length_buckets:
        folder = folder_of(release, bucket, tmp_path)
        if folder is not None:
            users = of_folder(folder, release.catalogue, limits.user_features)
            assert {limits.bucket(int(length)) for length in users.lengths} == {bucket}
            seen += len(users)
    assert seen == int((release.users.lengths > 0).sum())


def test_the_page_says_which_aims_were_reached(
    repository: Path, tmp_path: Path, load: Import
) -> None:
    figures, paths = load("serving_figures"), load("serving_paths")

    def rounds(rate: float, ms: float) -> list[dict[str, float]]:
        return [
            {
                "rate": rate * by,
                "p50_ms": ms,
                "p99_ms": 3 * ms,
                "cpu_ms": 1,
                "asked": 9,
                "wrong": 0,
                "behind": 0,
            }
            for by in (0.9, 1.0, 1.1)
        ]

    rates = {
        count: {
            paths.OURS: rounds(1900, 10),
            paths.TORCH: rounds(1000, 8),
            paths.ONNX: rounds(1600, 12),
            paths.BENTOML: rounds(500, 40),
            paths.LITSERVE: rounds(700, 30),
            figures.INLINE: rounds(2000, 9),
        }
        for count in ("1", "32", "64")
    }
    figures.keep(
        tmp_path,
        about=figures.about(read_release(repository), list(paths.PATHS.values())),
        how={"rounds": 3, "seconds": 1, "events_of_a_user": 5, "events": 10, "same": 4},
        rates=rates,
        lengths={"16": rates["32"]},
    )
    load("serving_page").write(tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "requests/s over FastAPI + torch, 32 connections | at least 1.8 x | 1.90 |" in page
    assert "requests/s over FastAPI + ORT, 64 connections | at least 1.2 x | 1.19 | " in page
    reached = [line.endswith("| yes |") for line in page.splitlines() if " x | " in line]
    # torch, ORT, BentoML, LitServe at 32 and 64; p99; median at 1; the store
    assert reached == [True, True, False, False, *4 * [True], False, False, True, True, True]
    rates["32"][paths.OURS][0]["wrong"] = 9  # popular items are fast, too
    figures.keep(tmp_path, rates=rates)
    load("serving_page").write(tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "Of 108 answers of recserve, 9 were not right." in page
    assert "| yes |" not in page
    for name in ("rate", "p99", "cpu"):
        drawn = ET.parse(tmp_path / f"benchmarks-{name}.svg")
        bars = [node for node in drawn.iter() if node.tag.endswith("rect") and len(node)]
        assert len(bars) == 3 * 5
        assert f"(benchmarks-{name}.svg)" in page
