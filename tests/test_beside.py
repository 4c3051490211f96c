"""Similar items, the ranker and the explainer: in process, as ONNX and in a live Triton they say
what eager PyTorch says, and what the recommender says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from served import Stack
from test_backends import _triton
from trainings import fitted

from export.examples import batches
from export.parity import TOLERANCE, compare, onnx_answerer
from recommender.contract import (
    EXPLAINER,
    KINDS,
    RANKER,
    RECOMMENDER_ONNX,
    SIMILAR_ITEMS,
    Array,
    Kind,
    inputs,
)
from recommender.data.dataset import Dataset
from recommender.features import Request, tensors
from recommender.models.baselines import OneTable
from recommender.models.beside import modules
from recommender.models.explain import signal_names
from recommender.models.graph import answer
from recommender.runs import Run

Ask = Callable[[str, dict[str, Array]], Mapping[str, Array]]  # of a model, by name
BESIDE = KINDS[1:]
HOSTILE = (0, -1, 151, np.iinfo(np.int64).min, np.iinfo(np.int64).max)  # no item of 150


@pytest.fixture(scope="module", params=["onnx", "grpc", "http"])
def ask(request: pytest.FixtureRequest, repository: Path) -> Ask:
    if request.param == "onnx":
        return lambda model, a: onnx_answerer(repository / model / "1" / "model.onnx")(a)
    stack: Stack = request.getfixturevalue("stack")
    return lambda model, a: _triton(getattr(stack, request.param), model)(a)


def eager(run: Run, kind: Kind, arrays: dict[str, Array]) -> dict[str, Array]:
    limits = run.blueprint.limits
    return answer(modules(run.graph, limits)[kind], arrays, limits, kind)


def similar(run: Run, *query: int, **choice: Array) -> dict[str, Array]:
    """Inputs of similar_items, one row for each query item."""
    limits = run.blueprint.limits
    one = tensors([Request()], limits)
    arrays = {"query_item": np.array(query, np.int64)[:, None]}
    for name in ("exclude", "category_filter"):
        arrays[name] = choice.get(name, one[name]).repeat(len(query), axis=0)
    return arrays


def about(run: Run, kind: Kind, rows: int, candidates: Array) -> dict[str, Array]:
    """Inputs of the ranker or the explainer: known users, the first `candidates` [rows, any]."""
    limits = run.blueprint.limits
    arrays = tensors(
        [Request(history=run.users.history(r), request_time=1_740_000_000) for r in range(rows)],
        limits,
    )
    (tensor,) = (t for t in inputs(limits, kind) if t.name == "candidates")
    padded = np.zeros((rows, *tensor.dims), np.int64)
    some = candidates[:, : padded.shape[1]]
    padded[:, : some.shape[1]] = some
    return {t.name: {**arrays, "candidates": padded}[t.name] for t in inputs(limits, kind)}


@pytest.mark.parametrize("kind", BESIDE)
def test_answers_equal_eager_on_random_real_and_hostile_inputs(
    ask: Ask, run: Run, kind: Kind
) -> None:
    blueprint = run.blueprint
    sizes = set()
    for name, arrays in batches(
        blueprint.limits, blueprint.items, blueprint.clock, run.users, kind
    ):
        compare(eager(run, kind, arrays), ask(kind, arrays), name)
        sizes.add(len(next(iter(arrays.values()))))
    assert {1, 7, 64} <= sizes


@pytest.mark.parametrize("kind", BESIDE)
def test_a_row_alone_equals_the_same_row_in_a_batch(ask: Ask, run: Run, kind: Kind) -> None:
    candidates = np.arange(1, 65 * 30 + 1).reshape(65, 30)[:64] % 151
    arrays = similar(run, *range(64)) if kind == SIMILAR_ITEMS else about(run, kind, 64, candidates)
    together = ask(kind, arrays)
    for row in (0, 1, 31, 63):
        alone = ask(kind, {name: array[row : row + 1] for name, array in arrays.items()})
        compare({name: a[row : row + 1] for name, a in together.items()}, alone, f"row {row}")


# --- similar items


def test_an_item_is_not_similar_to_itself(ask: Ask, run: Run) -> None:
    items = ask(SIMILAR_ITEMS, similar(run, *range(1, 65)))["item"]
    for query, row in enumerate(items, 1):
        assert query not in row
        assert len(set(row)) == len(row) and (row > 0).all()


def test_similar_items_respect_exclusions_and_the_filter(ask: Ask, run: Run) -> None:
    limits, catalogue = run.blueprint.limits, run.blueprint.catalogue
    first = ask(SIMILAR_ITEMS, similar(run, 7))["item"][0]
    request = tensors([Request(exclude=first[:20])], limits)
    rest = ask(SIMILAR_ITEMS, similar(run, 7, exclude=request["exclude"]))["item"][0]
    assert rest[:80].tolist() == first[20:].tolist()
    (name, *_) = catalogue.categories_of(7)
    mask = tensors([Request(category_mask=catalogue.category_mask([name]))], limits)
    kept = ask(SIMILAR_ITEMS, similar(run, 7, category_filter=mask["category_filter"]))["item"][0]
    wanted = {i for i in range(1, 151) if name in catalogue.categories_of(i)} - {7}
    assert set(kept[kept > 0].tolist()) == wanted


def test_without_a_query_item_the_popular_ones_come(ask: Ask, run: Run) -> None:
    answered = ask(SIMILAR_ITEMS, similar(run, *HOSTILE))
    assert (answered["item"] == answered["item"][0]).all()
    popularity = run.graph.scorer.tables.popularity.numpy()[answered["item"][0]]
    assert (np.diff(popularity) <= 1e-2).all()  # scores are rounded: nearly equal ones may swap


def test_the_deep_model_knows_what_follows_an_item(run: Run) -> None:
    """In the synthetic data every item has a successor."""
    from recommender.data.synthetic import successor

    catalogue = run.blueprint.catalogue
    items = eager(run, SIMILAR_ITEMS, similar(run, *range(1, 151)))["item"]
    after = [catalogue.index(successor(catalogue.item_id(i), 150)) for i in range(1, 151)]
    assert np.mean([wanted in row[:10] for wanted, row in zip(after, items, strict=True)]) > 0.9


def test_similar_items_of_a_single_table_are_its_row(dataset: Dataset) -> None:
    run = fitted(dataset, family="item-knn")
    assert isinstance(run.graph.scorer, OneTable)
    tables = run.graph.scorer.tables
    row = (tables.similar_item[9].tolist(), tables.similar_weight[9].tolist())
    said, popular = dict(zip(*row, strict=True)), tables.popularity.numpy()
    item, score = eager(run, SIMILAR_ITEMS, similar(run, 9)).values()
    for index, value in zip(item[0][item[0] > 0], score[0], strict=False):
        assert value == pytest.approx(said.get(index, 0.0) + 1e-3 * popular[index], abs=1e-4)


# --- ranker and explainer


def test_the_ranker_gives_the_recommenders_scores(ask: Ask, run: Run) -> None:
    limits, excluded = run.blueprint.limits, np.arange(1, 81)  # of 150: the answers are short
    asked = [
        Request(history=run.users.history(r), request_time=1_740_000_000, exclude=excluded)
        for r in range(16)
    ]
    answered = ask(RECOMMENDER_ONNX, tensors(asked, limits))
    ranked = ask(RANKER, about(run, RANKER, 16, answered["item"]))["score"][:, : limits.answers]
    some = answered["item"] > 0
    assert some.any() and not some.all()
    assert np.abs(ranked[some] - answered["score"][some]).max() < TOLERANCE
    assert np.isneginf(ranked[~some]).all()
    scored = ask(RANKER, about(run, RANKER, 16, np.tile(excluded, (16, 1))))["score"]
    assert np.isfinite(scored[:, : len(excluded)]).all()  # what is excluded has a score, too


def test_signals_add_up_to_the_score_and_what_is_no_item_has_none(ask: Ask, run: Run) -> None:
    candidates = np.random.default_rng(0).integers(1, 151, (16, 32))
    candidates[:, : len(HOSTILE)] = HOSTILE
    parts = ask(EXPLAINER, about(run, EXPLAINER, 16, candidates))
    score = ask(RANKER, about(run, RANKER, 16, candidates))["score"][:, :32]
    known = np.isfinite(score)
    assert (known == ((candidates > 0) & (candidates < 151))).all()
    assert np.abs(parts["signal"].sum(axis=2) - score)[known].max() < TOLERANCE
    for part in parts.values():
        assert not part[~known].any() and part[known].any()


def test_signals_have_names_and_the_room_beside_them_is_empty(ask: Ask, run: Run) -> None:
    parts = ask(EXPLAINER, about(run, EXPLAINER, 4, np.arange(1, 129).reshape(4, 32)))
    names = signal_names(run.blueprint)
    for name in ("signal", "value"):
        assert parts[name].shape == (4, 32, run.blueprint.limits.signals)
        assert not parts[name][:, :, len(names) :].any()
    used = parts["signal"][:, :, : len(names)].any(axis=(0, 1))
    assert used.sum() > len(names) / 2
