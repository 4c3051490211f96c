"""What a scorer is: user inputs -> a score for every item of the catalogue.

The one interface between model families and the graph around them (graph.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from recommender.contract import Array

# The contract's names of the fields of UserInputs, in their order.
USER_INPUTS = ("history", "history_time", "history_weight", "request_time", "user_features")


class UserInputs(NamedTuple):
    """The contract's first five inputs, cleaned: ids known or 0, times within the clock."""

    history_BL: Tensor
    time_BL: Tensor
    weight_BL: Tensor
    request_time_B1: Tensor
    features_BU: Tensor

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> UserInputs:
        """From the contract's inputs, of which nothing needs cleaning."""
        return cls(*(torch.from_numpy(arrays[name]) for name in USER_INPUTS))

    def to(self, device: torch.device) -> UserInputs:
        return UserInputs(*(tensor.to(device) for tensor in self))

    def newest(self, reach: int) -> UserInputs:
        """The same with the newest `reach` events only; no padding is added where L is less."""
        return self._replace(
            history_BL=self.history_BL[:, -reach:],
            time_BL=self.time_BL[:, -reach:],
            weight_BL=self.weight_BL[:, -reach:],
        )


class Scorer(Protocol):
    """A torch module. Its result is fresh: the graph writes to it."""

    def __call__(self, user: UserInputs) -> Tensor:
        """[B, N] float32; column 0 is padding."""


def within(value: Tensor, low: int, high: int) -> Tensor:
    """Whole numbers below `low` become `low`, those above `high` become `high`.

    By comparing, not by clamp(): on x86 CPUs the Clip, Min, Max and ReduceMin of int64 are wrong in
    ONNX Runtime 1.21 to 1.31, which NVIDIA's containers 25.03 to 26.08 have, wherever two numbers
    first differ in bit 31 (Eigen's SSE2 code; microsoft/onnxruntime, pull requests 25280, 32475).
    No graph here has them; numbers that become floats anyway are clamped as floats.
    """
    return torch.where(value < low, low, torch.where(value > high, high, value))


def row_of_each(features_BU: Tensor, size_U: Tensor) -> Tensor:
    """[B, U] int64: where the value of each user column stands in a table of all their values, one
    column's `size_U` rows below those of the one before. Values out of range count as unknown."""
    first_U = size_U.cumsum(0) - size_U
    return torch.where((features_BU > 0) & (features_BU < size_U), features_BU, 0) + first_U


def power_of_two(value: Tensor, buckets: int) -> Tensor:
    """The bucket of whole numbers, by powers of two: 0 and less in the first, all that is too large
    for the others in the last.

    The offset puts the borders between integers, where no backend's logarithm can
    round a value to the other side.
    """
    log = (value.to(torch.float32).clamp(min=0.0) + 1.0).log2() + 0.37
    return log.clamp(max=buckets - 1.0).to(torch.int64)
