"""What a scorer is: user inputs -> a score for every item of the catalogue.

The one interface between model families and the graph around them (graph.py).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class UserInputs(NamedTuple):
    """The contract's first five inputs, cleaned: ids known or 0, times within the clock."""

    history_BL: Tensor
    time_BL: Tensor
    weight_BL: Tensor
    request_time_B1: Tensor
    features_BU: Tensor


class Scorer(Protocol):
    """A torch module. Its result is fresh: the graph writes to it."""

    def __call__(self, user: UserInputs) -> Tensor:
        """[B, N] float32; column 0 is padding."""
