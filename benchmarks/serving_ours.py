"""recserve under settings of its own, as each peer is under its own: their names -> a stack's.

    CALLS        of Triton under way at once (RECSERVE_TRITON_CALLS)
    INSTANCES    of the model       ┐ triton.toml of a copy of the repository by hard links,
    THREADS      within an operator ├ which serving/tuning_stacks.py makes: the repository itself
    DELAY_US     of Triton's queue  │ stays as it is
    BATCHING     by Triton, 0 or 1  ┘

What is not named is as in the project's defaults; other lines of the repository's triton.toml stay.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from recommender.release import read_release
from serving import tuning_stacks
from serving.tuning import Choice

NAMES = {
    "CALLS": "triton_calls",
    "INSTANCES": "instances",
    "THREADS": "intra_op_threads",
    "DELAY_US": "queue_delay_us",
    "BATCHING": "batching",
}
DEFAULTS = {name: str(int(getattr(Choice(), field))) for name, field in NAMES.items()}


def choice_of(settings: Mapping[str, str]) -> Choice:
    said = {field: int(settings[name]) for name, field in NAMES.items()}
    return Choice(**{**said, "batching": bool(said["batching"])})


def copy_of(repository: Path, settings: Mapping[str, str], folder: Path) -> Path:
    """The repository that is served under these settings, below `folder`."""
    return tuning_stacks.repository_under(
        read_release(repository.resolve(), verify=False), choice_of(settings), folder
    )


def variables(settings: Mapping[str, str]) -> dict[str, str]:
    return {tuning_stacks.CALLS: settings["CALLS"]}


def scratch(repository: Path) -> AbstractContextManager[str]:
    """A folder for the block, beside the repository: hard links do not leave a disk."""
    return tempfile.TemporaryDirectory(prefix=".bench-", dir=repository.resolve().parent)
