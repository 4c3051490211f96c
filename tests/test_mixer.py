"""The mixer: what it does of signals with and without a history, and how far back it reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from trainings import fitted

from recommender import runs
from recommender.config import MixerConfig
from recommender.data.dataset import Dataset
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
    mixer = Mixer((), 2, ("trend",), MixerConfig(hidden=8), longest=3).requires_grad_(False)
    mixer.second.weight.normal_()
    return mixer


def scores(mixer: Mixer, who: UserInputs, *signals: Tensor) -> Tensor:
    return mixer(who, Tables({}), [signal[:, None] for signal in signals])


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


def events_read(mixer: Mixer) -> Iterator[int]:
    for reading in mixer.readings(user(*range(1, 61))):
        assert reading.strength_BL1.shape == (*reading.history_BL.shape, 1)
        assert reading.history_BL[0, -1] == 60  # the newest
        yield reading.history_BL.shape[1]


def test_a_short_head_reads_what_has_a_hundredth_of_the_strongest_say() -> None:
    heads = ("ease_long", "ease", "basket")
    mixer = Mixer(heads, 0, heads, MixerConfig(reach=48), longest=200).requires_grad_(False)
    # By the decays that it begins with, a step leaves exp(-.2) and exp(-.3) of an event's say:
    # exp(-.2 x 23) and exp(-.3 x 15) are the last above .01.
    assert list(events_read(mixer.eval())) == [60, 24, 16]
    assert list(events_read(mixer.train())) == [60, 48, 48]  # what it learns from is not cut
    mixer.by_steps[2][4] = 5.0  # the bucket of 12 to 23 steps
    assert list(events_read(mixer.eval())) == [60, 24, 24]
    mixer.decay[1] = torch.nan
    assert list(events_read(mixer.eval()))[1] == 48


def test_a_run_that_is_read_again_reads_as_far_back(dataset: Dataset, tmp_path: Path) -> None:
    run = fitted(dataset)
    counting = run.graph.scorer.mixer.counting
    assert counting and all(0 < events < 48 for events in counting.values())
    runs.write(run, tmp_path / "run")
    assert runs.read(tmp_path / "run").graph.scorer.mixer.counting == counting
