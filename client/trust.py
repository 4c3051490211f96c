"""What a client shows and whom it believes: its API key, the authority behind a certificate.

Where a caller names none, RECSERVE_KEY and RECSERVE_CA of the environment say it, so that
no key stands in a command line, which everybody on the machine can read.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from recommender.errors import BadInput

Authority = str | Path | ssl.SSLContext


def headers(key: str | None = None) -> dict[str, str]:
    """With the key, if there is one."""
    key = key or os.environ.get("RECSERVE_KEY", "").strip()
    if not key:
        return {}
    if not key.isascii() or not key.isprintable() or " " in key:
        raise BadInput(  # never with the value: it is a secret all the same
            "the API key is none: it has spaces or special characters",
            remedy="Set RECSERVE_KEY to what `recserve keys add` printed.",
            field="RECSERVE_KEY",
        )
    return {"Authorization": f"Bearer {key}"}


def authority(ca: Authority | None = None) -> ssl.SSLContext | bool:
    """For `verify=` of httpx and `ssl=` of aiohttp: the file's authorities, else the usual ones."""
    if isinstance(ca, ssl.SSLContext):
        return ca
    if not (file := ca or os.environ.get("RECSERVE_CA", "").strip()):
        return True
    return _context(Path(file))


def pinned(certificate: Path) -> ssl.SSLContext:
    """Believes whoever shows exactly this certificate, under any name: for the servers of this
    machine, which are called by an address that their certificate does not have."""
    context = _context(certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _context(file: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=file)
    except OSError as error:  # ssl.SSLError is one
        raise BadInput(
            f"{file} holds no certificates: {error.strerror or error}",
            remedy="Name a file in PEM format, of the authority or of the server itself.",
            field="RECSERVE_CA",
            value=str(file),
        ) from error
