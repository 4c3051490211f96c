"""May this request come in? Keys and their scopes, rates, a bound on what is under way.

    Authorization: Bearer KEY -> the key of that digest -> has it the scope? -> its rate
                                     └ 401                   └ 403             └ 429

Everything here is decided before a body is read. Knows no route's meaning and no file
format: the file of keys is `bento/keys.py`'s, other origins are `bento/origins.py`'s.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import msgspec

from bento import keys
from bento.errors import HttpError
from bento.keys import Key
from bento.metrics import OVERLOAD, RATE
from bento.pace import Pace
from recommender.errors import BadInput

log = logging.getLogger("bentoml.recserve")

LOOK_S = 0.5  # between two looks at the file of keys
BEARER = b"bearer "
REMEDY = "Send Authorization: Bearer KEY (our commands and client: set RECSERVE_KEY)."
MAX_TOKEN = 512  # bytes; ours have 47
MAX_CALLERS = 10_000  # whose rates are kept
CHALLENGE = [(b"www-authenticate", b'Bearer realm="recserve"')]


class Call(msgspec.Struct, frozen=True, gc=False):
    """What a handler knows of a request beside its body."""

    request_id: str
    key: Key | None = None  # None: no keys are configured, or the route takes none

    @property
    def caller(self) -> str | None:
        """The name of the key, for logs."""
        return None if self.key is None else self.key.name


class Keyring:
    """The keys of a file as they are now: a change is seen within a second."""

    def __init__(self, path: Path) -> None:
        """Raises BadInput for a file that cannot be used."""
        self._path = path
        self._seen = _stamp(path)
        self._keys = _digests(keys.read(path))
        self._next_look = time.monotonic() + LOOK_S

    def find(self, authorization: bytes | None) -> Key:
        """The key that is sent. Raises HttpError 401."""
        if time.monotonic() >= self._next_look:
            self._look()
        if authorization is None or authorization[: len(BEARER)].lower() != BEARER:
            raise _unauthorized("no key was sent", REMEDY)
        key = self._of(authorization[len(BEARER) :].strip())
        if key is None:
            raise _unauthorized("the key is not known", "Send one that has not been revoked.")
        if key.expired(time.time()):
            raise _unauthorized("the key has expired", "Ask for a new one.")
        return key

    def _of(self, token: bytes) -> Key | None:
        """Compared with all, each in constant time: how long it takes says nothing."""
        if len(token) > MAX_TOKEN:
            return None
        sent, found = keys.digest(token), None
        for known, key in self._keys:
            if hmac.compare_digest(known, sent):
                found = key
        return found

    def _look(self) -> None:
        """Read the file again if it is another. The old keys stay when it cannot be used: a
        half-written file must lock nobody out."""
        self._next_look = time.monotonic() + LOOK_S
        if (stamp := _stamp(self._path)) == self._seen:
            return
        self._seen = stamp  # said once, not at every look
        try:
            self._keys = _digests(keys.read(self._path))
        except BadInput as error:
            log.error("the keys of before stay valid: %s", error)
        else:
            log.info("%d keys are valid now", len(self._keys))


def _digests(known: tuple[Key, ...]) -> list[tuple[bytes, Key]]:
    return [(bytes.fromhex(key.sha256), key) for key in known]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Another one for every version of the file; follows the links of a mounted Secret."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_ino, seen.st_size


def _unauthorized(what: str, remedy: str) -> HttpError:
    return HttpError(401, what, remedy=remedy, field="Authorization", headers=CHALLENGE)


def permit(key: Key, scope: str) -> None:
    """Raises HttpError 403 where the key lacks the scope."""
    if not key.may(scope):
        raise HttpError(
            403,
            f"the key has no scope {scope!r}",
            remedy=f"It has {', '.join(key.scopes)}: ask for one with {scope}.",
            field="Authorization",
        )


class Rates:
    """A token bucket for each caller: `burst` requests at once, `rate` a second in the long run.

    Kept as one number each, the moment at which the bucket is full again.
    """

    def __init__(self, rate: float | None, burst: int | None) -> None:
        self.rate, self._burst = rate, burst or 0
        self._full: OrderedDict[str, float] = OrderedDict()

    def take(self, caller: str, rate: float | None = None) -> None:
        """One request, at the caller's own `rate` if it has one. Raises HttpError 429."""
        rate = rate or self.rate
        if rate is None:
            return
        now, burst = time.monotonic(), max(self._burst, math.ceil(rate))
        full = max(now, self._full.get(caller, 0.0)) + 1 / rate
        if (wait := full - now - burst / rate) > 1e-9:
            raise _too_many(f"more than {rate:g} requests a second", wait)
        self._full[caller] = full
        self._full.move_to_end(caller)
        if len(self._full) > MAX_CALLERS:
            self._full.popitem(last=False)


def caller_of(client: tuple[str, int] | None) -> str:
    """By address where there are no keys; one household of IPv6 is one caller."""
    if client is None:
        return "-"
    host = client[0]
    if ":" not in host:
        return host
    try:
        return str(ipaddress.ip_network((host.partition("%")[0], 64), strict=False))
    except ValueError:
        return host


def _too_many(what: str, wait_s: float) -> HttpError:
    seconds = max(1, math.ceil(wait_s))
    return HttpError(
        429,
        what,
        remedy=f"Wait {seconds} s, and send fewer.",
        headers=[(b"retry-after", str(seconds).encode())],
    )


def overloaded() -> HttpError:
    """The same words each time: the door says them again without making them anew."""
    return _too_many("as many requests are under way as can be answered in time", 1.0)


class Gate:
    """Whom the service lets in: with keys, by key; without, by address if there is a rate."""

    def __init__(
        self,
        *,
        keyring: Keyring | None = None,
        rates: Rates | None = None,
        pace: Pace,
        refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`refused` hears of each request that is turned away: RATE or OVERLOAD."""
        self._keyring, self._rates, self._pace = keyring, rates or Rates(None, None), pace
        self._refused = refused

    def key(self, authorization: bytes | None) -> Key | None:
        """None where nobody needs one."""
        return None if self._keyring is None else self._keyring.find(authorization)

    def within_rate(self, key: Key | None, client: tuple[str, int] | None) -> None:
        try:
            if key is not None:
                self._rates.take(f"key {key.name}", key.rate)
            elif self._rates.rate is not None:
                self._rates.take(caller_of(client))
        except HttpError:
            self._refused(RATE)
            raise

    def full(self, under_way: int, *, modelled: bool) -> bool:
        """What cannot be answered soon is refused now (`overloaded`): a queue would only make all
        late. What asks no model is soon answered for longer."""
        if self._pace.room(under_way) if modelled else under_way < self._pace.most:
            return False
        self._refused(OVERLOAD)
        return True
