"""Train the encoder by cross-entropy over the whole catalogue. Deterministic for a seed, on the
same machine and number of threads (a GPU adds up in any order: nearly the same weights there).

The loop knows no files but one checkpoint, written after every epoch, from which
the same run goes on to the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recommender.config import TrainingConfig
from recommender.contract import Array
from recommender.models.device import device_of
from recommender.models.encoder import Encoder
from recommender.models.scorer import UserInputs
from recommender.users import Users

IGNORED = -100  # cross_entropy's own default

Progress = Callable[[str, int, int], None]  # what, done, of how many


def silent(what: str, done: int, total: int) -> None:
    """A Progress that shows nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sequences:
    """One batch of training sequences, right-aligned: predict `target` at every position."""

    user: UserInputs
    target: Tensor  # [B, L] int64, IGNORED at padding and where nothing was wanted

    def to(self, device: torch.device) -> Sequences:
        return Sequences(user=self.user.to(device), target=self.target.to(device))


def train_encoder(
    encoder: Encoder,
    users: Users,
    config: TrainingConfig,
    *,
    epochs: int,
    score: Callable[[Encoder], float] | None = None,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> list[float]:
    """Train for `epochs`; with `score` (higher is better, asked after each epoch) stop when it has
    not risen for `patience` epochs. Leaves the best epoch's averaged weights in `encoder`, the
    last epoch's without `score`. Returns the scores. The encoder is on `config.device` while it is
    trained and asked, and on the CPU afterwards.

    The average over steps (EMA) replaces a learning rate schedule: without it the
    score jumps by more between epochs than a recipe gains.
    """
    device = device_of(config.device)
    state = _Loop(encoder.to(device), config)
    if checkpoint is not None and checkpoint.exists():
        state.load(checkpoint, device)
    while state.epoch < epochs and not (score and state.stale(config.patience)):
        rng = np.random.default_rng((config.seed, state.epoch))
        torch.manual_seed(config.seed * 1_000_003 + state.epoch)
        batches = list(_batches(users, config, min(config.length, encoder.reach), rng))
        for done, batch in enumerate(batches):
            state.step(batch.to(device))
            progress(f"epoch {state.epoch + 1}", done + 1, len(batches))
        state.end_epoch(score)
        if checkpoint is not None:
            state.save(checkpoint)
    encoder.load_state_dict(state.best if score else state.average)
    encoder.cpu().eval()
    return state.scores


class _Loop:
    """What a checkpoint holds: weights, optimiser, average, and the best epoch so far."""

    def __init__(self, encoder: Encoder, config: TrainingConfig) -> None:
        self.encoder, self.config = encoder, config
        self.optimizer = torch.optim.AdamW(
            encoder.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.average = {k: v.detach().clone() for k, v in encoder.state_dict().items()}
        self.best = self.average
        self.scores: list[float] = []
        self.steps = 0

    @property
    def epoch(self) -> int:
        return len(self.scores)

    def stale(self, patience: int) -> bool:
        return bool(self.scores) and self.epoch - 1 - int(np.argmax(self.scores)) >= patience

    def step(self, batch: Sequences) -> None:
        self.encoder.train()
        self.steps += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * min(1.0, self.steps / self.config.warmup)
        loss = encoder_loss(self.encoder, batch, self.config.negatives)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), 5.0)
        self.optimizer.step()
        # A young average would remember the random start: warm its decay up.
        decay = min(self.config.average, self.steps / (self.steps + 10))
        with torch.no_grad():
            for name, value in self.encoder.state_dict().items():
                self.average[name].lerp_(value, 1.0 - decay)

    def end_epoch(self, score: Callable[[Encoder], float] | None) -> None:
        if score is None:
            self.scores.append(0.0)
            return
        raw = {k: v.detach().clone() for k, v in self.encoder.state_dict().items()}
        self.encoder.load_state_dict(self.average)
        self.encoder.eval()
        self.scores.append(score(self.encoder))
        if self.scores[-1] >= max(self.scores):
            self.best = {k: v.clone() for k, v in self.average.items()}
        self.encoder.load_state_dict(raw)

    def save(self, path: Path) -> None:
        state: dict[str, Any] = {
            "encoder": self.encoder.state_dict(), "optimizer": self.optimizer.state_dict(),
            "average": self.average, "best": self.best, "scores": self.scores, "steps": self.steps,
        }  # fmt: skip
        unfinished = path.with_suffix(".tmp")
        torch.save(state, unfinished)
        unfinished.replace(path)

    def load(self, path: Path, device: torch.device) -> None:
        state = torch.load(path, weights_only=True, map_location=device)
        self.encoder.load_state_dict(state["encoder"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.best = state["average"], state["best"]
        self.scores, self.steps = state["scores"], state["steps"]


def encoder_loss(encoder: Encoder, batch: Sequences, negatives: int) -> Tensor:
    """Mean cross-entropy of the next item over the whole catalogue, of all targets.

    Of a catalogue above twice `negatives`, that many items drawn evenly stand for all: their
    part of the sum is scaled up to the catalogue's (sampled softmax, arXiv 1412.2007).
    """
    table_ND = encoder.item_table()
    query_BLD = encoder(batch.user, table_ND, last_only=False)
    here_BL = batch.target != IGNORED
    query_XD, target_X = query_BLD[here_BL], batch.target[here_BL]
    if len(table_ND) <= 2 * negatives:
        logits_XN = F.linear(query_XD, table_ND, encoder.bias)
        return F.cross_entropy(logits_XN[:, 1:], target_X - 1)
    drawn_M = torch.randint(1, len(table_ND), (negatives,), device=table_ND.device)
    logits_XM = F.linear(query_XD, table_ND[drawn_M], encoder.bias[drawn_M])
    logits_XM = logits_XM.masked_fill(drawn_M == target_X[:, None], -torch.inf)
    wanted_X = (query_XD * table_ND[target_X]).sum(dim=1) + encoder.bias[target_X]
    others_X = logits_XM.logsumexp(dim=1) + math.log(len(table_ND) / negatives)
    loss: Tensor = (torch.logaddexp(wanted_X, others_X) - wanted_X).mean()
    return loss


def _batches(
    users: Users, config: TrainingConfig, length: int, rng: np.random.Generator
) -> Iterator[Sequences]:
    """Every event of `Users.targets` is a target once an epoch; the others are only read. Events
    of one user at the same instant come in a new random order each time: their order in the data
    means nothing."""
    row = np.repeat(np.arange(len(users)), users.lengths)
    order = np.lexsort((rng.random(len(row)), users.times, row))
    items, times, weights = users.items[order], users.times[order], users.weights[order]
    targets = np.where(users.targets[order], items, IGNORED)

    windows = [
        (user, int(start), int(min(start + length, end)))
        for user, begin, end in zip(
            range(len(users)), users.offsets[:-1], users.offsets[1:], strict=True
        )
        for start in range(int(begin), int(end), length)
        if (targets[start : min(start + length, end)] != IGNORED).any()
    ]
    rng.shuffle(windows)
    # Short histories come more to a batch, so that one always holds about as many events. Like
    # lengths together, or padding would be half the work; groups keep the mix random.
    batch = max(config.batch, config.batch_events * len(windows) // max(1, len(items)))
    batches = []
    for at in range(0, len(windows), batch * 16):
        part = sorted(windows[at : at + batch * 16], key=lambda w: w[2] - w[1])
        batches += [part[i : i + batch] for i in range(0, len(part), batch)]
    rng.shuffle(batches)
    for rows in batches:
        yield _sequences(rows, users, items, times, weights, targets)


def _sequences(
    windows: Sequence[tuple[int, int, int]],
    users: Users,
    items: Array,
    times: Array,
    weights: Array,
    targets: Array,
) -> Sequences:
    """Inputs are the events before each target: the first one of a user follows padding alone."""
    length = max(end - start for _, start, end in windows)
    shape = (len(windows), length)
    history, time = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    weight, target = np.zeros(shape, np.float32), np.full(shape, IGNORED)
    for row, (user, start, end) in enumerate(windows):
        first = start - 1 if start > users.offsets[user] else start
        inputs = slice(length - (end - 1 - first), length)
        history[row, inputs] = items[first : end - 1]
        time[row, inputs] = times[first : end - 1]
        weight[row, inputs] = weights[first : end - 1]
        target[row, length - (end - start) :] = targets[start:end]
    rows = [user for user, _, _ in windows]
    return Sequences(
        user=UserInputs(
            history_BL=torch.from_numpy(history),
            time_BL=torch.from_numpy(time),
            weight_BL=torch.from_numpy(weight),
            request_time_B1=torch.from_numpy(time[:, -1:]),
            features_BU=torch.from_numpy(users.features[rows]),
        ),
        target=torch.from_numpy(target),
    )
