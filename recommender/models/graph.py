"""The one graph: any scorer + selection = a model that meets the contract.

    history ─┐
    time    ─┤                 [B, N]
    weight  ─┼─> scorer ──────> scores ─> selection ─> item, score  [B, K]
    request ─┤                              ^   ^
    user    ─┘               exclude, category_filter

A scorer is a module that maps the five user inputs, cleaned, to a fresh [B, N]
tensor of scores over the whole catalogue (column 0 is padding).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from recommender.catalogue import Catalogue
from recommender.contract import Array, Limits, inputs
from recommender.models.selection import Selection


class Scorer(Protocol):
    def __call__(
        self,
        history_BL: Tensor,
        history_time_BL: Tensor,
        history_weight_BL: Tensor,
        request_time_B1: Tensor,
        user_features_BU: Tensor,
    ) -> Tensor: ...


class Graph(nn.Module):
    """The contract's forward(): argument names and order are `contract.inputs`."""

    def __init__(self, scorer: Scorer, *, catalogue: Catalogue, limits: Limits, clock: int) -> None:
        super().__init__()
        self.scorer = scorer
        self.items = len(catalogue) + 1
        # Times after the end of the training data are read as that end plus the longest
        # gap trained on: years of silence must not push the model where it never was.
        self.clock = clock
        self.selection = Selection(torch.from_numpy(catalogue.category_words_table), limits.answers)

    def forward(
        self,
        history: Tensor,
        history_time: Tensor,
        history_weight: Tensor,
        request_time: Tensor,
        user_features: Tensor,
        exclude: Tensor,
        category_filter: Tensor,
    ) -> tuple[Tensor, Tensor]:
        history = self._known(history)
        here = history > 0
        request_time = request_time.clamp(0, self.clock)
        scores = self.scorer(
            history,
            torch.where(here, torch.minimum(history_time.clamp(0, self.clock), request_time), 0),
            torch.where(here, history_weight, 0.0).clamp(-100.0, 100.0),
            request_time,
            user_features,
        )
        item, score = self.selection(scores, self._known(exclude), category_filter)
        return item, score

    def _known(self, index: Tensor) -> Tensor:
        """Indexes out of range count as padding."""
        return torch.where((index > 0) & (index < self.items), index, 0)


@torch.inference_mode()
def answer(graph: nn.Module, arrays: Mapping[str, Array], limits: Limits) -> dict[str, Array]:
    """Run one batch of the contract's inputs through `graph`, in eager PyTorch."""
    item, score = graph(*(torch.from_numpy(arrays[t.name]) for t in inputs(limits)))
    return {"item": item.numpy().astype(np.int64), "score": score.numpy()}
