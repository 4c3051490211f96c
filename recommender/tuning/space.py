"""What may be tuned: a small table of settings with their ranges and why they are in it.

A setting belongs to a part of the training, the later the cheaper: another value of it
costs a mixer, the signals' tables too, or the encoders as well. Knows no training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from recommender.config import Config
from recommender.data.config import DataConfig
from recommender.errors import BadInput, shown

MIXER, TABLES, ENCODER = "mixer", "signals", "encoder"
SPACES = (MIXER, TABLES, ENCODER, "all")


@dataclass(frozen=True, kw_only=True)
class Setting:
    name: str  # section.key of the recipe
    part: str  # MIXER, TABLES or ENCODER: the first stage that another value makes anew
    low: float
    high: float
    log: bool = False  # drawn by factors
    whole: bool = False
    why: str

    def distribution(self) -> BaseDistribution:
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def reaching(self, value: float) -> Setting:
        """With `value` inside the range, where it can be drawn at all."""
        if self.log and value <= 0:
            return self
        return replace(self, low=min(self.low, value), high=max(self.high, value))


SETTINGS = (
    Setting(name="mixer.learning_rate", part=MIXER, low=0.002, high=0.05, log=True,
            why="few steps decide: too low learns nothing, too high forgets"),
    Setting(name="mixer.epochs", part=MIXER, low=1, high=8, whole=True,
            why="more of them fit the queries better, and at last too well"),
    Setting(name="mixer.hidden", part=MIXER, low=4, high=48, log=True, whole=True,
            why="how fine the context decides between signals"),
    Setting(name="mixer.weight_decay", part=MIXER, low=1e-5, high=0.1, log=True,
            why="holds the weights of signals that say alike"),
    Setting(name="mixer.batch", part=MIXER, low=16, high=256, log=True, whole=True,
            why="queries a step: with the rate, how noisy the way is"),
    Setting(name="mixer.reach", part=MIXER, low=8, high=128, log=True, whole=True,
            why="how much of the recent past speaks; costs time of every answer"),
    Setting(name="signals.neighbours", part=TABLES, low=32, high=256, log=True, whole=True,
            why="items kept per item: what is cut off, and what an answer costs"),
    Setting(name="signals.ridge", part=TABLES, low=0.5, high=50.0, log=True,
            why="of EASE: the sparser the data, the more of it"),
    Setting(name="signals.shrink", part=TABLES, low=1.0, high=100.0, log=True,
            why="how little few co-occurrences count"),
    Setting(name="signals.recent_share", part=TABLES, low=0.05, high=0.5, log=True,
            why="how fast taste moves, for the regression on what is recent"),
    Setting(name="encoder.dropout", part=ENCODER, low=0.0, high=0.5,
            why="the encoder's main guard against learning users by heart"),
    Setting(name="encoder.blank", part=ENCODER, low=0.0, high=0.4,
            why="histories with gaps: helps where they are noisy"),
    Setting(name="training.learning_rate", part=ENCODER, low=5e-4, high=8e-3, log=True,
            why="of the encoder"),
    Setting(name="training.average", part=ENCODER, low=0.9, high=0.999,
            why="how long the average of weights remembers; more for more steps"),
    Setting(name="mixer.cut_epochs", part=ENCODER, low=3, high=24, log=True, whole=True,
            why="of the encoders before a cut, which nothing stops early"),
)  # fmt: skip


def space_of(base: Config, name: str, only: Sequence[str] = ()) -> tuple[Setting, ...]:
    """The settings of a space of SPACES, or of `only` among all; ranges reach the base's values.

    Raises BadInput for a name that does not exist.
    """
    if name not in SPACES:
        raise BadInput(f"space {shown(name)} does not exist", remedy=f"Choose {', '.join(SPACES)}.")
    known = {setting.name: setting for setting in SETTINGS}
    if unknown := [key for key in only if key not in known]:
        raise BadInput(
            f"setting {shown(unknown[0])} cannot be tuned", remedy=f"Settings: {', '.join(known)}."
        )
    chosen = [
        setting
        for setting in SETTINGS
        if (setting.name in only if only else name in (setting.part, "all"))
    ]
    if "encoder" not in base.signals.use:
        chosen = [setting for setting in chosen if setting.part != ENCODER]
    if not chosen:
        raise BadInput(
            "no setting is left to tune: the recipe has no encoder",
            remedy="Tune another --space, or let signals.use name the encoder.",
        )
    return tuple(setting.reaching(value_of(base, setting.name)) for setting in chosen)


def value_of(config: Config, name: str) -> Any:
    section, _, key = name.partition(".")
    return getattr(getattr(config, section), key)


def changed(config: Config, values: Mapping[str, Any]) -> Config:
    """`config` with `section.key` values."""
    for name, value in values.items():
        section, _, key = name.partition(".")
        part = replace(getattr(config, section), **{key: value})
        config = replace(config, **{section: part})
    return config


def without(config: Config, *parts: str) -> Config:
    """`config` with every setting that only `parts` depend on at its default: two recipes of
    which this is the same share all that is made before those parts."""
    defaults = Config()
    names = [setting.name for setting in SETTINGS if setting.part in parts]
    return changed(config, {name: value_of(defaults, name) for name in names})


def seeded(config: Config, seed: int) -> Config:
    return changed(config, {"training.seed": seed})


def to_toml(config: Config, data: DataConfig, comment: str) -> str:
    """What differs from the defaults, for `--config`."""
    lines = [f"# {line}" for line in comment.splitlines()]
    for section, part in (("data", data), *((f.name, getattr(config, f.name)) for f in
                                            fields(config))):  # fmt: skip
        defaults = type(part)()
        found = {
            f.name: value
            for f in fields(part)
            if (value := getattr(part, f.name)) != getattr(defaults, f.name)
        }
        if found:
            lines += ["", f"[{section}]", *(f"{k} = {_literal(v)}" for k, v in found.items())]
    return "\n".join(lines) + "\n"


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        pairs = (f"{json.dumps(str(k), ensure_ascii=False)} = {_literal(v)}" for k, v
                 in value.items())  # fmt: skip
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_literal, value))}]"
    return repr(value)


def described(space: Sequence[Setting]) -> list[dict[str, Any]]:
    return [asdict(setting) for setting in space]
