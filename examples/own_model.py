"""A PyTorch module of your own, trained here and served like every other family.

    recserve adapt data/ml-100k --module examples/own_model.py --name my-model --out runs/my-model
    recserve export runs/my-model

Next item from a weighted sum of the newest ones: item vectors in, a learned weight for each
step back, item vectors out. Take the frame and put your own module into it.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recommender.data.dataset import Dataset
from recommender.models.scorer import UserInputs

WIDTH, REACH = 48, 20  # of item vectors; newest events that are read
EPOCHS, BATCH, LEARNING_RATE, SEED = 8, 256, 0.005, 0


class NextItem(nn.Module):
    """A Scorer: histories in, a score for every index of the catalogue out."""

    def __init__(self, items: int) -> None:
        super().__init__()
        self.read = nn.Embedding(items, WIDTH)
        self.step = nn.Embedding.from_pretrained(-torch.arange(REACH)[:, None] * 0.3, freeze=False)
        self.wanted = nn.Embedding(items, WIDTH)
        self.bias = nn.Parameter(torch.zeros(items))
        self.dropout = nn.Dropout(0.3)

    def forward(self, user: UserInputs) -> Tensor:
        """[B, N], N = items + 1: index 0 is padding, and its score is never looked at."""
        return self.score(user.history_BL)

    def score(self, history_BL: Tensor) -> Tensor:
        length = history_BL.shape[1]
        # Histories are right-aligned: the newest event is the last column, whatever the length.
        back_L = (length - 1) - torch.arange(length)
        step_L = self.step(back_L.clamp(max=REACH - 1))[:, 0]
        weight_L = torch.where(back_L < REACH, step_L.exp(), 0.0)
        weight_BL = torch.where(history_BL > 0, weight_L, 0.0)
        query_BD = (self.read(history_BL) * weight_BL[:, :, None]).sum(1)
        return F.linear(self.dropout(query_BD), self.wanted.weight, self.bias)


def build(dataset: Dataset) -> NextItem:
    """Train on `dataset.users`, and on nothing else: what is measured lies outside of it."""
    torch.manual_seed(SEED)
    module = NextItem(len(dataset.catalogue) + 1)
    seen, target = _examples(dataset)
    optimizer = torch.optim.AdamW(module.parameters(), LEARNING_RATE, weight_decay=0.01)
    module.train()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(target)).split(BATCH):
            loss = F.cross_entropy(module.score(seen[rows]), target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return module


def _examples(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """[events, REACH] what came before each event, and [events] the event's item."""
    users = dataset.users
    padded = np.concatenate([np.zeros(REACH, np.int64), users.items])
    seen = np.lib.stride_tricks.sliding_window_view(padded, REACH)[: len(users.items)].copy()
    within = np.arange(len(users.items)) - np.repeat(users.offsets[:-1], users.lengths)
    seen[np.arange(REACH) < REACH - within[:, None]] = 0  # that was the user before
    kept = (within > 0) & users.targets  # neither returns nor what was returned
    return torch.from_numpy(seen[kept]), torch.from_numpy(users.items[kept])
