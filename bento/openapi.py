"""The operations and their structs -> /docs.json, an OpenAPI 3.1 description of every route."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from bento.operations import JSON, OPERATIONS, Operation
from bento.schemas import DEFAULT_N, PAGED
from client.api import Refusal

OF_ALL = {
    "405": "The route takes another method.",
    "500": "A defect; the service's log has more under the request id.",
}
OF_KEYS = {
    "401": "No valid key was sent, and the service wants one.",
    "403": "The key has not the scope, or the page that asks is of a foreign origin.",
}
OF_POSTS = {
    "400": "The body is outside the schema; `field` names where.",
    "403": "The page that asks is of a foreign origin.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "415": "The body is compressed, or says that it is no JSON.",
    "429": "Too many requests, of this caller or of all together.",
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
            "openapi": "3.1.0",
            "info": {
                "title": "recserve",
                "version": "1",
                "description": "Recommendations from a model that Triton serves.",
            },
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
        content = _json(one.body)
        content[JSON]["examples"] = {name: {"value": body} for name, body in one.asked.items()}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _responses(one: Operation, method: str) -> dict[str, Any]:
    errors: Mapping[str, str] = one.errors
    if one.tells:
        errors = {
            **OF_ALL,
            **(OF_POSTS if method == "post" else {}),
            **(OF_KEYS if one.scope is not None else {}),
            **one.errors,
        }
    found: dict[str, Any] = {"200": {"description": "The answer.", "content": _answered(one)}}
    for status, description in sorted(errors.items()):
        found[status] = {"description": description}
        if one.tells:
            found[status]["content"] = _json(Refusal)
            if status in BUSY:
                found[status]["headers"] = {"Retry-After": RETRY_AFTER}
    return found


def _answered(one: Operation) -> dict[str, Any]:
    if one.answer is None:
        return {one.content: {"schema": {"type": "string" if one.content != JSON else "object"}}}
    content = _json(one.answer)
    if one.answered is not None:
        content[JSON]["example"] = msgspec.to_builtins(one.answered)
    return content


def _json(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {JSON: {"schema": {"$ref": f"#/components/schemas/{struct.__name__}"}}}
