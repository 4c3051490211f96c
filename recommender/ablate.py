"""What each signal pays and what it costs: the mixer trained again without it. And whether one
mixer answers both kinds of questions as well as one trained for each alone.

Paid: NDCG@10 of held-out questions without the signal less with all (negative: it is worth
its place), paired, by mixers that have not seen the users they are judged on. Cost:
microseconds a row of the graph in eager PyTorch on the CPU, with all less without.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from recommender.config import Config
from recommender.contract import Array, inputs
from recommender.data.split import requests
from recommender.features import tensors
from recommender.metrics import paired_bootstrap
from recommender.mixing import cross_ndcg
from recommender.models.deep import Deep
from recommender.models.families import Blueprint
from recommender.models.learn import Progress
from recommender.models.mix import View

_ROUNDS = 25


def ablation(blueprint: Blueprint, views: Sequence[View], progress: Progress) -> dict[str, Any]:
    """{"ablation": [{"signal", "kind", "ndcg@10", "difference", "half"}], the difference to all;
    "cost": {signal: us a row}; "alone": [{"kind", "ndcg@10", "difference", "half"}], of a mixer
    trained for this kind of question alone, the difference to the one for all}"""
    use = blueprint.signals.use
    if len(use) < 2:
        return {}
    whole, found = cross_ndcg(blueprint, views), []
    cost = {}
    for done, signal in enumerate(use):
        progress("signals left out", done, len(use))
        without = replace(blueprint, config=_without(blueprint.config, signal))
        fewer = [replace(view, scorer=_fewer(view.scorer, without)) for view in views]
        left = cross_ndcg(without, fewer)
        found += [{"signal": signal, **_less(kind, left, whole)} for kind in whole]
        graphs = blueprint.graph(views[0].scorer).cpu(), without.graph(fewer[0].scorer).cpu()
        cost[signal] = round(_microseconds_between(*graphs, blueprint, views[0]), 1)
    alone = [
        _less(kind, cross_ndcg(blueprint, [view for view in views if view.kind == kind]), whole)
        for kind in whole
    ]
    return {"ablation": found, "cost": cost, "alone": alone}


def _less(kind: str, one: Mapping[str, Array], whole: Mapping[str, Array]) -> dict[str, Any]:
    difference = paired_bootstrap(one[kind], whole[kind])
    return {
        "kind": kind,
        "ndcg@10": float(one[kind].mean()),
        "difference": difference.mean,
        "half": difference.half,
    }


def _without(config: Config, signal: str) -> Config:
    kept = tuple(name for name in config.signals.use if name != signal)
    return replace(config, signals=replace(config.signals, use=kept))


def _fewer(scorer: Deep, blueprint: Blueprint) -> Deep:
    """The same tables and encoder, read by a smaller mixer."""
    encoder = scorer.encoder if "encoder" in blueprint.signals.use else None
    return Deep(encoder, scorer.table, scorer.bias, scorer.tables, blueprint.mixer())


@torch.inference_mode()
def _microseconds_between(
    whole: nn.Module, less: nn.Module, blueprint: Blueprint, view: View
) -> float:
    """What `whole` takes longer than `less` for one row in a batch of 32: the median of rounds in
    which both run, one after the other."""
    arrays = tensors(requests(view.queries[:32], view.users), blueprint.limits)
    given = [torch.from_numpy(arrays[tensor.name]) for tensor in inputs(blueprint.limits)]

    def seconds(graph: nn.Module) -> float:
        started = time.perf_counter()
        graph(*given)
        return time.perf_counter() - started

    between = [seconds(whole) - seconds(less) for _ in range(_ROUNDS)]
    return float(np.median(between)) / len(given[0]) * 1e6
