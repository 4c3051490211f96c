"""`triton.toml` -> how each model is served: all that may be tuned without touching the model.

    queue_delay_us = 100          # top level: every model

    [recommender_torchscript]     # a model's own table goes over it
    instances = 2

What each setting does, Triton's name for it, and what it was measured to do: docs/triton.md.
Knows no Triton and no files; triton_config.py makes the text of a `config.pbtxt` of it,
configs.py writes it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from recommender.errors import BadInput, shown

Device = Literal["auto", "cpu", "gpu"]
Precision = Literal["off", "fp32", "fp16"]


@dataclass(frozen=True, kw_only=True)
class ServingConfig:
    """How one model is served; the defaults are what was measured to suit a small machine."""

    batching: bool = True  # requests that wait together are answered together
    queue_delay_us: int = 0  # longest wait for batch neighbours while the model is idle
    preferred_batch_sizes: tuple[int, ...] = ()  # rows: a batch of so many does not wait for more
    max_queue_size: int = 0  # requests that may wait; 0: any number
    queue_timeout_us: int = 0  # refused after waiting so long; 0: never
    instances: int = 1  # copies of the model, on each device
    kind: Device = "auto"  # a GPU where there is one, else the CPU
    gpus: tuple[int, ...] = ()  # device numbers; none: every GPU there is
    intra_op_threads: int = 1  # inside one operator; 0: the runtime's own choice
    inter_op_threads: int = 1  # operators at a time; 0: the runtime's own choice
    warmup: bool = True  # answer zeros of every shape before the first request
    tensorrt: Precision = "off"  # of ONNX models, on a GPU


WORDS: Mapping[str, tuple[str, ...]] = {"kind": get_args(Device), "tensorrt": get_args(Precision)}
RANGES: Mapping[str, tuple[int, int]] = {  # of a number, and of each number of a list
    "queue_delay_us": (0, 1_000_000),
    "preferred_batch_sizes": (1, 4096),
    "max_queue_size": (0, 1_000_000),
    "queue_timeout_us": (0, 60_000_000),
    "instances": (1, 64),
    "gpus": (0, 127),
    "intra_op_threads": (0, 999),
    "inter_op_threads": (0, 999),
}
LISTS = ("preferred_batch_sizes", "gpus")


@dataclass(frozen=True)
class Settings:
    """What a `triton.toml` says; an empty one says the defaults."""

    everywhere: ServingConfig = ServingConfig()
    by_model: Mapping[str, ServingConfig] = field(default_factory=dict)

    def of(self, model: str) -> ServingConfig:
        return self.by_model.get(model, self.everywhere)


def parse(content: bytes, source: str) -> Settings:
    """The settings of a TOML file's content; errors name `source`, where it comes from.

    Raises BadInput naming the key, the value seen and what is allowed.
    """
    try:
        raw = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{source} is not TOML: {error}", remedy="Mend the file.") from error
    tables = {name: value for name, value in raw.items() if isinstance(value, dict)}
    plain = {name: value for name, value in raw.items() if name not in tables}
    everywhere = _changed(ServingConfig(), plain, source)
    return Settings(
        everywhere,
        {model: _changed(everywhere, table, f"{source}, [{model}]")
         for model, table in tables.items()},
    )  # fmt: skip


def _changed(config: ServingConfig, table: Mapping[str, object], source: str) -> ServingConfig:
    known = [one.name for one in fields(ServingConfig)]
    for key, value in table.items():
        if key not in known:
            raise BadInput(
                f"{source}: {shown(key)} is no setting",
                remedy=f"Settings: {', '.join(known)}.",
                field=key,
            )
        if wanted := _allowed(key, value):
            raise BadInput(
                f"{source}: {key} is {shown(value)}",
                remedy=f"Set {key} to {wanted}.",
                field=key,
                value=value,
            )
        changed: Any = tuple(value) if isinstance(value, list) else value
        config = replace(config, **{key: changed})
    if config.gpus and config.kind != "gpu":
        raise BadInput(
            f"{source}: gpus is {list(config.gpus)} and kind is {config.kind!r}",
            remedy='Set kind = "gpu", or gpus = [].',
            field="gpus",
        )
    return config


def _allowed(key: str, value: object) -> str | None:
    """What `key` may be, where `value` is something else."""
    if words := WORDS.get(key):
        return None if value in words else " or ".join(f'"{word}"' for word in words)
    if key not in RANGES:
        return None if isinstance(value, bool) else "true or false"
    least, most = RANGES[key]
    span = f"from {least:,} to {most:,}"
    if key not in LISTS:
        return None if _within(value, least, most) else f"a whole number {span}"
    if isinstance(value, list) and all(_within(one, least, most) for one in value):
        return None if len({*value}) == len(value) else f"a list of different whole numbers {span}"
    return f"a list of whole numbers {span}"


def _within(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
