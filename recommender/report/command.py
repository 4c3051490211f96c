"""What went into a report -> the command that makes it again, quoted for a shell.

Whatever makes a difference to the figures stands in it: of the recipe all that differs from the
defaults, of the reading of the data all that the folder's own file does not say. So no preset and
no file has to be named. The new report's folder alone is left to choose: REPORT_DIR.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from recommender.config import Config, to_json
from recommender.data.config import DataConfig

REPORTS = "REPORT_DIR"
_NEXT = " \\\n    "  # one command over several lines


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a report's data and adapted models lie, as whoever asked for it named them."""

    folder: str = "DIR"  # of the data
    data: tuple[str, ...] = ()  # of `beyond`
    runs: tuple[str, ...] = ()  # folders of the adapted models, in their order


def again(
    protocol: str, families: Sequence[str], config: Config, source: Source, *, draw: int = 0
) -> str:
    """The command that trains `families` by `config` and judges them beside the adapted models."""
    words = ["recserve", "evaluate", source.folder, "--protocol", protocol]
    words += ["--models", ",".join(families), "--out", REPORTS]
    further = [("--run", run) for run in source.runs]
    further += [("--draw", str(draw))] if draw else []
    further += [("--set", setting) for setting in (*source.data, *changed(config))]
    return _NEXT.join(map(shlex.join, [words, *further]))


def over_seeds(command: str, seeds: int) -> str:
    """`command`, which names the first of so many seeds, for all of them."""
    return f"{command}{_NEXT}--seeds {seeds}"


def changed(config: Config) -> list[str]:
    """`section.key=value` of all that differs from the defaults."""
    default = to_json(Config())
    return [
        f"{section}.{name}={written(value)}"
        for section, values in to_json(config).items()
        for name, value in values.items()
        if value != default[section][name]
    ]


def written(value: Any) -> str:
    """A setting of a recipe as `--set` takes it."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def beyond(own: DataConfig, used: DataConfig) -> tuple[str, ...]:
    """`data.key=value` of what `used` says and `own`, the folder's own file, does not. (Nothing
    can take a choice of that file back, so no value is None.)"""
    found = []
    for name in (field.name for field in fields(DataConfig)):
        before, now = getattr(own, name), getattr(used, name)
        if now == before:
            continue
        if isinstance(now, Mapping):
            now = {key: value for key, value in now.items() if before.get(key) != value}
        found.append(f"data.{name}={_toml(now)}")
    return tuple(found)


def _toml(value: Any) -> str:
    """As a value of a TOML file, which is how `--set data.key=` reads it."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_toml(key)} = {_toml(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)
