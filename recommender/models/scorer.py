"""What a scorer is: user inputs -> a score for every item of the catalogue.

The one interface between model families and the graph around them (graph.py).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class UserInputs(NamedTuple):
    """The contract's first five inputs, cleaned: ids known or 0, times within the clock."""

    history_BL: Tensor
    time_BL: Tensor
    weight_BL: Tensor
    request_time_B1: Tensor
    features_BU: Tensor

    def newest(self, reach: int) -> UserInputs:
        """The same with the newest `reach` events only; no padding is added where L is less."""
        length = self.history_BL.shape[1]
        # A tracer keeps a slice that may reach too far; an exporter must be told where it starts.
        tracing = torch.jit.is_tracing()  # type: ignore[no-untyped-call, attr-defined]
        start = -reach if tracing else _longer(length, reach)
        return self._replace(
            history_BL=self.history_BL[:, start:],
            time_BL=self.time_BL[:, start:],
            weight_BL=self.weight_BL[:, start:],
        )


class Scorer(Protocol):
    """A torch module. Its result is fresh: the graph writes to it."""

    def __call__(self, user: UserInputs) -> Tensor:
        """[B, N] float32; column 0 is padding."""


def _longer(length: int, reach: int) -> int:
    """By how much, at least 0; symbolic where `length` is."""
    longer: int = torch.sym_max(length - reach, 0)  # type: ignore[no-untyped-call]
    return longer
