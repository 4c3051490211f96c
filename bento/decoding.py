"""Bytes of a request -> a checked struct of `bento/schemas.py`, or BadInput naming the field.

Knows no route: what is allowed, the struct says.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from recommender.errors import BadInput, shown

T = TypeVar("T")


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Raises BadInput with the field at fault (`filter.exclude`, or `body`) and its value."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        # To JSON Schema 5.0 is an integer, and some languages write no other.
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return msgspec.convert(_whole(msgspec.json.decode(body)), decoder.type)
        raise _outside_schema(str(error), body) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(
            f"the body is not JSON ({error})",
            remedy="Send one JSON object, encoded as UTF-8.",
            field="body",
            value=shown(body[:60].decode(errors="replace")),
        ) from error
    except RecursionError as error:
        raise BadInput(
            "the body is nested too deeply",
            remedy="Send what /docs.json describes.",
            field="body",
            value=shown(body[:60].decode(errors="replace")),
        ) from error


PLACE = re.compile(r"(?P<what>.*?)(?: - at (?:`key` in )?`\$(?P<path>[^`]*)`)?", re.DOTALL)


def _whole(value: Any) -> Any:
    """With integers instead of floats that are whole."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole(one) for one in value]
    if isinstance(value, dict):
        return {name: _whole(one) for name, one in value.items()}
    return value


UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`$", re.DOTALL)


def _outside_schema(message: str, body: bytes) -> BadInput:
    """msgspec says "Expected `int` - at `$.context.time`"; find the field and what it held."""
    what, path = PLACE.fullmatch(message).group("what", "path")  # type: ignore[union-attr]
    field = (path or "").removeprefix(".").replace("[...]", "")
    if unknown := UNKNOWN.match(what):
        field = f"{field}.{unknown['name']}" if field else unknown["name"]
        what, remedy = "unknown field", "Leave it out; /docs.json lists the fields there are."
    else:
        what = what.replace("`", "")
        wanted = what.partition(", got ")[0].replace("Expected", "Send")
        remedy = f"{wanted}; /docs.json describes the field."
    return BadInput(
        f"{field or 'the body'}: {what}",
        remedy=remedy,
        field=field or "body",
        value=_value(body, field),
    )


def _value(body: bytes, field: str) -> object:
    """What stands at `field` (`filter.exclude[3]`) of the body, as an error shows it."""
    try:
        value: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return shown(body[:60].decode(errors="replace"))
    for step in re.split(r"[.\[\]]+", field):
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal():
            value = value[int(step)]
    if value is None or isinstance(value, bool | int | float):
        return value
    return value[:60] if isinstance(value, str) else shown(value)
