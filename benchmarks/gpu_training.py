"""Training steps of the encoder a second, on the GPU and on the CPU, on random histories.

With a data folder also a whole `recserve train --preset quick` on each: its seconds, and its
NDCG@10 on the part that it holds out.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_random import NOW, USER_SIZES

from recommender import config as recipes
from recommender.config import Config
from recommender.data.dataset import load
from recommender.models.encoder import Encoder
from recommender.models.learn import train_encoder
from recommender.train import train
from recommender.users import Users

DEVICES = ("cpu", "cuda")
SIZES = ((1_682, 1), (1_682, 8), (100_000, 1))  # items, times the recipe's batch
_USERS, _EVENTS = 943, 106  # as many as MovieLens-100K has, and events of each
_WARM_UP, _STEPS = 10, 60


@dataclass(frozen=True, kw_only=True)
class Steps:
    items: int
    events: int  # of a batch, about
    cpu: float  # steps a second
    cuda: float


def steps(config: Config) -> list[dict[str, Any]]:
    found = []
    for items, times in SIZES:
        events = config.training.batch_events * times
        recipe = replace(config.training, batch=config.training.batch * times, batch_events=events)
        rates = {
            device: _steps_a_second(replace(config, training=replace(recipe, device=device)), items)
            for device in DEVICES
        }
        found.append(asdict(Steps(items=items, events=events, **rates)))
    return found


class _Enough(Exception):
    """Ends a training that has been measured."""


def _steps_a_second(config: Config, items: int) -> float:
    torch.manual_seed(0)
    encoder = Encoder(
        config.encoder,
        item_categories=[[], *([one % 18] for one in range(items))],
        user_sizes=USER_SIZES,
        max_length=config.training.length,
    )
    done, marks = 0, [0.0, 0.0]

    def progress(*_: object) -> None:
        nonlocal done
        done += 1
        if done in (_WARM_UP, _WARM_UP + _STEPS):
            if config.training.device == "cuda":
                torch.cuda.synchronize()
            marks[done > _WARM_UP] = time.perf_counter()
        if done == _WARM_UP + _STEPS:
            raise _Enough

    try:
        train_encoder(encoder, _users(items), config.training, epochs=1000, progress=progress)
    except _Enough:
        return _STEPS / (marks[1] - marks[0])
    raise AssertionError("a thousand epochs hold more steps")


def _users(items: int) -> Users:
    rng = np.random.default_rng(0)
    lengths = rng.geometric(1 / _EVENTS, _USERS).clip(20, 700)
    total = int(lengths.sum())
    return Users(
        user_ids=tuple(map(str, range(_USERS))),
        features=rng.integers(0, 3, (_USERS, len(USER_SIZES))),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        items=rng.integers(1, items + 1, total),
        times=np.sort(rng.integers(NOW - 86_400 * 200, NOW, total)),
        weights=np.ones(total, np.float32),
    )


def whole(data: Path) -> list[dict[str, Any]]:
    """[{"device", "seconds", "ndcg@10"}]"""
    dataset, found = load(data)[0], []
    for device in DEVICES:
        recipe = recipes.read("quick", settings=[f"training.device={device}"])
        with tempfile.TemporaryDirectory() as folder:
            run = train(dataset, Path(folder) / "run", config=recipe)
        found.append(
            {
                "device": run.details["device"],
                "seconds": run.details["seconds"],
                "ndcg@10": run.metrics["ndcg@10"]["mean"],
            }
        )
    return found
