"""JSON that recserve wrote -> checked values, or one line that says what is wrong with it.

Used wherever a release is read: a file of another program, or one that somebody has edited,
is refused before anything is done with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recommender.errors import ReleaseError, shown

SCHEMA = 1
WRITTEN_ANEW = "Export the run again."
NAMES = {dict: "an object", list: "a list", str: "a text", int: "a whole number",
         float: "a number", type(None): "null"}  # fmt: skip


def taken(
    where: object, raw: Mapping[str, Any], key: str, *kinds: type, remedy: str = WRITTEN_ANEW
) -> Any:
    """`raw[key]`, which must be of one of `kinds`: a JSON true is no number."""
    if type(raw.get(key)) not in kinds:
        seen = f"{key} {shown(raw[key])}" if key in raw else f"no {key}"
        raise ReleaseError(
            f"{where} has {seen} instead of {' or '.join(NAMES[kind] for kind in kinds)}",
            remedy=remedy,
        )
    return raw[key]


def read_json(path: Path) -> dict[str, Any]:
    """The object in `path`, of this schema; raises ReleaseError."""
    try:
        raw: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ReleaseError(f"{path} is missing", remedy=WRITTEN_ANEW) from error
    except OSError as error:
        raise ReleaseError(
            f"{path} cannot be read: {error.strerror}", remedy="Let this user read it."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ReleaseError(f"{path} is not JSON: {error}", remedy=WRITTEN_ANEW) from error
    if type(raw) is not dict:
        raise ReleaseError(f"{path} is {shown(raw)} instead of an object", remedy=WRITTEN_ANEW)
    if raw.get("schema") != SCHEMA:
        raise ReleaseError(
            f"{path} has schema {raw.get('schema')!r}, this recserve reads {SCHEMA}",
            remedy="Export the run again with this recserve, or use the recserve that wrote it.",
        )
    return raw
