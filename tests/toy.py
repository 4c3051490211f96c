"""A small torch module that meets the contract, its files, and a repository that serves it.

Its answers depend on every input, so a wrong order or a lost tensor shows; it is
no recommender. The weights come from a fixed seed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from export.to_onnx import write_onnx as export_onnx
from export.to_torchscript import write_torchscript as export_torchscript
from export.triton_config import Backend, ServingConfig, config_text
from recommender.acts import ActRules
from recommender.contract import Array, Limits
from recommender.features import UserFeatures
from recommender.release import Release

ITEMS = 120
LIMITS = Limits(
    user_features=2,
    category_words=1,
    exclude=8,
    answers=10,
    length_buckets=(4, 16),
    max_batch_size=16,
)
FILES: dict[Backend, str] = {"onnxruntime": "model.onnx", "pytorch": "model.pt"}


class Toy(torch.nn.Module):
    def __init__(self, items: int = ITEMS, width: int = 8, seed: int = 7) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.items = torch.nn.Embedding(items, width, padding_idx=0)
        self.users = torch.nn.Embedding(16, width)
        self.hours = torch.nn.Embedding(24, width)
        self.register_buffer("words", torch.randint(1, 16, (items, 1)))
        self.requires_grad_(False).eval()

    def forward(
        self,
        history: torch.Tensor,
        history_time: torch.Tensor,
        history_weight: torch.Tensor,
        request_time: torch.Tensor,
        user_features: torch.Tensor,
        exclude: torch.Tensor,
        category_filter: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        age_BL = (request_time - history_time).clamp(0, 10**6).float() / 10**6
        weight_BL = history_weight * torch.exp(-age_BL)
        query_BD = (F.embedding(history, self.items.weight) * weight_BL[:, :, None]).sum(1)
        query_BD = query_BD + F.embedding(user_features, self.users.weight).sum(1)
        hour_B = torch.remainder(torch.div(request_time[:, 0], 3600, rounding_mode="floor"), 24)
        query_BD = query_BD + F.embedding(hour_B, self.hours.weight)
        score_BN = F.linear(query_BD, self.items.weight)
        score_BN = score_BN.scatter_add(1, exclude, torch.full_like(exclude, -(10**9)).float())
        hit_BN = ((self.words[None] & category_filter[:, None]) != 0).any(2)
        open_B1 = (category_filter == 0).all(1, keepdim=True)
        score_BN = score_BN.masked_fill(~(hit_BN | open_B1), -1e9)
        score_BN[:, 0] = -1e9  # index 0 is padding, never an item
        score, item = torch.topk(score_BN, LIMITS.answers, dim=1)
        none = score < -1e8
        return torch.where(none, 0, item), torch.where(none, -torch.inf, score)


def batch(rows: int, length: int, *, seed: int = 0, limits: Limits = LIMITS) -> dict[str, Array]:
    """`rows` random requests of the toy: right-aligned histories, some exclusions and filters."""
    random = np.random.default_rng(seed)
    history = random.integers(1, ITEMS, (rows, length))
    history[np.arange(length) < random.integers(0, length, (rows, 1))] = 0
    return {
        "history": history,
        "history_time": np.where(history > 0, 1_000_000 + history * 1000, 0),
        "history_weight": (history > 0) * random.random((rows, length)).astype(np.float32),
        "request_time": random.integers(1_200_000, 2_000_000, (rows, 1)),
        "user_features": random.integers(0, 16, (rows, limits.user_features)),
        "exclude": random.integers(0, ITEMS, (rows, limits.exclude)),
        "category_filter": random.integers(0, 4, (rows, limits.category_words)),
    }


def eager(arrays: dict[str, Array], model: torch.nn.Module | None = None) -> dict[str, Array]:
    """The answer in process, what every server must give."""
    item, score = (model or Toy())(
        **{name: torch.from_numpy(array) for name, array in arrays.items()}
    )
    return {"item": item.numpy(), "score": score.numpy()}


def write_onnx(path: Path, model: torch.nn.Module | None = None) -> None:
    export_onnx(model or Toy(), LIMITS, path)


def write_torchscript(path: Path, model: torch.nn.Module | None = None) -> None:
    export_torchscript(model or Toy(), LIMITS, path)


# These models answer before the next caller comes: a delay lets rows meet.
PATIENT = ServingConfig(queue_delay_us=500)


def add_model(
    repository: Path,
    name: str,
    backend: Backend,
    weights: Path,
    *,
    versions: tuple[int, ...] = (1,),
    config: str | None = None,
    serving: ServingConfig | None = None,
) -> None:
    """Add model `name` to `repository`; `weights` is copied into each version folder."""
    for version in versions:
        folder = repository / name / str(version)
        folder.mkdir(parents=True)
        shutil.copy(weights, folder / FILES[backend])
    text = config or config_text(name, backend, LIMITS, serving or PATIENT)
    (repository / name / "config.pbtxt").write_text(text)


def release(repository: Path, models: tuple[str, ...], version: int = 1) -> Release:
    """A release of toy models: what `load_release` reads of it, and nothing more."""
    return Release(
        repository=repository,
        version=version,
        family="toy",
        items=ITEMS - 1,
        models=models,
        limits=LIMITS,
        user_features=UserFeatures(),
        mean_rating=None,
        clock=0,
        acts=ActRules(),
        files={},
        details={},
    )
