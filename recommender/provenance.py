"""Which code and which libraries made a run or a release: what it takes to make it again."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


def made_by(packages: Sequence[str], libraries: Sequence[str]) -> dict[str, str]:
    """Version of recserve, sha256 of the sources of `packages` (folders of this repository),
    versions of Python and of `libraries`."""
    return {
        "recserve": version("recserve"),
        "code": code_digest(packages),
        "python": platform.python_version(),
        **{library: _installed(library) for library in libraries},
    }


def _installed(library: str) -> str:
    """onnxruntime comes as onnxruntime-gpu, too."""
    try:
        return version(library)
    except PackageNotFoundError:
        return version(f"{library}-gpu")


def code_digest(packages: Sequence[str]) -> str:
    """sha256 over path and content of every Python file below `packages`, in order of path: a
    version number says what was released, this says what ran."""
    digest = hashlib.sha256()
    for path in sorted(path for name in packages for path in (_ROOT / name).rglob("*.py")):
        digest.update(f"{path.relative_to(_ROOT).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
