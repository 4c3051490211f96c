"""The recipe of a training: frozen dataclasses, read from TOML, changed by `--set key=value`.

    [encoder]      the transformer
    [signals]      which signals, and how they are counted
    [mixer]        what mixes them, and how it is trained
    [training]     epochs, batch, learning rate, seed, device

Presets are TOML tables over the defaults below; `full` is the defaults themselves.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recommender.errors import BadInput, shown


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    width: int = 64  # d, of item vectors and layers
    layers: int = 2
    heads: int = 2
    dropout: float = 0.2
    reach: int = 48  # newest events read for an answer: attention's cost grows with their square
    blank: float = 0.1  # share of history tokens blanked out in training


@dataclass(frozen=True, kw_only=True)
class Head:
    """One reading of the history: through which item-to-item table, how far back at first."""

    source: str
    decay: float  # per step back, before training
    long: bool = False  # reads the whole history


# A table may be read twice: by what came last, and by the whole history.
HEADS: Mapping[str, Head] = {
    "ease_long": Head(source="ease", decay=0.02, long=True),
    "ease": Head(source="ease", decay=0.2),
    "ease_recent": Head(source="ease_recent", decay=0.1),
    "basket": Head(source="basket", decay=0.3),
    "following": Head(source="following", decay=0.3),
    "similar": Head(source="similar", decay=0.2),
    "content": Head(source="content", decay=0.2),
    "repeat": Head(source="repeat", decay=0.02, long=True),  # only where repurchase is allowed
}
SOURCES = ("ease", "ease_recent", "basket", "following", "similar", "content", "repeat")
SIGNALS = ("encoder", *HEADS, "trend", "popularity", "age", "affinity")
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True, kw_only=True)
class SignalConfig:
    use: tuple[str, ...] = SIGNALS  # names of SIGNALS; fewer cost less
    neighbours: int = 128  # M, items kept per item of a table without a rest
    rest_neighbours: int = 64  # M of a table with a rest: those of `deep`
    rest_rank: int = 64  # R of the rest, what a table says of all others; 0: no rest
    shrink: float = 10.0  # added to a cosine's denominator: few co-occurrences count less
    ridge: float = 5.0  # of EASE, times the mean events of an item: sparse data is trusted sooner
    ease_items: int = 6000  # the most popular ones: its inverse is dense
    recent_share: float = 0.2  # of the events, within one half-life of ease_recent
    half_life_days: tuple[float, ...] = (0.5, 2.0, 7.0, 30.0, 90.0)  # of the trends
    trend_bins: int = 800  # moments at which trends are tabulated, at most
    decay: float = 0.5  # of item-knn, per step back in the history


@dataclass(frozen=True, kw_only=True)
class MixerConfig:
    hidden: int = 16
    reach: int = 48  # newest events that short heads read
    epochs: int = 3
    batch: int = 64
    learning_rate: float = 0.01
    weight_decay: float = 1e-3
    held_out: int = 10  # newest events of a user that may be asked for, at most
    queries: int = 10_000  # next-item queries, at most; fewer of catalogues above 4,000 items
    cuts: int = 9  # moments at which what comes next is asked of everybody
    cut_encoders: int = 5  # cuts at which the encoder is trained on, at most
    cut_epochs: int = 12  # of the encoder at the first of them; a third of them at others
    ablate: int = 0  # 1: report what each signal pays and costs (the mixer once more for each)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    epochs: int = 40  # at most; early stopping on the held-out part usually ends sooner
    events: int = 5_000_000  # read by a training at most, over all epochs: large data needs fewer
    patience: int = 8  # epochs without a better NDCG@10
    batch: int = 16  # sequences, at least
    batch_events: int = 1500  # about as many events a batch: short histories come more to one
    negatives: int = 2048  # items that stand for all others, of catalogues above twice as many
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    warmup: int = 50  # steps
    average: float = 0.99  # decay of the moving average of weights, per step
    length: int = 200  # longest history read; the largest length bucket
    seed: int = 0
    device: str = "auto"  # of DEVICES; auto: a GPU where torch sees one, else the CPU


@dataclass(frozen=True, kw_only=True)
class Config:
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    signals: SignalConfig = field(default_factory=SignalConfig)
    mixer: MixerConfig = field(default_factory=MixerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "full": {},
    "quick": {
        "training": {"epochs": 24, "patience": 5},
        "mixer": {"queries": 4000, "cuts": 5, "cut_encoders": 3, "cut_epochs": 6, "epochs": 2},
    },
}


def read(preset: str = "full", file: Path | None = None, settings: Iterable[str] = ()) -> Config:
    """The preset, changed by a TOML file, changed by `section.key=value` settings.

    Raises BadInput naming the key, the value seen and what is allowed.
    """
    if preset not in PRESETS:
        raise BadInput(
            f"preset {shown(preset)} does not exist", remedy=f"Choose {' or '.join(PRESETS)}."
        )
    config = _changed(Config(), PRESETS[preset])
    if file is not None:
        try:
            config = _changed(config, tomllib.loads(file.read_text()))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadInput(f"{file} is not TOML: {error}", remedy="Mend the file.") from error
    for setting in settings:
        key, equals, value = setting.partition("=")
        section, dot, name = key.partition(".")
        if not (equals and dot):
            raise BadInput(
                f"setting {shown(setting)} is not section.key=value",
                remedy="Write for example --set training.epochs=10.",
            )
        config = _changed(config, {section: {name: value}})
    return config


def from_json(raw: Mapping[str, Mapping[str, Any]]) -> Config:
    return _changed(Config(), raw)


def to_json(config: Config) -> dict[str, Any]:
    return dataclasses.asdict(config)


def _changed(config: Config, sections: Mapping[str, Any]) -> Config:
    for section, values in sections.items():
        if section == "data":  # how the folder is read: recommender/data/config.py
            continue
        known = [f.name for f in dataclasses.fields(config)]
        if section not in known or not isinstance(values, Mapping):
            raise BadInput(
                f"setting {shown(section)} is no section", remedy=f"Sections: {', '.join(known)}."
            )
        part = getattr(config, section)
        defaults = {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
        for name, value in values.items():
            if name not in defaults:
                raise BadInput(
                    f"setting {section}.{name} does not exist",
                    remedy=f"Settings of {section}: {', '.join(defaults)}.",
                )
            part = dataclasses.replace(part, **{name: _typed(section, name, value, defaults[name])})
        config = dataclasses.replace(config, **{section: part})
    return config


def _typed(section: str, name: str, value: object, default: object) -> object:
    if isinstance(default, tuple):
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            raise BadInput(f"{section}.{name} is {shown(value)}", remedy="Give a list.")
        stripped = [part.strip() if isinstance(part, str) else part for part in parts]
        if name == "use":
            return _signals(stripped)
        return tuple(_number(section, name, part, default[0]) for part in stripped if part != "")
    if name == "device":
        if value not in DEVICES:
            raise BadInput(
                f"{section}.{name} is {shown(value)}", remedy=f"Choose {', '.join(DEVICES)}."
            )
        return value
    return _number(section, name, value, default)


def _signals(names: Iterable[object]) -> tuple[str, ...]:
    chosen = tuple(name for name in SIGNALS if name in names)
    if unknown := [name for name in names if name not in SIGNALS]:
        raise BadInput(
            f"signal {shown(unknown[0])} does not exist", remedy=f"Signals: {', '.join(SIGNALS)}."
        )
    if not chosen:
        raise BadInput("signals.use is empty", remedy=f"Signals: {', '.join(SIGNALS)}.")
    return chosen


def _number(section: str, name: str, value: object, default: object) -> float | int:
    kind = int if isinstance(default, int) else float
    try:
        number = kind(str(value))
    except ValueError as error:
        raise BadInput(
            f"{section}.{name} is {shown(value)}",
            remedy=f"Give {'a whole number' if kind is int else 'a number'} like {default}.",
        ) from error
    if not 0 <= number < 1e9:
        raise BadInput(f"{section}.{name} is {number}", remedy="Give a number from 0 to 1e9.")
    return number
