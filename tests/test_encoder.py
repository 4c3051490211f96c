"""The encoder computes for an answer what it computes in training, and nothing more."""

from __future__ import annotations

import pytest
import torch

from recommender.config import EncoderConfig
from recommender.models.encoder import Encoder
from recommender.models.scorer import UserInputs

ITEMS, LENGTH = 50, 20


def encoder(layers: int, reach: int = LENGTH) -> Encoder:
    torch.manual_seed(layers)
    made = Encoder(
        EncoderConfig(layers=layers, reach=reach, width=16),
        item_categories=[[0]] * ITEMS, user_sizes=(3, 4), max_length=LENGTH,
    )  # fmt: skip
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made.eval()


def histories(events: tuple[int, ...] = (LENGTH, 5, 1, 0)) -> UserInputs:
    shape = (len(events), LENGTH)
    torch.manual_seed(0)
    here = torch.arange(LENGTH) >= LENGTH - torch.tensor(events)[:, None]
    times = torch.randint(1, 10**6, shape).sort(dim=1).values
    return UserInputs(
        history_BL=torch.where(here, torch.randint(1, ITEMS, shape), 0),
        time_BL=torch.where(here, times, 0),
        weight_BL=torch.where(here, torch.rand(shape), 0.0),
        request_time_B1=times[:, -1:],
        features_BU=torch.ones(len(events), 2, dtype=torch.int64),
    )


@pytest.mark.parametrize("reach", [LENGTH, 3 * LENGTH])
@pytest.mark.parametrize("layers", [1, 2, 3])
@torch.inference_mode()
def test_an_answer_is_the_last_position_of_what_is_trained(layers: int, reach: int) -> None:
    made, user = encoder(layers, reach), histories()
    table = made.item_table()
    trained = made(user, table, last_only=False)[:, -1]
    assert torch.allclose(made(user, table, last_only=True), trained, atol=1e-5)


@torch.inference_mode()
def test_events_within_reach_are_read_and_no_others() -> None:
    user = histories((LENGTH,))
    first = user.history_BL[0, 0].item()
    other = user._replace(history_BL=user.history_BL.clone())
    other.history_BL[0, 0] = first % (ITEMS - 1) + 1
    for reach, read in ((LENGTH, True), (LENGTH - 1, False)):
        made = encoder(2, reach)
        table = made.item_table()
        same = torch.equal(made(user, table, last_only=True), made(other, table, last_only=True))
        assert same != read


@torch.inference_mode()
def test_each_value_of_a_user_column_is_itself_and_one_out_of_range_is_unknown() -> None:
    made, user = encoder(1), histories((LENGTH,))
    table = made.item_table()

    def asked(*features: int) -> torch.Tensor:
        one = user._replace(features_BU=torch.tensor([features]))
        return made(one, table, last_only=True)

    known = [asked(first, second) for first in range(3) for second in range(4)]
    assert len(torch.cat(known).unique(dim=0)) == 12
    for first, second in ((-1, 0), (3, 0), (0, -7), (0, 4)):
        assert torch.equal(asked(first, second), asked(0, 0))
