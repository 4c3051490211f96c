"""What the tests of adapted models share: the examples, weights as RecBole writes them, modules
that break the contract."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from recommender.models.scorer import UserInputs

EXAMPLES = Path(__file__).parent.parent / "examples"
OWN, SASREC = str(EXAMPLES / "own_model.py"), str(EXAMPLES / "recbole_sasrec.py")

WIDTH, INNER, LAYERS, HEADS = 8, 12, 2, 2
# Scores of RecBole 1.2.1's own SASRec, with the weights below, of its items 1 to 12.
RECBOLE_SAYS = {
    (7,): [-0.7235, 2.3308, -1.4305, -1.9917, -1.3953, 0.4087,
           -0.4677, -0.9223, 2.6654, -2.733, -2.5241, -1.2043],
    (3, 9, 12): [-1.0858, 2.3834, -1.7845, -2.4809, -1.9397, 0.62,
                 -0.3281, -0.4712, 2.2119, -1.695, -2.2275, -0.9225],
    (5, 1, 8, 2, 11, 4, 6): [-0.3101, 1.4982, -2.0552, -0.7985, -0.8878, 0.618,
                             -0.9443, -1.7969, 2.0905, -1.906, -1.7172, -1.5797],
}  # fmt: skip


def sasrec_state(items: int, longest: int) -> dict[str, torch.Tensor]:
    """The state_dict of RecBole's SASRec: its names, shapes and order, weights of a fixed stream
    of numbers. `items` counts padding."""
    random = np.random.RandomState(0)  # this stream never changes, whatever the numpy
    state: dict[str, torch.Tensor] = {}

    def add(name: str, *shape: int) -> None:
        value = (0.5 * random.normal(size=shape)).astype(np.float32)
        state[name] = torch.from_numpy(
            1 + 0.3 * value if name.endswith("LayerNorm.weight") else value
        )

    add("item_embedding.weight", items, WIDTH)
    state["item_embedding.weight"][0] = 0
    add("position_embedding.weight", longest, WIDTH)
    for layer in range(LAYERS):
        shapes = {f"multi_head_attention.{name}": (WIDTH, WIDTH)
                  for name in ("query", "key", "value", "dense")}  # fmt: skip
        shapes |= {"multi_head_attention.LayerNorm": (WIDTH,),
                   "feed_forward.dense_1": (INNER, WIDTH), "feed_forward.dense_2": (WIDTH, INNER),
                   "feed_forward.LayerNorm": (WIDTH,)}  # fmt: skip
        for name, shape in shapes.items():
            add(f"trm_encoder.layer.{layer}.{name}.weight", *shape)
            add(f"trm_encoder.layer.{layer}.{name}.bias", shape[0])
    add("LayerNorm.weight", WIDTH)
    add("LayerNorm.bias", WIDTH)
    return state


def write_sasrec(path: Path, tokens: list[str], longest: int, **settings: object) -> None:
    """What step 1 of examples/recbole_sasrec.py writes of those weights."""
    config = {"model": "SASRec", "n_heads": HEADS, "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    save = runpy.run_path(SASREC)["save"]
    state = sasrec_state(len(tokens) + 1, longest)
    save(str(path), config | settings, state, ["[PAD]", *tokens])


def asked(history: list[list[int]]) -> UserInputs:
    """Histories of equal length, and nothing else known."""
    items = torch.tensor(history)
    ones, one = torch.where(items > 0, 1.0, 0.0), torch.zeros(len(history), 1, dtype=torch.int64)
    return UserInputs(items, items * 0, ones, one, one)


class Mean(torch.nn.Module):
    """The mean vector of the history: right, and the base of those that are wrong."""

    def __init__(self, items: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Parameter(torch.randn(items, 8))

    def query(self, user: UserInputs) -> torch.Tensor:
        here_BL1 = (user.history_BL > 0)[:, :, None]
        x_BLD = torch.where(here_BL1, F.embedding(user.history_BL, self.table), 0.0)
        return x_BLD.sum(1) / here_BL1.sum(1).clamp(min=1)

    def forward(self, user: UserInputs) -> torch.Tensor:
        return F.linear(self.query(user), self.table)


class OneItemTooFew(Mean):
    def forward(self, user: UserInputs) -> torch.Tensor:
        return super().forward(user)[:, 1:]


class NoAnswerForStrangers(Mean):
    def forward(self, user: UserInputs) -> torch.Tensor:
        return super().forward(user) / (user.history_BL > 0).any(1, keepdim=True).float()


class TooLoud(Mean):
    def forward(self, user: UserInputs) -> torch.Tensor:
        return super().forward(user) * 1e4


class TooQuiet(Mean):
    def forward(self, user: UserInputs) -> torch.Tensor:
        return super().forward(user) * 1e-6


class ReadsPadding(Mean):
    def query(self, user: UserInputs) -> torch.Tensor:
        return F.embedding(user.history_BL, self.table).mean(1)


class ReadsNeighbours(Mean):
    def query(self, user: UserInputs) -> torch.Tensor:
        query_BD = super().query(user)
        return query_BD - query_BD.mean(0)


class FreezesTheLength(Mean):
    def query(self, user: UserInputs) -> torch.Tensor:
        ones_L = torch.tensor([1.0] * user.history_BL.shape[1])
        return super().query(user) * ones_L.mean()


class BranchesOnAValue(Mean):
    def query(self, user: UserInputs) -> torch.Tensor:
        return super().query(user) * (2.0 if user.history_BL.sum() > 0 else 1.0)


BROKEN = {
    OneItemTooFew: r"expected scores of shape \[3, 151\]",
    NoAnswerForStrangers: "NaN",
    TooLoud: "Divide the scores",
    TooQuiet: "multiply by a constant",
    ReadsPadding: "padding to length",
    ReadsNeighbours: "a row alone scores otherwise",
    FreezesTheLength: "cannot be exported.*length.*constant",
    BranchesOnAValue: "cannot be exported",
}
