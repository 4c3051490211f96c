"""Every error a user can meet, and its status on the wire.

    RecserveError            500  anything of ours
    ├── BadInput             400  a request, a flag or a record that breaks the rules
    ├── Denied               403  a key that is missing, unknown, or not for this
    ├── NotFound             404  a name that does not exist (a model, an item)
    ├── DataError            422  a data folder that cannot be used
    ├── TrainingError        422  a training that came to nothing: its weights are no numbers
    ├── RunError             409  a run folder that cannot be used, or must not be overwritten
    ├── ReleaseError         409  a repository or release that is missing, broken or refused
    ├── MachineError         503  what this machine lacks: a library, a port, a Python
    └── Unavailable          503  a server that does not answer (in time)

Each says what was wrong, the value seen, and the remedy; `serving/cli.py` prints
the three as one line, `bento/` turns them into its one error shape.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial


class RecserveError(Exception):
    """Base class. `what` names the fault and the value seen, `remedy` what to do about it.

    `field` is the request field, flag or column at fault, where there is one;
    `value` the value seen, shortened for display.
    """

    status = 500

    def __init__(
        self, what: str, *, remedy: str, field: str | None = None, value: object = None
    ) -> None:
        self.what = what
        self.remedy = remedy
        self.field = field
        self.value = value
        super().__init__(f"{what}. {remedy}")

    def __reduce__(self) -> tuple[Callable[[], RecserveError], tuple[()]]:
        """For pickling, between processes of ours: an exception's own forgets keywords."""
        again = partial(
            type(self), self.what, remedy=self.remedy, field=self.field, value=self.value
        )
        return again, ()


class BadInput(RecserveError):
    status = 400


class Denied(RecserveError):
    status = 403


class NotFound(RecserveError):
    status = 404


class DataError(RecserveError):
    status = 422


class TrainingError(RecserveError):
    status = 422


class RunError(RecserveError):
    status = 409


class ReleaseError(RecserveError):
    status = 409


class MachineError(RecserveError):
    status = 503


class Unavailable(RecserveError):
    status = 503


def shown(value: object, limit: int = 60) -> str:
    """`value` as an error message shows it: quoted, on one line, cut at `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
