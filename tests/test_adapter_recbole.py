"""RecBole's SASRec: what its checkpoint holds is converted, and scored as RecBole scores it.

`reference` is a second forward pass, written from RecBole's definition and in its own terms (one
history, aligned left, positions from its oldest event); `RECBOLE_SAYS` is what RecBole itself said.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adapted import HEADS, LAYERS, RECBOLE_SAYS, SASREC, WIDTH, asked, sasrec_state, write_sasrec
from torch import Tensor

from recommender.adapter import builder
from recommender.data.dataset import Dataset
from recommender.errors import RunError

LONGEST = 12
UNKNOWN = 10  # the catalogue's first items: RecBole has never seen them
GONE = ["sold out", "never listed"]  # items of RecBole that the catalogue lacks


def reference(state: dict[str, Tensor], history: list[int]) -> Tensor:
    """[items] scores of RecBole's items after a history of them: post-norm transformer, exact gelu,
    a step sees those before it and itself, the last one's vector times every item's."""

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-12)

    newest = torch.tensor(history[-LONGEST:])
    x_LD = state["item_embedding.weight"][newest]
    x_LD = norm(x_LD + state["position_embedding.weight"][: len(newest)], "LayerNorm")
    for layer in range(LAYERS):
        attention, forward = (
            f"trm_encoder.layer.{layer}.{name}" for name in ("multi_head_attention", "feed_forward")
        )
        q, k, v = (
            linear(x_LD, f"{attention}.{name}").view(-1, HEADS, WIDTH // HEADS).transpose(0, 1)
            for name in ("query", "key", "value")
        )
        read_LD = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(0, 1).flatten(1)
        x_LD = norm(linear(read_LD, f"{attention}.dense") + x_LD, f"{attention}.LayerNorm")
        inner_LF = F.gelu(linear(x_LD, f"{forward}.dense_1"))
        x_LD = norm(linear(inner_LF, f"{forward}.dense_2") + x_LD, f"{forward}.LayerNorm")
    return state["item_embedding.weight"] @ x_LD[-1]


@pytest.fixture(scope="module")
def tokens(dataset: Dataset) -> list[str]:
    """RecBole's items 1, 2, ...: in another order than ours, one of them not ours at the front."""
    ours = list(dataset.catalogue.item_ids[UNKNOWN:])
    np.random.RandomState(1).shuffle(ours)
    return [GONE[0], *ours, GONE[1]]


@pytest.fixture(scope="module")
def converted(
    dataset: Dataset, tokens: list[str], tmp_path_factory: pytest.TempPathFactory
) -> torch.nn.Module:
    path = tmp_path_factory.mktemp("recbole") / "sasrec.npz"
    write_sasrec(path, tokens, LONGEST)
    return builder(SASREC, {"weights": str(path)})(dataset).eval().requires_grad_(False)


@pytest.mark.parametrize("take", [1, 3, LONGEST, LONGEST + 1, 200], ids=lambda n: f"{n} newest")
def test_a_converted_checkpoint_scores_as_the_reference(
    dataset: Dataset, tokens: list[str], converted: torch.nn.Module, take: int
) -> None:
    """Real histories: shorter and longer than RecBole reads, items among them it has never seen."""
    state, ids = sasrec_state(len(tokens) + 1, LONGEST), dataset.catalogue.item_ids
    theirs = np.array([0, *(tokens.index(i) + 1 if i in tokens else 0 for i in ids)])
    lengths, skipped = [], 0
    for row in range(40):
        history = dataset.users.history(row).items[-take:]
        known = [int(item) for item in theirs[history] if item]
        skipped += len(history) - len(known)
        if not known:
            continue
        lengths.append(len(known))
        with_padding = [0] * (row % 4) + history.tolist()
        scores_N = converted(asked([with_padding]))[0]
        wanted_N = reference(state, known)[theirs]
        torch.testing.assert_close(
            scores_N[UNKNOWN + 1 :], wanted_N[UNKNOWN + 1 :], atol=1e-5, rtol=0
        )
        assert scores_N[: UNKNOWN + 1].max() < scores_N[UNKNOWN + 1 :].min()  # they come last
    assert min(lengths) < LONGEST or take >= LONGEST
    assert take < 200 or (skipped and max(lengths) > LONGEST)


def test_the_reference_says_what_recbole_itself_says() -> None:
    state = sasrec_state(13, 5)
    for history, said in RECBOLE_SAYS.items():
        scores = reference(state, list(history)[-5:])
        np.testing.assert_allclose(scores[1:].numpy(), said, atol=2e-4)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds a BERT4Rec, not a SASRec"):
        write_sasrec(tmp_path / "other.npz", ["one"], longest=5, model="BERT4Rec")
    assert not (tmp_path / "other.npz").exists()


@pytest.fixture
def small(dataset: Dataset, tmp_path: Path) -> tuple[torch.nn.Module, list[int]]:
    """SASRec of 12 items and 5 positions, and our indexes of RecBole's items 1 to 12."""
    places = [40, 3, 77, 150, 12, 9, 101, 55, 120, 31, 66, 4]
    write_sasrec(
        tmp_path / "small.npz", [dataset.catalogue.item_id(place) for place in places], longest=5
    )
    build = builder(SASREC, {"weights": str(tmp_path / "small.npz")})
    return build(dataset).eval().requires_grad_(False), places


@pytest.mark.parametrize("history", RECBOLE_SAYS, ids=str)
def test_the_scores_are_those_of_recbole_itself(
    small: tuple[torch.nn.Module, list[int]], history: tuple[int, ...]
) -> None:
    module, places = small
    ours = [places[item - 1] for item in history]
    with_strangers = [i for item in ours for i in (1, item, 2)]  # 1 and 2 are unknown to RecBole
    for items in (ours, [0, 0, 0, *ours], [0, *with_strangers]):
        scores = module(asked([items]))[0, places]
        np.testing.assert_allclose(scores.numpy(), RECBOLE_SAYS[history], atol=2e-4)


def test_weights_of_another_catalogue_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    write_sasrec(tmp_path / "other.npz", ["nobody", "knows"], longest=5)
    with pytest.raises(RunError, match=r"recbole_sasrec\.py, line \d+.*no item token"):
        builder(SASREC, {"weights": str(tmp_path / "other.npz")})(dataset)
