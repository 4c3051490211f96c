"""The mixer: what it does of signals with and without a history."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recommender.config import MixerConfig
from recommender.models.mixer import Mixer
from recommender.models.scorer import UserInputs
from recommender.models.signals import Tables

ITEMS = 7


def user(*history: int) -> UserInputs:
    padded = torch.tensor([[0] * (3 - len(history)) + list(history)])
    return UserInputs(
        history_BL=padded,
        time_BL=padded * 1_000,
        weight_BL=torch.zeros_like(padded, dtype=torch.float32),
        request_time_B1=torch.tensor([[9_000]]),
        features_BU=torch.zeros(1, 0, dtype=torch.int64),
    )


@pytest.fixture
def mixer() -> Mixer:
    """Of two signals beside the history, with a network far from zero."""
    torch.manual_seed(0)
    mixer = Mixer((), 2, ("trend",), MixerConfig(hidden=8)).requires_grad_(False)
    mixer.second.weight.normal_()
    return mixer


def scores(mixer: Mixer, who: UserInputs, *signals: Tensor) -> Tensor:
    return mixer(who, Tables({}), list(signals))


def test_signals_add_up_for_users_without_a_history(mixer: Mixer) -> None:
    one, other, nothing = torch.randn(1, ITEMS), torch.randn(1, ITEMS), torch.zeros(1, ITEMS)
    apart = scores(mixer, user(), one, nothing) + scores(mixer, user(), nothing, other)
    torch.testing.assert_close(scores(mixer, user(), one, other), apart)


def test_signals_interact_for_users_with_a_history(mixer: Mixer) -> None:
    one, nothing = torch.randn(1, ITEMS), torch.zeros(1, ITEMS)
    ranks = scores(mixer, user(3), one, nothing).diff(dim=1) / one.diff(dim=1)
    assert ranks.std() > 0.01
    ranks = scores(mixer, user(), one, nothing).diff(dim=1) / one.diff(dim=1)
    assert ranks.std() < 1e-4
