"""A release's own golden requests: what its model answered before anybody could see it.

    golden.npz     0/kind, 0/name, 0/inputs/history, ..., 0/outputs/item, ..., 1/kind, ...

A few rows of all that parity is checked on, for every kind of model, with the answers of eager
PyTorch. A promotion asks them of the server that is to serve the release: the same files may
answer otherwise on other hardware or in another runtime. Knows no server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from export.examples import batches
from recommender.contract import Array, Kind, Limits
from recommender.errors import ReleaseError
from recommender.models.graph import answer
from recommender.users import Users

FILE = "golden.npz"
_ROWS = 3  # of each batch


@dataclass(frozen=True, kw_only=True, eq=False)
class Golden:
    kind: str  # of the models that are asked
    name: str  # what the inputs are like
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


def write(
    modules: Mapping[Kind, nn.Module],
    folder: Path,
    *,
    limits: Limits,
    items: int,
    clock: int,
    users: Users,
) -> None:
    """The same bytes for the same modules and users."""
    found: dict[str, Array] = {}
    asked = [
        (kind, name, arrays)
        for kind in modules
        for name, arrays in batches(limits, items, clock, users, kind)
    ]
    for number, (kind, name, arrays) in enumerate(asked):
        inputs = {key: array[:_ROWS] for key, array in arrays.items()}
        outputs = answer(modules[kind], inputs, limits, kind)
        found |= {f"{number}/kind": np.array(kind), f"{number}/name": np.array(name)}
        found |= {f"{number}/inputs/{key}": array for key, array in inputs.items()}
        found |= {f"{number}/outputs/{key}": array for key, array in outputs.items()}
    np.savez_compressed(folder / FILE, **found)


def read(folder: Path) -> Iterator[Golden]:
    """In the order in which they were written. Raises ReleaseError where there are none."""
    if not (folder / FILE).is_file():
        raise ReleaseError(
            f"{folder} has no golden requests ({FILE}): an older recserve exported it",
            remedy="Export the run again.",
        )
    with np.load(folder / FILE, allow_pickle=False) as stored:
        for number in range(sum(name.endswith("/name") for name in stored.files)):
            inputs, outputs = (
                {
                    name.removeprefix(prefix): stored[name]
                    for name in stored.files
                    if name.startswith(prefix)
                }
                for prefix in (f"{number}/inputs/", f"{number}/outputs/")
            )
            kind, name = (str(stored[f"{number}/{key}"]) for key in ("kind", "name"))
            yield Golden(kind=kind, name=name, inputs=inputs, outputs=outputs)
