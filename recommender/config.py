"""The recipe of a training: frozen dataclasses, read from TOML, changed by `--set key=value`.

    [encoder]      the transformer
    [signals]      item-to-item, trend, popularity
    [training]     epochs, batch, learning rate, seed

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
    blank: float = 0.1  # share of history tokens blanked out in training


@dataclass(frozen=True, kw_only=True)
class SignalConfig:
    neighbours: int = 50  # M, similar items kept per item
    shrink: float = 10.0  # added to the cosine's denominator: few co-occurrences count less
    decay: float = 0.5  # per step back in the history: weight exp(-decay x steps)
    half_life_days: float = 7.0  # of the trend
    trend_bins: int = 400  # moments at which the trend is tabulated


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    epochs: int = 40  # at most; early stopping on the held-out part usually ends sooner
    patience: int = 8  # epochs without a better NDCG@10
    batch: int = 16  # sequences
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    warmup: int = 50  # steps
    average: float = 0.99  # decay of the moving average of weights, per step
    length: int = 200  # longest history read; the largest length bucket
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Config:
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    signals: SignalConfig = field(default_factory=SignalConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "full": {},
    "quick": {"training": {"epochs": 30}},
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


def _typed(section: str, name: str, value: object, default: float | int) -> float | int:
    kind = type(default)
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
