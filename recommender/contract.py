"""The one contract between training, export, Triton and Bento: names, types, shapes, limits.

A model that takes `inputs(limits)` and gives `outputs(limits)` can be exported,
served and compared, whatever it is inside. This module knows numpy and nothing
else: no torch, no Triton, no HTTP.

Shape letters: B requests of a batch, L history length (dynamic), U user
features, E exclusions, W words of the category mask, K answers, N items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]  # shape and dtype stand in the docstring or comment beside it

PADDING = 0  # item index 0 is no item; user feature 0 is "unknown"
BITS_PER_WORD = 63  # of an INT64 category word; the sign bit stays free

NUMPY_TYPES: dict[str, type[np.generic]] = {"INT64": np.int64, "FP32": np.float32}


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One input or output. `dims` leaves out the batch; -1 is a dynamic dimension."""

    name: str
    datatype: str  # Triton's name: INT64 or FP32
    dims: tuple[int, ...]

    @property
    def dtype(self) -> type[np.generic]:
        return NUMPY_TYPES[self.datatype]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Sizes that are constants of one release, written into its config and checked at load."""

    user_features: int  # U, at least 1
    category_words: int  # W, at least 1
    exclude: int = 1024  # E
    answers: int = 100  # K
    length_buckets: tuple[int, ...] = (16, 64, 200)  # the L values callers pad to
    max_batch_size: int = 64

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Limits:
        """From what `dataclasses.asdict` and JSON make of it."""
        return cls(**{**raw, "length_buckets": tuple(raw["length_buckets"])})

    @property
    def history(self) -> int:
        """The longest history the model reads; older events are dropped by the caller."""
        return self.length_buckets[-1]

    def bucket(self, length: int) -> int:
        """The shortest bucket that holds `length` events (the longest one for more)."""
        return next((b for b in self.length_buckets if b >= length), self.history)


EXCLUDE_SIZES = (256, 512, 1024, 2048)


def exclude_size(longest_seen: int) -> int:
    """E: the smallest size that holds the longest seen list of the training data plus 128."""
    return next((e for e in EXCLUDE_SIZES if e >= longest_seen + 128), EXCLUDE_SIZES[-1])


def inputs(limits: Limits) -> tuple[Tensor, ...]:
    """The model's inputs, in the order of its forward()."""
    return (
        # item indexes, oldest first, right-aligned, 0 = padding
        Tensor(name="history", datatype="INT64", dims=(-1,)),
        # unix seconds, 0 = padding
        Tensor(name="history_time", datatype="INT64", dims=(-1,)),
        # strength: event weight, or rating centred by the release's mean; 1 = plain, 0 = padding
        Tensor(name="history_weight", datatype="FP32", dims=(-1,)),
        # unix seconds
        Tensor(name="request_time", datatype="INT64", dims=(1,)),
        # categorical indexes, 0 = unknown
        Tensor(name="user_features", datatype="INT64", dims=(limits.user_features,)),
        # item indexes never to return, 0 = padding
        Tensor(name="exclude", datatype="INT64", dims=(limits.exclude,)),
        # bit mask: any of the wanted categories; all zero = no filter; applied before top-k
        Tensor(name="category_filter", datatype="INT64", dims=(limits.category_words,)),
    )


def outputs(limits: Limits) -> tuple[Tensor, ...]:
    """`item` and `score`, best first; index 0 with score -inf where fewer qualify."""
    return (
        Tensor(name="item", datatype="INT64", dims=(limits.answers,)),
        Tensor(name="score", datatype="FP32", dims=(limits.answers,)),
    )


# Model names: the deep recommender in both formats, every other family as one ONNX model.
RECOMMENDER_ONNX = "recommender_onnx"
RECOMMENDER_TORCHSCRIPT = "recommender_torchscript"


def model_names(family: str) -> tuple[str, ...]:
    """The models of a release of `family` ("deep", "item-knn", ...); the first one serves."""
    if family == "deep":
        return (RECOMMENDER_ONNX, RECOMMENDER_TORCHSCRIPT)
    return (f"{family.replace('-', '_')}_onnx",)
