"""The mixer: what is learned on queries whose targets no signal has seen.

    history ──> strength of each event per source ──> tables ──> signals [B, S, N]
    context ──> a weight per signal               ──> weighted sum  ─┐
    signals, context ──> a small network per item ──> interactions ──┴─> score [B, N]

Context is who asks and when: no history, its length, the time since the last event, how
much came at once. The network is for users with a history: those without one learn from a
few lists only, one a moment, which it would know by heart (docs/quality.md). Knows tables by
their names only, so that one mixer learns from tables of several moments.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recommender.config import HEADS, MixerConfig
from recommender.models.scorer import UserInputs, power_of_two
from recommender.models.signals import Reading, Tables

_TIME_BUCKETS = 30  # powers of two of seconds
_STEP_BUCKETS = 12  # powers of two of steps
CONTEXT = 7
_LOG_SCALE = (5.0, 15.0, 3.0, 4.0)  # brings logs of events, seconds, a page and an hour to about 1
_HOUR = 3600
_OFF = -1e9  # to a hidden unit; finite, for it is multiplied by 0
_FAINT = 0.01  # of the strongest event's say: what has less is not read in an answer


class Mixer(nn.Module):
    """`heads` are readings of the history (names of config.HEADS), `others` counts the further
    signals; `use` names all that are in use. No history is longer than `longest`."""

    def __init__(
        self, heads: tuple[str, ...], others: int, use: tuple[str, ...], config: MixerConfig,
        *, longest: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.heads, self.use = heads, use
        self.reach, self.longest = config.reach, longest
        self.counting: dict[int, int] = {}  # events that a head reads, where fewer than `reach`
        decay = torch.tensor([HEADS[head].decay for head in heads])
        self.decay = nn.Parameter(decay.expm1().log())  # softplus gives it back
        self.by_time = nn.Parameter(torch.zeros(len(heads), _TIME_BUCKETS))
        self.by_steps = nn.Parameter(torch.zeros(len(heads), _STEP_BUCKETS))
        self.by_weight = nn.Parameter(torch.zeros(len(heads)))
        self.register_buffer("_log_scale", torch.tensor(_LOG_SCALE), persistent=False)
        self._log_scale: Tensor
        signals = len(heads) + others
        self.weight = nn.Parameter(torch.full((signals,), 0.1))
        self.asks = nn.Linear(CONTEXT, config.hidden)
        self.gate = nn.Linear(config.hidden, signals)
        self.first = nn.Linear(signals + CONTEXT, config.hidden)
        self.second = nn.Linear(config.hidden, 1)
        for zero in (self.gate.weight, self.gate.bias, self.second.weight, self.second.bias):
            nn.init.zeros_(zero)

    def train(self, mode: bool = True) -> Mixer:
        """Once trained, a short head reads no further back than events count for anything by their
        steps: with baskets these are a dozen of 48, and a reading costs by the event."""
        super().train(mode)
        self.counting = {} if mode else self._counting()
        return self

    @torch.no_grad()
    def _counting(self) -> dict[int, int]:
        found = {}
        steps_L = torch.arange(max(1, self.reach), device=self.decay.device)
        for which, head in enumerate(self.heads):
            if HEADS[head].long:
                continue
            loud_L = self._fade([which], steps_L)[:, 0].exp()
            # Not "louder": of what is no number all counts, and check_finite says what it is.
            counting = int((~(loud_L < _FAINT * loud_L.max())).nonzero()[-1]) + 1
            if counting < self.reach:
                found[which] = counting
        return found

    def forward(self, user: UserInputs, tables: Tables, others: list[Tensor]) -> Tensor:
        """[B, N]; `others` are the signals beside the heads, [B, ?, N] of some of them each.

        The mixture of what `said` says, and `others`; but heads are brought to standard deviations
        by the weights that they get, a few, instead of item by item (3 to 5% of a batch's time).
        """
        into_BRS, always_BR = self._into(user)
        signals = others
        if self.heads:
            raw_BKN = torch.stack([tables.say(*r) for r in self.readings(user)], dim=1)
            signals = [raw_BKN, *signals]
            mean_BK1, spread_BK1 = moments(raw_BKN)
            into_BRK = into_BRS[:, :, : len(self.heads)] / spread_BK1.transpose(1, 2)
            into_BRS = torch.cat([into_BRK, into_BRS[:, :, len(self.heads) :]], dim=2)
            always_BR = always_BR - (into_BRK @ mean_BK1)[:, :, 0]
        # What is always added comes as a weight of one more signal, which is 1 of every item.
        signals_BSN = torch.cat([*signals, torch.ones_like(signals[0][:, :1])], dim=1)
        into_BRS = torch.cat([into_BRS, always_BR[:, :, None]], dim=2)
        linear_BN = (into_BRS[:, :1] @ signals_BSN)[:, 0]
        hidden_BHN = (into_BRS[:, 1:] @ signals_BSN).relu()
        mixed_BN: Tensor = linear_BN + (self.second.weight @ hidden_BHN)[:, 0]
        return mixed_BN

    def _into(self, user: UserInputs) -> tuple[Tensor, Tensor]:
        """Weights [B, R, S] of the signals, and what is added to them, [B, R]; R: first the
        weighted sum, then the H hidden units."""
        weight_BS, asked_BH = self.asked(user)
        # Not expand(): that asks for the batch's size and takes nine nodes of the graph.
        first_BHS = torch.zeros_like(weight_BS)[:, None] + self.first_of_signals
        return torch.cat([weight_BS[:, None], first_BHS], dim=1), F.pad(asked_BH, (1, 0))

    def asked(self, user: UserInputs) -> tuple[Tensor, Tensor]:
        """What the context says: a weight per signal [B, S], and to the hidden units [B, H]."""
        context_BC = context(user, self._log_scale)
        weight_BS = self.weight + self.gate(self.asks(context_BC).tanh())
        asked_BH = F.linear(context_BC, self.first.weight[:, -CONTEXT:], self.first.bias)
        return weight_BS, torch.where(user.history_BL[:, -1:] > 0, asked_BH, _OFF)

    @property
    def first_of_signals(self) -> Tensor:
        """[H, S]"""
        return self.first.weight[:, :-CONTEXT]

    def said(self, user: UserInputs, tables: Tables) -> list[Tensor]:
        """Each head's word about every item, in standard deviations over the catalogue."""
        return [standardised(tables.say(*reading))[0] for reading in self.readings(user)]

    def readings(self, user: UserInputs) -> list[Reading]:
        """What each head asks of its table: a long one by all events, a short one by the newest."""
        found: dict[int, Reading] = {}
        bucket_BL = power_of_two(user.request_time_B1 - user.time_BL, _TIME_BUCKETS)
        for long, reach in ((True, self.longest), (False, self.reach)):
            heads = [which for which, head in enumerate(self.heads) if HEADS[head].long is long]
            if not heads:
                continue
            # Of all at once: a graph of fewer nodes.
            read = user if long else user.newest(reach)
            strength_BLK = self._strength(heads, read, bucket_BL[:, -reach:], reach)
            for which, strength_BL1 in zip(heads, torch.split(strength_BLK, 1, 2), strict=True):
                reading = Reading(HEADS[self.heads[which]].source, read.history_BL, strength_BL1)
                count = self.counting.get(which)
                found[which] = reading if count is None else reading.newest(count)
        return [found[which] for which in range(len(self.heads))]

    def _strength(
        self, heads: list[int], user: UserInputs, bucket_BL: Tensor, reach: int
    ) -> Tensor:
        """[B, L, K]: how much each event counts to each of K heads, by its steps and seconds back,
        and by its own weight; L is at most `reach`."""
        length = user.history_BL.shape[1]
        # A graph is of any length: what follows of `reach` alone is a constant of it.
        most = length if self.training else reach
        steps_L = most - 1 - torch.arange(most, device=user.history_BL.device)
        fade_LK = self._fade(heads, steps_L)[most - length :]
        log_BLK = fade_LK + F.embedding(bucket_BL, self.by_time[heads].T)
        by_weight_BLK = 1.0 + self.by_weight[heads] * user.weight_BL[:, :, None]
        return torch.where((user.history_BL > 0)[:, :, None], log_BLK.exp() * by_weight_BLK, 0.0)

    def _fade(self, heads: list[int], steps_L: Tensor) -> Tensor:
        """[L, K]: log of what so many steps back leave of an event's strength."""
        by_steps_LK = F.embedding(power_of_two(steps_L, _STEP_BUCKETS), self.by_steps[heads].T)
        return by_steps_LK - F.softplus(self.decay[heads]) * steps_L[:, None]


def context(user: UserInputs, log_scale_4: Tensor) -> Tensor:
    """[B, CONTEXT], each about 0 to 1."""
    here_BL = user.history_BL > 0
    last_B1 = user.time_BL[:, -1:]
    some_B1 = here_BL[:, -1:].to(torch.float32)
    count_B1 = _count(here_BL)
    gap_B1 = (user.request_time_B1 - last_B1).to(torch.float32).clamp(0, 2**31) * some_B1
    page_B1 = _count(here_BL & (user.time_BL == last_B1))
    hour_B1 = _count(here_BL & (user.time_BL >= last_B1 - _HOUR))
    logs_B4 = torch.cat([count_B1, gap_B1, page_B1, hour_B1], dim=1).log1p()
    return torch.cat(
        [
            1.0 - some_B1,
            logs_B4 / log_scale_4,
            hour_B1 / count_B1.clamp(min=1.0),
            (gap_B1 > _HOUR).to(torch.float32),
        ],
        dim=1,
    )


def _count(true_BL: Tensor) -> Tensor:
    return true_BL.to(torch.float32).sum(dim=1, keepdim=True)


def standardised(said_BN: Tensor) -> tuple[Tensor, Tensor]:
    """[B, N] in standard deviations over the catalogue, and [B, 1] one of them."""
    mean_B1, spread_B1 = moments(said_BN)
    return (said_BN - mean_B1) / spread_B1, spread_B1


def moments(said_N: Tensor) -> tuple[Tensor, Tensor]:
    """[..., 1] twice, of [..., N]: mean and standard deviation over the catalogue."""
    mean_1 = said_N.mean(dim=-1, keepdim=True)
    variance_1 = said_N.square().mean(dim=-1, keepdim=True) - mean_1.square()
    # Clamped, not added to: a head that says nothing stays at 0, with a finite gradient, and
    # ONNX Runtime does not take this for a normalisation layer, which it would fuse to NaN.
    return mean_1, variance_1.clamp(min=1e-12).sqrt()
