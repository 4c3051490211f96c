"""Where and how BentoML is reached on this machine: address, certificate, file of keys; and
where it keeps events.

Checked before anything starts. What it answers is `bento/`'s, who starts it `stack.py`'s.
"""

from __future__ import annotations

import http.client
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from bento import keys as keys_file
from bento.store import DEFAULT_URL, sqlite_path
from client.trust import pinned
from recommender.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Tls:
    """A certificate (with its chain) and its key, as PEM files that belong together."""

    certificate: Path
    key: Path

    @classmethod
    def of(cls, certificate: Path | None, key: Path | None) -> Tls | None:
        """None where neither is named. Raises BadInput for files that no server can use."""
        if certificate is None and key is None:
            return None
        if certificate is None or key is None:
            raise BadInput(
                "--tls-cert and --tls-key belong together, and one is missing",
                remedy="Name both, or neither.",
            )
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            # A password would be asked for at the terminal, of a server that has none.
            context.load_cert_chain(certificate, key, password="")
        except OSError as error:  # ssl.SSLError is one
            raise BadInput(
                f"{certificate} and {key} are no certificate and key: {error.strerror or error}",
                remedy="Name PEM files that belong together, the key without a password.",
                field="--tls-cert",
                value=str(certificate),
            ) from error
        return cls(certificate=certificate.absolute(), key=key.absolute())


@dataclass(frozen=True, kw_only=True)
class Front:
    """BentoML's address and what it is protected with."""

    host: str = "127.0.0.1"
    port: int = 3000
    tls: Tls | None = None
    keys: Path | None = None  # None: as the environment says
    store: str = DEFAULT_URL  # empty: none
    example_users: tuple[str, ...] = ()  # that the page may offer; (): as the environment says

    @property
    def url(self) -> str:
        host, scheme = self.reachable, "http" if self.tls is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def reachable(self) -> str:
        """Where a server that binds `host` is reached: a wildcard is no address."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)

    def check(self) -> None:
        """Raises BadInput for keys that cannot be used, and for no URL of a store."""
        if self.store:
            sqlite_path(self.store)
        if path := self._keys():
            keys_file.read(path)

    def arguments(self) -> list[str]:
        """Of `bentoml serve`."""
        where = ["--host", self.host, "--port", str(self.port)]
        if self.tls is None:
            return where
        files = ["--ssl-certfile", self.tls.certificate, "--ssl-keyfile", self.tls.key]
        return where + [str(part) for part in files]

    def environment(self) -> dict[str, str]:
        """Of its process, which starts in another folder."""
        keys, file = self._keys(), sqlite_path(self.store) if self.store else None
        store = self.store if file is None else f"sqlite:///{file.absolute()}"
        told = {"RECSERVE_STORE": store}
        if keys is not None:
            told["RECSERVE_KEYS"] = str(keys)
        if self.example_users:
            told["RECSERVE_EXAMPLE_USERS"] = ",".join(self.example_users)
        return told

    def ready(self) -> str | None:
        """None once /readyz says 200, else what it said."""
        connection = self._connection()
        try:
            connection.request("GET", "/readyz")
            response = connection.getresponse()
            said = response.read(200).decode(errors="replace")
            return None if response.status == 200 else f"{response.status} {said}".strip()
        except (OSError, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self.tls is None:
            return http.client.HTTPConnection(self.reachable, self.port, timeout=2)
        context = pinned(self.tls.certificate)
        return http.client.HTTPSConnection(self.reachable, self.port, timeout=2, context=context)

    def _keys(self) -> Path | None:
        named = self.keys or os.environ.get("RECSERVE_KEYS", "").strip()
        return Path(named).absolute() if named else None
