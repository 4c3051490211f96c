"""The one graph: any scorer + selection = a model that meets the contract.

    history ─┐
    time    ─┤                 [B, N]
    weight  ─┼─> scorer ──────> scores ─> selection ─> item, score  [B, K]
    request ─┤                              ^   ^
    user    ─┘               exclude, category_filter

Here inputs are cleaned: ids out of range become padding, times are clamped.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from recommender.catalogue import Catalogue
from recommender.contract import RECOMMENDER, Array, Kind, Limits, inputs, outputs
from recommender.models.scorer import Scorer, UserInputs, within
from recommender.models.selection import Selection


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
        user = self.user(history, history_time, history_weight, request_time, user_features)
        scores = self.scorer(user)
        item, score = self.selection(scores, self.known(exclude), category_filter)
        return item, score

    def user(
        self,
        history: Tensor,
        history_time: Tensor,
        history_weight: Tensor,
        request_time: Tensor,
        user_features: Tensor,
    ) -> UserInputs:
        """The first five inputs, cleaned."""
        history = self.known(history)
        here = history > 0
        request_time = within(request_time, 0, self.clock)
        earlier = torch.where(history_time < request_time, history_time, request_time)
        return UserInputs(
            history_BL=history,
            time_BL=torch.where(here & (earlier > 0), earlier, 0),
            weight_BL=torch.where(here, history_weight, 0.0).clamp(-100.0, 100.0),
            request_time_B1=request_time,
            features_BU=user_features,
        )

    def known(self, index: Tensor) -> Tensor:
        """Indexes out of range count as padding."""
        return torch.where((index > 0) & (index < self.items), index, 0)


@torch.inference_mode()
def answer(
    module: nn.Module, arrays: Mapping[str, Array], limits: Limits, kind: Kind = RECOMMENDER
) -> dict[str, Array]:
    """Run one batch of the contract's inputs through `module`, in eager PyTorch, wherever it is."""
    device = next((tensor.device for tensor in module.buffers()), torch.device("cpu"))
    given = (torch.from_numpy(arrays[t.name]).to(device) for t in inputs(limits, kind))
    found = module(*given)
    named = zip(outputs(limits, kind), found, strict=True)
    return {tensor.name: value.cpu().numpy().astype(tensor.dtype) for tensor, value in named}
