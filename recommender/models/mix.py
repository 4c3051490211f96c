"""Train the mixer on questions whose answers nothing it mixes has seen.

Three kinds, so that one set of weights answers all: what this user did next (signals and
encoder fitted without the newest events), what everybody wanted after a moment (fitted on
what came before it), and which of some items that nothing was known of (fitted without
them). Softmax cross-entropy over the catalogue minus what is seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from recommender.config import MixerConfig
from recommender.contract import Array, Limits
from recommender.data.split import Query, requests
from recommender.features import tensors
from recommender.models.deep import Deep
from recommender.models.learn import Progress, silent
from recommender.models.mixer import Mixer
from recommender.models.scorer import UserInputs
from recommender.users import Users

NEXT_ITEM, AFTER_CUT, UNTOUCHED = "next item", "after a cut", "untouched items"
_HISTORY_RATE = 3.0  # times the learning rate: decays and bucket weights start far from home
_CUT_SAY = 1.0  # what all questions after a cut weigh, beside all next-item ones
_UNTOUCHED_SAY = 0.15  # the same of questions for untouched items
_GROUP = 8  # batches among which like lengths are put together


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """A scorer as it was at some moment, and what was asked then."""

    kind: str  # of question: NEXT_ITEM, AFTER_CUT or UNTOUCHED
    scorer: Deep
    queries: Sequence[Query]
    users: Users
    weight: Array  # [Q] of each query in the loss
    visits: int = 1  # times that each query is asked in an epoch
    candidates: Array | None = None  # [n] int64: rank these alone; None = the whole catalogue

    def part(self, rows: Array) -> View:
        """The same of some queries: `rows` is [Q] bool."""
        kept = [query for query, kept in zip(self.queries, rows, strict=True) if kept]
        return replace(self, queries=kept, weight=self.weight[rows])


def next_item_view(scorer: Deep, queries: Sequence[Query], users: Users) -> View:
    say = np.ones(len(queries))
    return View(kind=NEXT_ITEM, scorer=scorer, queries=queries, users=users, weight=say)


def cut_views(found: Sequence[tuple[Deep, Sequence[Query], Users]], next_items: int) -> list[View]:
    """Every query of a window weighs the same, however many its targets, and all of them together
    as much as `next_items` queries."""
    count = sum(len(queries) for _, queries, _ in found)
    visits = max(1, min(3, round(next_items / max(1, 2 * count))))
    say = _CUT_SAY * next_items / max(1, count * visits)
    return [
        View(
            kind=AFTER_CUT,
            scorer=scorer,
            queries=queries,
            users=users,
            weight=np.full(len(queries), say),
            visits=visits,
        )
        for scorer, queries, users in found
        if len(queries)
    ]


def untouched_view(
    scorer: Deep, queries: Sequence[Query], users: Users, candidates: Array, next_items: int
) -> View:
    """Ranks `candidates`, which `scorer` knows by their content only, among themselves: how an
    untouched item compares with others is learned from the cuts."""
    say = np.full(len(queries), _UNTOUCHED_SAY * next_items / max(1, len(queries)))
    return View(
        kind=UNTOUCHED,
        scorer=scorer,
        queries=queries,
        users=users,
        weight=say,
        candidates=candidates,
    )


def fit_mixer(
    mixer: Mixer,
    views: Sequence[View],
    limits: Limits,
    config: MixerConfig,
    *,
    seed: int,
    progress: Progress = silent,
) -> None:
    """Train `mixer`, which every view's scorer shares, in place, where they are. Deterministic for
    `seed`, as learn.py says."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    history = [mixer.decay, mixer.by_time, mixer.by_steps, mixer.by_weight]
    of_history = {id(p) for p in history}
    others = [p for p in mixer.parameters() if id(p) not in of_history]
    rates = (config.learning_rate, config.learning_rate * _HISTORY_RATE)
    optimizer = torch.optim.AdamW(
        [{"params": others, "lr": rates[0]}, {"params": history, "lr": rates[1]}],
        weight_decay=config.weight_decay,
    )
    asked = [_asked(view, limits) for view in views]
    epochs = [list(_batches(views, config.batch, rng)) for _ in range(config.epochs)]
    steps, done = sum(len(e) for e in epochs), 0
    mixer.train()
    for epoch in epochs:
        for which, rows in epoch:
            loss = _loss(views[which], asked[which], rows, limits)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(mixer.parameters(), 5.0)
            optimizer.step()
            done += 1
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * (1.0 - done / steps)
            progress("mixer", done, steps)
    mixer.eval()


@torch.no_grad()
def _asked(view: View, limits: Limits) -> Tensor | None:
    """[Q, d] query vectors of the frozen encoder."""
    if view.scorer.encoder is None:
        return None
    order = np.argsort([len(q.history) for q in view.queries], kind="stable")
    table = view.scorer.table
    vectors = torch.zeros(len(order), table.shape[1], device=table.device)
    for at in range(0, len(order), limits.max_batch_size):
        rows = order[at : at + limits.max_batch_size].tolist()
        vectors[rows] = view.scorer.query(_inputs(view, rows, limits)[0])
    return vectors


def _inputs(view: View, rows: Sequence[int], limits: Limits) -> tuple[UserInputs, Tensor]:
    """The batch, and its seen items [B, E]."""
    asked = requests([view.queries[row] for row in rows], view.users)
    arrays = tensors(asked, limits)
    device = view.scorer.table.device
    return UserInputs.of(arrays).to(device), torch.from_numpy(arrays["exclude"]).to(device)


def _batches(
    views: Sequence[View], batch: int, rng: np.random.Generator
) -> Iterator[tuple[int, list[int]]]:
    """One epoch: like lengths together, or padding would be half the work."""
    found: list[tuple[int, list[int]]] = []
    for which, view in enumerate(views):
        lengths = np.array([len(q.history) for q in view.queries])
        order = np.concatenate([rng.permutation(len(lengths)) for _ in range(view.visits)])
        for at in range(0, len(order), batch * _GROUP):
            group = order[at : at + batch * _GROUP]
            group = group[np.argsort(lengths[group], kind="stable")]
            found += [(which, rows.tolist()) for rows in np.split(
                group, range(batch, len(group), batch))]  # fmt: skip
    for position in rng.permutation(len(found)):
        yield found[position]


def _loss(view: View, asked: Tensor | None, rows: list[int], limits: Limits) -> Tensor:
    user, seen_BE = _inputs(view, rows, limits)
    scores_BN = view.scorer.mix(user, None if asked is None else asked[rows])
    never = torch.full_like(seen_BE, -1e9, dtype=scores_BN.dtype)
    scores_BN = scores_BN.scatter(1, seen_BE, never)
    if view.candidates is not None:
        others_N = torch.full(scores_BN.shape[1:], -1e9)
        others_N[torch.from_numpy(view.candidates)] = 0.0
        scores_BN = scores_BN + others_N.to(scores_BN.device)
    chances_BN = scores_BN.log_softmax(dim=1)
    targets = [view.queries[row].targets for row in rows]
    row = torch.from_numpy(np.repeat(np.arange(len(rows)), [len(t) for t in targets]))
    share = torch.from_numpy(
        np.repeat(view.weight[rows] / [len(t) for t in targets], [len(t) for t in targets])
    ).float()
    wanted = chances_BN[row, torch.from_numpy(np.concatenate(targets))]
    return -(wanted * share.to(wanted.device)).sum() / len(rows)
