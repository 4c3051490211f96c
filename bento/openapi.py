"""The operations and their structs -> /docs.json, an OpenAPI 3.1 description of every route.

Every error has a true example: what a caller gets for the mistake that it shows, made by
`bento/errors.py` as all of them are. They stand here by status, and with the route where they
are its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from bento.access import REMEDY
from bento.body import BODY_S, MAX_BODY
from bento.errors import HttpError, defect, refusal
from bento.keys import EVENTS, RECOMMEND
from bento.operations import ABOUT, EXAMPLE_ID, JSON, OPERATIONS, TEXT, Operation, Told
from bento.schemas import DEFAULT_N, PAGED
from client.api import Refusal
from recommender.errors import BadInput, RecserveError

DEFECT = Told(
    "A defect; the service's log has more under the request id.",
    defect(EXAMPLE_ID),
)
OF_BODIES = {
    "400": Told(
        "The body is outside the schema; `field` names where.",
        BadInput(
            "userid: unknown field",
            remedy="Leave it out; /docs.json lists the fields there are.",
            field="userid",
            value="196",
        ),
    ),
}
OF_POSTS = {
    "403": Told(
        "The page that asks is of a foreign origin.",
        HttpError(
            403,
            "pages of 'https://elsewhere.example' may not call",
            remedy="Add their origin to RECSERVE_CORS.",
            field="Origin",
            value="https://elsewhere.example",
        ),
    ),
    "408": Told(
        "The body did not come in time.",
        HttpError(
            408,
            f"the body was not there within {BODY_S:g} s",
            remedy="Send it faster, or in smaller requests.",
        ),
    ),
    "413": Told(
        "The body is too large.",
        HttpError(
            413,
            f"the body has {MAX_BODY + 1} bytes or more",
            remedy=f"Send at most {MAX_BODY}.",
            value=MAX_BODY + 1,
        ),
    ),
    "415": Told(
        "The body is compressed, or says that it is no JSON.",
        HttpError(
            415,
            "the body is encoded as 'gzip'",
            remedy="Send plain JSON, without Content-Encoding.",
        ),
    ),
    "429": Told(
        "Too many requests, of this caller or of all together.",
        HttpError(429, "more than 2 requests a second", remedy="Wait 1 s, and send fewer."),
    ),
}
BUSY = ("429", "503")  # come with Retry-After
REQUEST_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "description": "Comes back in the answer if it is safe to log (1 to 128 letters, digits and "
    "`._:-`); otherwise one is made.",
    "schema": {"type": "string"},
}
RETRY_AFTER = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
KEY = {"type": "http", "scheme": "bearer", "description": "Only where keys are configured."}


def document(answers: int, operations: Sequence[Operation] = OPERATIONS) -> bytes:
    """`answers` is the release's K, the largest n."""
    structs = {s for o in operations for s in (o.body, o.answer) if s is not None} | {Refusal}
    _, components = msgspec.json.schema_components(
        sorted(structs, key=lambda struct: struct.__name__),
        ref_template="#/components/schemas/{name}",
    )
    for body in structs & set(PAGED):
        properties = components[body.__name__]["properties"]
        properties["n"] |= {"minimum": 1, "maximum": answers, "default": min(DEFAULT_N, answers)}
        properties["offset"] |= {"minimum": 0, "maximum": answers - 1}
    return msgspec.json.encode(
        {
            **ABOUT,
            "paths": {
                one.path: {method: _operation(one, method) for method in one.methods}
                for one in operations
            },
            "components": {"schemas": components, "securitySchemes": {"key": KEY}},
        }
    )


def _operation(one: Operation, method: str) -> dict[str, Any]:
    name = one.path.rpartition("/")[2].removesuffix(".json")
    described: dict[str, Any] = {
        "summary": one.summary,
        "operationId": name if len(one.methods) == 1 else f"{name}-{method}",
        "responses": _responses(one, method),
    }
    if one.tells:
        described["parameters"] = [REQUEST_ID]
    if one.scope is not None:
        described["description"] = f"Where keys are configured, one of scope `{one.scope}`."
        described["security"] = [{"key": []}, {}]
    if one.body is not None:
        examples = {name: {"value": body} for name, body in one.asked.items()}
        content = {"schema": _schema(one.body), "examples": examples}
        described["requestBody"] = {"required": True, "content": {JSON: content}}
    return described


def _responses(one: Operation, method: str) -> dict[str, Any]:
    found: dict[str, Any] = {"200": {"description": "The answer.", "content": _answered(one)}}
    for status, told in sorted(_errors(one, method).items()):
        found[status] = {"description": told.when, "content": _refused(told.error)}
        if one.tells and status in BUSY:
            found[status]["headers"] = {"Retry-After": RETRY_AFTER}
    return found


def _errors(one: Operation, method: str) -> Mapping[str, Told]:
    """By status: those that every route has, those of its kind, its own."""
    known = ", ".join(one.methods).upper()
    other = HttpError(405, f"{one.path} takes no PUT", remedy=f"Use {known}.", value="PUT")
    return {
        "405": Told("The route takes another method.", other),
        **({"500": DEFECT} if one.tells else {}),
        **(OF_BODIES if one.body is not None else {}),
        **(OF_POSTS if method == "post" else {}),
        **({} if one.scope is None else _of_keys(one.scope, method)),
        **one.errors,
    }


def _of_keys(scope: str, method: str) -> Mapping[str, Told]:
    nobody = HttpError(401, "no key was sent", remedy=REMEDY, field="Authorization")
    has = EVENTS if scope == RECOMMEND else RECOMMEND
    lacking = HttpError(
        403,
        f"the key has no scope {scope!r}",
        remedy=f"It has {has}: ask for one with {scope}.",
        field="Authorization",
    )
    foreign = ", or the page that asks is of a foreign origin" if method == "post" else ""
    return {
        "401": Told("No valid key was sent, and the service wants one.", nobody),
        "403": Told(f"The key has not the scope{foreign}.", lacking),
    }


def _answered(one: Operation) -> dict[str, Any]:
    example = msgspec.to_builtins(one.answered)
    if one.answer is None:
        kind = "object" if one.content == JSON else "string"
        return {one.content: {"schema": {"type": kind}, "example": example}}
    return _json(one.answer, example)


def _refused(error: RecserveError | str) -> dict[str, Any]:
    if isinstance(error, str):
        return {TEXT: {"schema": {"type": "string"}, "example": error}}
    return _json(Refusal, msgspec.json.decode(refusal(error, EXAMPLE_ID)))


def _json(struct: type[msgspec.Struct], example: object) -> dict[str, Any]:
    return {JSON: {"schema": _schema(struct), "example": example}}


def _schema(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{struct.__name__}"}
