"""pyproject.toml + constraints.txt -> bento/requirements.txt, what the Bento image installs.

    python -m bento.lock > bento/requirements.txt

Takes the project's own dependencies (none of its extras, so no torch), follows
what they need through the metadata of this environment, and pins each to
constraints.txt. No network; `tests/test_bentoml_build.py` checks for drift.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from recommender.errors import MachineError

ROOT = Path(__file__).parent.parent
HEADER = "# Made by `python -m bento.lock`: the project's dependencies and all they need, pinned."


def closure(requirements: Iterable[str]) -> set[NormalizedName]:
    """Canonical names of all packages that `requirements` need on this Python and platform."""
    found: set[tuple[NormalizedName, str]] = set()  # name, extra ("" for the package itself)
    left = [Requirement(line) for line in requirements]
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *sorted(requirement.extras)):
            if (name, extra) not in found:
                found.add((name, extra))
                left += [
                    needed
                    for needed in map(Requirement, metadata.requires(name) or ())
                    if needed.marker is None or needed.marker.evaluate({"extra": extra})
                ]
    return {name for name, _ in found}


def locked(root: Path = ROOT) -> str:
    """The lock's text. Raises MachineError for a package without a pin."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    lines = (root / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if "==" in line]
    of = {canonicalize_name(pin.partition("==")[0]): pin for pin in pins}
    names = sorted(closure(project["dependencies"]))
    if missing := [name for name in names if name not in of]:
        raise MachineError(
            f"constraints.txt pins no {', '.join(missing)}",
            remedy="Run `make constraints` in an environment that has them.",
        )
    return "\n".join([HEADER, *(of[name] for name in names)]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(locked())
