"""A backup file: one line, the copy, and the sha256 of both. What the copy holds is the backends'.

    recserve backup 1 sqlite\\n   <copy>   <64 hex digits>\\n

A file is written beside its place and moved there whole; it is read only after its checksum
was found right.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from recommender.errors import DataError

MAGIC = b"recserve backup "
FORMAT = b"1"
END = 65  # bytes of the checksum's line
CHUNK = 1 << 20


class Copy:
    """The copy inside a verified backup, from its beginning."""

    def __init__(self, file: BinaryIO, kind: str, size: int) -> None:
        self.kind = kind
        self._file, self._left = file, size

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data


class Out:
    """Writes on, and counts up the checksum."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.sha = file, hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.sha.update(data)
        self._file.write(data)


def write(path: Path, kind: str, fill: Callable[[Out], None]) -> str:
    """Replace `path` by a backup that `fill` writes, once it could be read back; its checksum."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        handle = os.open(unfinished, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with open(handle, "wb") as file:  # noqa: PTH123 - of a handle
            out = Out(file)
            out.write(MAGIC + FORMAT + b" " + kind.encode() + b"\n")
            fill(out)
            checksum = out.sha.hexdigest()
            file.write(checksum.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with opened(unfinished, kind):
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return checksum


@contextmanager
def opened(path: Path, kind: str) -> Iterator[Copy]:
    """The copy in a backup of `kind`. Raises DataError for a file that is not whole, before
    anything was done with it."""
    with path.open("rb") as file:
        size = path.stat().st_size - END
        head = file.readline(len(MAGIC) + 40)
        if not head.startswith(MAGIC):
            raise DataError(
                f"{path} is no backup of an event store",
                remedy="Name a file that `recserve backup` wrote.",
            )
        if size < len(head) or _checksum(file, size) != file.read():
            raise DataError(
                f"{path} is not what was written: its checksum is another",
                remedy="Take another backup; this one is cut off or damaged.",
            )
        version, _, found = head.removeprefix(MAGIC).strip().partition(b" ")
        if version != FORMAT:
            raise DataError(
                f"{path} is a backup of format {version.decode()}, and this recserve reads "
                f"{FORMAT.decode()}",
                remedy="Use the recserve that wrote it.",
            )
        if found.decode() != kind:
            raise DataError(
                f"{path} is a backup of a store in {found.decode()}, not in {kind}",
                remedy=f"Name a store in {found.decode()} with --store.",
            )
        file.seek(len(head))
        yield Copy(file, kind, size - len(head))


def _checksum(file: BinaryIO, size: int) -> bytes:
    """The last line that a file should have; it is read next."""
    file.seek(0)
    sha, left = hashlib.sha256(), size
    while left and (data := file.read(min(CHUNK, left))):
        sha.update(data)
        left -= len(data)
    return sha.hexdigest().encode() + b"\n"


def refuse_full(place: object) -> DataError:
    return DataError(
        f"{place} holds events already",
        remedy="Restore into an empty store, or add --force: what it holds is lost then.",
    )
