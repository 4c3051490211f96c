"""Fit the combiner: how much each signal says, learned on queries whose targets no signal has seen.

Softmax cross-entropy over the catalogue minus what is seen; weights stay positive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from recommender.contract import Array, inputs
from recommender.data.split import Query, requests
from recommender.features import tensors
from recommender.models.deep import SIGNALS, Deep
from recommender.models.families import Blueprint
from recommender.models.scorer import UserInputs
from recommender.users import EMPTY, Users

_CELLS = 40_000_000  # queries x items x signals held at once: 160 MB
_RIDGE = 1e-4  # per weight: two signals that say the same share their weight


def fit_weights(
    scorer: Deep, blueprint: Blueprint, queries: Sequence[Query], users: Users
) -> Tensor:
    """[2, S] for `Deep.weights`. Row 1 is fitted on `queries`; row 0, for strangers, on the same
    queries with their histories hidden (what was seen stays excluded)."""
    most = max(100, _CELLS // (blueprint.items * len(SIGNALS)))
    if len(queries) > most:
        rng = np.random.default_rng(blueprint.config.training.seed)
        queries = [queries[i] for i in np.sort(rng.choice(len(queries), most, replace=False))]
    seen_QN = torch.zeros(len(queries), blueprint.items, dtype=torch.bool)
    seen_QN[:, 0] = True
    for row, query in enumerate(queries):
        seen_QN[row, torch.from_numpy(query.history.items)] = True
    target_Q = torch.tensor([int(query.targets[0]) for query in queries])

    hidden = [replace(query, history=EMPTY) for query in queries]
    rows = []
    for asked in (hidden, queries):
        signals_QNS = _signals(scorer, blueprint, asked, users)
        rows.append(_likeliest(signals_QNS, target_Q, seen_QN))
    return torch.stack(rows)


def _signals(scorer: Deep, blueprint: Blueprint, queries: Sequence[Query], users: Users) -> Tensor:
    limits, parts = blueprint.limits, []
    for at in range(0, len(queries), limits.max_batch_size):
        arrays = tensors(requests(queries[at : at + limits.max_batch_size], users), limits)
        user = UserInputs(*(torch.from_numpy(arrays[t.name]) for t in inputs(limits)[:5]))
        parts.append(scorer.each_signal(user))
    return torch.cat(parts)


def _likeliest(signals_QNS: Tensor, target_Q: Tensor, seen_QN: Tensor) -> Tensor:
    """[S] weights of the smallest loss. The loss is convex in them; L-BFGS-B keeps them positive.

    Signals are scaled to one spread for the search, so that no unit decides its steps; one
    without any spread (neighbours of hidden histories) says nothing and gets no weight.
    """
    spread_S = signals_QNS.flatten(0, 1).std(dim=0)
    spread_S = torch.where(spread_S > 1e-6, spread_S, torch.inf)
    scaled_QNS = signals_QNS / spread_S

    def loss(weights: Array) -> tuple[float, Array]:
        w_S = torch.from_numpy(weights.astype(np.float32)).requires_grad_()
        scores_QN = (scaled_QNS @ w_S).masked_fill(seen_QN, -torch.inf)
        value = F.cross_entropy(scores_QN, target_Q) + _RIDGE * w_S.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        assert w_S.grad is not None
        return value.item(), w_S.grad.numpy().astype(np.float64)

    start = np.full(len(spread_S), 0.5)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(start))
    return torch.from_numpy(found.x.astype(np.float32)) / spread_S
