"""SASRec trained by RecBole (1.2.1), served here: its own weights, its own numbers.

    1. where RecBole is installed (recserve need not be), once:
       python recbole_sasrec.py saved/SASRec-Jan-01-2026_00-00-00.pth sasrec.npz
    2. where recserve is installed (RecBole need not be):
       recserve adapt DIR --module examples/recbole_sasrec.py --argument weights=sasrec.npz \\
           --name sasrec --out runs/sasrec

RecBole aligns a history left and counts positions from its oldest event; here it is aligned
right. Nothing has to move for that: an event's position is the number of events before it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:  # step 1 runs without recserve
    from recommender.data.dataset import Dataset
    from recommender.models.scorer import UserInputs

SETTINGS = ("n_heads", "hidden_act", "layer_norm_eps")
ACTIVATIONS = {
    "gelu": F.gelu, "relu": F.relu, "swish": F.silu, "tanh": torch.tanh, "sigmoid": torch.sigmoid,
}  # fmt: skip


def convert(checkpoint: str, out: str) -> None:
    """A checkpoint of RecBole, read by RecBole -> the file `out` of `save`."""
    # RecBole reads its checkpoints by pickle, which torch 2.6 and newer refuse unless told to.
    os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    from recbole.quick_start import load_data_and_model

    config, model, dataset, *_ = load_data_and_model(checkpoint)
    save(out, config, model.state_dict(), dataset.field2id_token[dataset.iid_field])


def save(
    out: str, config: Mapping[str, Any], state: Mapping[str, Tensor], tokens: Sequence[str]
) -> None:
    """RecBole's settings, state_dict and item tokens ([PAD] first) -> one .npz of plain arrays."""
    if config["model"] != "SASRec":
        raise ValueError(
            f"the checkpoint holds a {config['model']}, not a SASRec: bring one of SASRec, or "
            "write a module with the names and shapes of that model"
        )
    weights = {name: tensor.cpu().numpy() for name, tensor in state.items()}
    settings = {name: np.asarray(config[name]) for name in SETTINGS}
    np.savez(out, item_tokens=np.asarray(tokens).astype(str), **settings, **weights)


def build(dataset: Dataset, weights: str) -> SASRec:
    """RecBole's model over this catalogue; items it has never seen come last."""
    arrays = dict(np.load(weights))
    index = dataset.catalogue.indexes(arrays.pop("item_tokens")[1:])  # [0] is RecBole's padding
    if not index.any():
        raise ValueError(f"no item token of {weights} is an item_id of the data")
    settings = {name: arrays.pop(name).item() for name in SETTINGS}
    table = arrays["item_embedding.weight"]
    mine = np.zeros((len(dataset.catalogue) + 1, table.shape[1]), table.dtype)
    mine[index[index > 0]] = table[1:][index > 0]
    arrays["item_embedding.weight"] = mine
    module = SASRec({name: torch.from_numpy(a) for name, a in arrays.items()}, **settings)
    module.known[index] = 1.0
    module.known[0] = 0.0  # where `index` puts what the catalogue does not have
    module.popularity[1:] = torch.from_numpy(np.log1p(dataset.catalogue.popularity))
    return module


class SASRec(nn.Module):
    """A Scorer with RecBole's names, so that `state` is its state_dict."""

    def __init__(
        self, state: dict[str, Tensor], n_heads: int, hidden_act: str, layer_norm_eps: float
    ) -> None:
        super().__init__()
        items, width = state["item_embedding.weight"].shape
        inner = len(state["trm_encoder.layer.0.feed_forward.dense_1.weight"])
        layers = 1 + max(int(n.split(".")[2]) for n in state if n.startswith("trm_encoder.layer."))
        self.longest = len(state["position_embedding.weight"])
        self.item_embedding = nn.Embedding(items, width)
        self.position_embedding = nn.Embedding(self.longest, width)
        self.LayerNorm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.trm_encoder = nn.ModuleDict({"layer": nn.ModuleList(
            _Layer(width, inner, n_heads, hidden_act, layer_norm_eps) for _ in range(layers)
        )})  # fmt: skip
        self.load_state_dict(state)
        self.register_buffer("known", torch.zeros(items))
        self.register_buffer("popularity", torch.zeros(items))

    def forward(self, user: UserInputs) -> Tensor:
        history_BL = user.history_BL
        known_BL = F.embedding(history_BL, self.known[:, None])[:, :, 0] > 0
        # Positions count known events only, of which RecBole reads the newest.
        count_B1 = known_BL.sum(1, keepdim=True)
        position_BL = known_BL.long().cumsum(1) - 1 - (count_B1 - self.longest).clamp(min=0)
        seen_BL = known_BL & (position_BL >= 0)
        position_BL = position_BL.clamp(min=0)
        x_BLD = self.item_embedding(history_BL) + self.position_embedding(position_BL)
        x_BLD = self.LayerNorm(x_BLD)
        step_L = torch.arange(history_BL.shape[1])
        sees_BLL = seen_BL[:, None, :] & (step_L[:, None] >= step_L)
        mask_B1LL = torch.where(sees_BLL, 0.0, -10000.0)[:, None]
        for layer in self.trm_encoder["layer"]:
            x_BLD = layer(x_BLD, mask_B1LL)
        last_BL = seen_BL & (position_BL == count_B1.clamp(max=self.longest) - 1)
        query_BD = torch.where(last_BL[:, :, None], x_BLD, 0.0).sum(1)
        scores_BN = F.linear(query_BD, self.item_embedding.weight)
        unknown_B1 = scores_BN.amin(1, keepdim=True) - 1.0
        scores_BN = torch.where(self.known > 0, scores_BN, unknown_B1)
        return torch.where(count_B1 > 0, scores_BN, self.popularity)  # RecBole knows no stranger


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.dense = (nn.Linear(width, width) for _ in range(4))
        self.LayerNorm = nn.LayerNorm(width, eps=eps)

    def forward(self, x_BLD: Tensor, mask_B1LL: Tensor) -> Tensor:
        q, k, v = (
            part(x_BLD).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        logits_BHLL = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5 + mask_B1LL
        read_BLD = (logits_BHLL.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.LayerNorm(self.dense(read_BLD) + x_BLD)


class _FeedForward(nn.Module):
    def __init__(self, width: int, inner: int, activation: str, eps: float) -> None:
        super().__init__()
        self.dense_1, self.dense_2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.LayerNorm = nn.LayerNorm(width, eps=eps)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.LayerNorm(self.dense_2(self.activation(self.dense_1(x_BLD))) + x_BLD)


class _Layer(nn.Module):
    def __init__(self, width: int, inner: int, heads: int, activation: str, eps: float) -> None:
        super().__init__()
        self.multi_head_attention = _Attention(width, heads, eps)
        self.feed_forward = _FeedForward(width, inner, activation, eps)

    def forward(self, x_BLD: Tensor, mask_B1LL: Tensor) -> Tensor:
        return self.feed_forward(self.multi_head_attention(x_BLD, mask_B1LL))


if __name__ == "__main__":
    convert(*sys.argv[1:])
