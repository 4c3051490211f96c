"""The one contract between training, export, Triton and Bento: names, types, shapes, limits.

A model that takes `inputs(limits)` and gives `outputs(limits)` can be exported,
served and compared, whatever it is inside. Beside it stand three more kinds of
models from the same weights:

    recommender    a user                -> the best items
    similar_items  an item               -> the items most like it
    ranker         a user and candidates -> the score that the recommender gives them
    explainer      a user and candidates -> what their scores are made of

This module knows numpy and nothing else: no torch, no Triton, no HTTP.

Shape letters: B requests of a batch, L history length (dynamic), U user
features, E exclusions, W words of the category mask, K answers, N items,
C candidates, S signals.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]  # shape and dtype stand in the docstring or comment beside it

PADDING = 0  # item index 0 is no item; user feature 0 is "unknown"
BITS_PER_WORD = 63  # of an INT64 category word; the sign bit stays free

Kind = Literal["recommender", "similar_items", "ranker", "explainer"]
KINDS: tuple[Kind, ...] = get_args(Kind)
RECOMMENDER, SIMILAR_ITEMS, RANKER, EXPLAINER = KINDS

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
    candidates: int = 512  # C of the ranker
    explained: int = 32  # C of the explainer, whose answer is far larger

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Limits:
        """From what `dataclasses.asdict` and JSON make of it."""
        return cls(**{**raw, "length_buckets": tuple(raw["length_buckets"])})

    @property
    def history(self) -> int:
        """The longest history the model reads; older events are dropped by the caller."""
        return self.length_buckets[-1]

    @property
    def signals(self) -> int:
        """S: one for each user feature and room for all others, so that releases of other signals
        have the same config. release.json names those that there are; the rest is 0."""
        return self.user_features + 32

    def bucket(self, length: int) -> int:
        """The shortest bucket that holds `length` events (the longest one for more)."""
        return next((b for b in self.length_buckets if b >= length), self.history)


EXCLUDE_SIZES = (256, 512, 1024, 2048)


def exclude_size(longest_seen: int) -> int:
    """E: the smallest size that holds the longest seen list of the training data plus 128."""
    return next((e for e in EXCLUDE_SIZES if e >= longest_seen + 128), EXCLUDE_SIZES[-1])


def inputs(limits: Limits, kind: Kind = RECOMMENDER) -> tuple[Tensor, ...]:
    """The inputs of a kind of model, in the order of its forward()."""
    user = (
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
    )
    choice = (
        # item indexes never to return, 0 = padding
        Tensor(name="exclude", datatype="INT64", dims=(limits.exclude,)),
        # bit mask: any of the wanted categories; all zero = no filter; applied before top-k
        Tensor(name="category_filter", datatype="INT64", dims=(limits.category_words,)),
    )
    if kind == RECOMMENDER:
        return (*user, *choice)
    if kind == SIMILAR_ITEMS:
        # an item index; 0 or out of range = no item, answered by what is popular
        return (Tensor(name="query_item", datatype="INT64", dims=(1,)), *choice)
    count = limits.candidates if kind == RANKER else limits.explained
    # item indexes in any order, 0 = padding
    return (*user, Tensor(name="candidates", datatype="INT64", dims=(count,)))


def outputs(limits: Limits, kind: Kind = RECOMMENDER) -> tuple[Tensor, ...]:
    """The outputs of a kind of model, in the order of its forward()."""
    if kind == RANKER:
        # -inf for what is no item
        return (Tensor(name="score", datatype="FP32", dims=(limits.candidates,)),)
    if kind == EXPLAINER:
        # all 0 for what is no item
        parts = (limits.explained, limits.signals)
        return (
            # what each signal adds to the score: their sum is the score
            Tensor(name="signal", datatype="FP32", dims=parts),
            # the signal itself, above its mean over the catalogue: which way it speaks
            Tensor(name="value", datatype="FP32", dims=parts),
            # [C, L]: what each event adds, within the signals that read the history
            Tensor(name="history_share", datatype="FP32", dims=(limits.explained, -1)),
        )
    # best first; index 0 with score -inf where fewer qualify
    return (
        Tensor(name="item", datatype="INT64", dims=(limits.answers,)),
        Tensor(name="score", datatype="FP32", dims=(limits.answers,)),
    )


# Model names: the deep recommender in both formats, that of every other family as one ONNX model.
RECOMMENDER_ONNX = "recommender_onnx"
RECOMMENDER_TORCHSCRIPT = "recommender_torchscript"


def model_names(family: str, kinds: Collection[Kind] = KINDS) -> tuple[str, ...]:
    """The models of a release of `family` ("deep", "item-knn", ...) that has these kinds; the
    first one serves. Those of deep bear the kind's name, of others `<family>_<kind>`."""
    name = family.replace("-", "_")
    deep = family == "deep"
    serving = (RECOMMENDER_ONNX, RECOMMENDER_TORCHSCRIPT) if deep else (f"{name}_onnx",)
    beside = (kind for kind in KINDS[1:] if kind in kinds)
    return (*serving, *(kind if deep else f"{name}_{kind}" for kind in beside))


def kind_of(model: str) -> Kind:
    """By the model's name: a recommender's ends in its format, any other's in its kind."""
    return next((kind for kind in KINDS[1:] if model.endswith(kind)), RECOMMENDER)
