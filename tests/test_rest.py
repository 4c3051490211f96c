"""The rest of an item-to-item table: what the neighbours left out, held against dense numpy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from trainings import fitted, small

from recommender.contract import Array
from recommender.data.dataset import Dataset
from recommender.models.cold import place_in_matrix, place_in_table
from recommender.models.families import FAMILIES, fit_scorer
from recommender.models.itemtoitem import strongest
from recommender.models.rest import low_rank, taken_apart
from recommender.models.signals import Tables
from recommender.train import blueprint_of

ITEMS, SILENT = 40, [0, 7, 31]
HEARD = np.arange(ITEMS) % 11 * 3


def matrix() -> Array:
    """What each of some items says of every other, some of them nothing."""
    rng = np.random.default_rng(0)
    found = rng.normal(size=(ITEMS, ITEMS)).astype(np.float32) ** 3
    found[SILENT], found[:, SILENT] = 0.0, 0.0
    np.fill_diagonal(found, 0.0)
    return found


def test_neighbours_and_the_whole_rest_are_the_matrix() -> None:
    values = matrix()
    table, rest = taken_apart(values, HEARD, width=5, rank=ITEMS)
    assert (np.count_nonzero(table.weight, axis=1) <= 5).all()
    assert table.sparse().toarray() + rest.left @ rest.right == pytest.approx(values, abs=1e-4)
    kept = strongest(lambda rows: values[rows].copy(), ITEMS, 5)
    np.testing.assert_array_equal(table.item, kept.item)


def test_a_low_rank_is_nearest_of_its_rank_and_always_the_same() -> None:
    left_out = matrix()
    loud = np.sqrt(1.0 + HEARD)[:, None]  # the sums of histories are to be near
    sizes = np.linalg.svd(loud * left_out, compute_uv=False)
    for rank in (1, 4, 16):
        rest = low_rank(left_out, rank, HEARD)
        assert rest.left.shape == rest.right.T.shape == (ITEMS, rank)
        missed = np.linalg.norm(loud * (left_out - rest.left @ rest.right))
        assert missed < 1.02 * np.linalg.norm(sizes[rank:])  # Eckart and Young: none is below it
        torch.manual_seed(rank)
        np.testing.assert_array_equal(rest.left, low_rank(left_out, rank, HEARD).left)
        assert not rest.left[SILENT].any() and not rest.right[:, SILENT].any()  # not almost


def test_drawing_the_rest_leaves_the_draws_of_a_training_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    low_rank(matrix(), 4, HEARD)
    assert torch.equal(torch.rand(2), expected)


def test_untouched_items_have_the_same_place_in_a_dense_matrix_as_in_a_table() -> None:
    values, like = matrix(), np.zeros((ITEMS, ITEMS), np.float32)
    like[7, [3, 5]] = 0.5
    like[31, 9] = 1.0
    table = strongest(lambda rows: values[rows].copy(), ITEMS, ITEMS)
    placed = place_in_matrix(values, sp.csr_array(like))
    expected = place_in_table(table, sp.csr_array(like)).sparse().toarray()
    assert placed[[7, 31]].any(axis=1).all() and placed[:, [7, 31]].any(axis=0).all()
    assert placed == pytest.approx(expected, abs=1e-5)
    assert placed.dtype == np.float32
    assert place_in_matrix(values, sp.csr_array((ITEMS, ITEMS))) is values


def test_tables_say_neighbours_and_rest(dataset: Dataset) -> None:
    settings = ("signals.neighbours=20", "signals.rest_neighbours=5", "signals.rest_rank=7")
    tables = fitted(dataset, *settings).graph.scorer.tables
    assert isinstance(tables, Tables)
    items = len(dataset.catalogue) + 1
    history_BL = torch.tensor([[0, 3, 5], [9, 9, 2]])
    strength_BL = torch.tensor([[0.0, 0.5, 2.0], [1.0, -1.0, 0.25]])
    for source in tables.sources:
        rest = tables.rest(source)
        item_NM, weight_NM = getattr(tables, f"{source}_item"), getattr(tables, f"{source}_weight")
        matrix_NN = torch.zeros(items, items).scatter_add(1, item_NM, weight_NM)
        assert rest is not None and rest[0].shape == (items, 7)
        assert item_NM.shape == (items, 5)
        matrix_NN += rest[0] @ rest[1]
        heard_BN = torch.zeros(2, items).scatter_add(1, history_BL, strength_BL)
        said_BN = tables.say(source, history_BL, strength_BL[:, :, None])
        assert torch.allclose(said_BN, heard_BN @ matrix_NN, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_table_alone_has_neighbours_only(dataset: Dataset, family: str) -> None:
    blueprint = blueprint_of(family, dataset.users, dataset, small("signals.neighbours=20"))
    if family == "deep":
        state = fitted(dataset, "signals.neighbours=20", "signals.rest_rank=0").graph.state_dict()
    else:
        state = fit_scorer(blueprint, dataset.users).state_dict()
    assert not [name for name in state if name.endswith(("_left", "_right"))]
    widths = {value.shape[1] for name, value in state.items() if name.endswith("_item")}
    assert widths == (set() if family == "popularity" else {20})
