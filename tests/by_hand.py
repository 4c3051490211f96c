"""What parts of a deep model say, computed in numpy from its weights and from histories, one user
at a time, without any of the code that is to be tested."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import erf

from recommender.contract import Array
from recommender.models.scorer import UserInputs
from recommender.runs import Run
from recommender.users import Users

Weights = dict[str, Array]  # of a state_dict, by name


def weights_of(run: Run) -> Weights:
    return {
        name.removeprefix("scorer."): value.numpy().astype(np.float64)
        if value.is_floating_point()
        else value.numpy()
        for name, value in run.graph.state_dict().items()
    }


def _bucket(value: Array) -> Array:
    return np.floor(np.log2(value + 1.0) + 0.37).astype(int)


def _linear(w: Weights, name: str, x: Array) -> Array:
    out: Array = x @ w[f"{name}.weight"].T + w[f"{name}.bias"]
    return out


def _norm(w: Weights, name: str, x: Array) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    out: Array = scaled * w[f"{name}.weight"] + w[f"{name}.bias"]
    return out


def _rows(user: UserInputs) -> list[dict[str, Array]]:
    """The events of each row, padding left out, and what else is known of it."""
    rows = []
    for b in range(len(user.history_BL)):
        here = user.history_BL[b].numpy() > 0
        rows.append(
            {
                "items": user.history_BL[b].numpy()[here],
                "times": user.time_BL[b].numpy()[here],
                "weights": user.weight_BL[b].numpy()[here].astype(np.float64),
                "now": user.request_time_B1[b, 0].numpy(),
                "features": user.features_BU[b].numpy(),
            }
        )
    return rows


def item_vectors(run: Run, w: Weights) -> Array:
    """[N, d]: each item's own vector plus the mean of its categories', for items with events."""
    catalogue, table = run.blueprint.catalogue, w["encoder.item.weight"].copy()
    for index, names in enumerate(catalogue.categories, start=1):
        if names:
            which = [catalogue.category_names.index(name) for name in names]
            table[index] += w["encoder.category.weight"][which].mean(axis=0)
    return table


def encoder_logits(run: Run, user: UserInputs) -> Array:
    """[B, N]: the transformer's query at the newest event, by every item, plus the item's bias."""
    w, config = weights_of(run), run.blueprint.config.encoder
    table = item_vectors(run, w)
    queries = [_query(w, table, row, config) for row in _rows(user)]
    logits: Array = np.stack(queries) @ table.T + w["encoder.bias"]
    return logits


def _query(w: Weights, table: Array, row: dict[str, Array], config: Any) -> Array:
    items, times, weights = (row[name][-config.reach :] for name in ("items", "times", "weights"))
    if not len(items):  # a lonely padding event
        items, times, weights = np.zeros(1, int), np.zeros(1, int), np.zeros(1)
    x = table[items] + weights[:, None] * w["encoder.strength"]
    for column, value in enumerate(row["features"]):
        x = x + w[f"encoder.user.{column}"][value]
    place = np.arange(len(items))
    steps, since = place[:, None] - place[None, :], times[:, None] - times[None, :]
    bias = (
        w["encoder.by_distance.weight"][steps.clip(0)]
        + w["encoder.by_time.weight"][_bucket(since.clip(0, 2**27 - 1))]
    )  # [query, key, head]
    for layer in range(config.layers):
        x = _layer(w, f"encoder.layers.{layer}", x, bias, steps < 0, config.heads)
    return _norm(w, "encoder.final", x)[-1]


def _layer(w: Weights, name: str, x: Array, bias: Array, later: Array, heads: int) -> Array:
    normed, width = _norm(w, f"{name}.norm", x), x.shape[1]
    query, both = _linear(w, f"{name}.query", normed), _linear(w, f"{name}.key_value", normed)
    key, value, d = both[:, :width], both[:, width:], width // heads
    mixed = []
    for head in range(heads):
        part = slice(head * d, (head + 1) * d)
        logits = query[:, part] @ key[:, part].T / np.sqrt(d) + bias[:, :, head]
        share = np.exp(np.where(later, -np.inf, logits))
        mixed.append(share / share.sum(axis=1, keepdims=True) @ value[:, part])
    x = x + _linear(w, f"{name}.out", np.concatenate(mixed, axis=1))
    wide = _linear(w, f"{name}.feed_forward.1", _norm(w, f"{name}.feed_forward.0", x))
    active = wide * 0.5 * (1.0 + erf(wide / np.sqrt(2.0)))
    out: Array = x + _linear(w, f"{name}.feed_forward.3", active)
    return out


def table_says(run: Run, user: UserInputs, head: str) -> Array:
    """[B, N]: what the newest events say through the head's table, each as strong as learned."""
    w, mixer = weights_of(run), run.graph.scorer.mixer
    which, said = mixer.heads.index(head), np.zeros((len(user.history_BL), run.blueprint.items))
    decay = np.log1p(np.exp(w["mixer.decay"][which]))
    fades = [
        w["mixer.by_steps"][which][min(int(_bucket(np.array(back))), 11)] - decay * back
        for back in range(run.blueprint.config.mixer.reach)
    ]
    reach = 1 + max(np.flatnonzero(fades >= max(fades) + np.log(0.01)))  # the rest is too faint
    for b, row in enumerate(_rows(user)):
        events = [row[name][-reach:] for name in ("items", "times", "weights")]
        for back, (item, time, weight) in enumerate(zip(*(e[::-1] for e in events), strict=True)):
            by_time = w["mixer.by_time"][which][min(int(_bucket(row["now"] - time)), 29)]
            strength = np.exp(fades[back] + by_time) * (1.0 + w["mixer.by_weight"][which] * weight)
            np.add.at(
                said[b],
                w[f"tables.{head}_item"][item],
                strength * w[f"tables.{head}_weight"][item],
            )
            said[b] += strength * (w[f"tables.{head}_left"][item] @ w[f"tables.{head}_right"])
    return said


def counts(users: Users, items: int) -> Array:
    """[N]: how often each was wanted; returns, and what they take back, are left out."""
    return np.bincount(users.items[users.targets], minlength=items).astype(float)


def decayed_counts(users: Users, items: int, moment: int, half_life_s: float) -> Array:
    """[N]: every event before `moment` counts 1, half as much for every half-life since."""
    found = np.zeros(items)
    for item, time, wanted in zip(users.items, users.times, users.targets, strict=True):
        if wanted and time < moment:
            found[item] += 0.5 ** ((moment - time) / half_life_s)
    return found


def in_spreads(said_BN: Array) -> Array:
    """In standard deviations over the catalogue; who says nothing stays silent."""
    centred, spread = said_BN - said_BN.mean(axis=-1, keepdims=True), said_BN.std(-1, keepdims=True)
    out: Array = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)
    return out
