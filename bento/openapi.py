"""The structs of the API -> /docs.json, an OpenAPI 3.1 description of every route."""

from __future__ import annotations

from typing import Any

import msgspec

from bento.schemas import DEFAULT_N, PopularRequest, RecommendRequest
from client.api import Answer, Refusal, Served

ERRORS = {
    "400": "The body is outside the schema; `field` names where.",
    "404": "There is no such variant, or its release has no such model.",
    "405": "The route takes another method.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "415": "The body is compressed or otherwise encoded.",
}
POSTS: dict[str, tuple[str, type[msgspec.Struct]]] = {
    "/v1/recommend": ("Items for a user, best first.", RecommendRequest),
    "/v1/popular": ("The most popular items of the release.", PopularRequest),
}
GETS = {
    "/livez": ("Is the process alive?", "text/plain", ()),
    "/readyz": (
        "Is the catalogue loaded, and has Triton answered for its release once?",
        "text/plain",
        ("503",),
    ),
    "/v1/release": ("The release that answers now, and its variants.", "application/json", ()),
    "/metrics": ("Metrics in Prometheus' text format.", "text/plain", ()),
    "/docs.json": ("This description.", "application/json", ()),
}


def document(answers: int) -> bytes:
    """`answers` is the release's K, the largest n."""
    (*bodies, _, _, _), components = msgspec.json.schema_components(
        (RecommendRequest, PopularRequest, Answer, Refusal, Served),
        ref_template="#/components/schemas/{name}",
    )
    assert len(bodies) == len(POSTS)
    for body in (RecommendRequest, PopularRequest):
        properties = components[body.__name__]["properties"]
        properties["n"] |= {"minimum": 1, "maximum": answers, "default": min(DEFAULT_N, answers)}
        properties["offset"] |= {"minimum": 0, "maximum": answers - 1}
    paths: dict[str, Any] = {path: {"post": _post(path)} for path in POSTS}
    paths |= {path: {"get": _get(path)} for path in GETS}
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "recserve",
                "version": "1",
                "description": "Recommendations from a model that Triton serves.",
            },
            "paths": paths,
            "components": {"schemas": components},
        }
    )


def _post(path: str) -> dict[str, Any]:
    summary, body = POSTS[path]
    responses: dict[str, Any] = {"200": _response("The answer.", Answer)}
    for status, description in ERRORS.items():
        if status != "404" or body is RecommendRequest:
            responses[status] = _response(description, Refusal)
    return {
        "summary": summary,
        "operationId": path.rpartition("/")[2],
        "parameters": [
            {
                "name": "X-Request-ID",
                "in": "header",
                "description": "Comes back in the answer; made where it is missing.",
                "schema": {"type": "string", "maxLength": 128},
            }
        ],
        "requestBody": {"required": True, "content": _json(body)},
        "responses": responses,
    }


def _get(path: str) -> dict[str, Any]:
    summary, content_type, others = GETS[path]
    shape = {"type": "string" if content_type == "text/plain" else "object"}
    content = _json(Served) if path == "/v1/release" else {content_type: {"schema": shape}}
    responses: dict[str, Any] = {"200": {"description": "Yes.", "content": content}}
    responses |= {status: {"description": "Not yet."} for status in others}
    name = path.rpartition("/")[2].removesuffix(".json")
    return {"summary": summary, "operationId": name, "responses": responses}


def _response(description: str, body: type[msgspec.Struct]) -> dict[str, Any]:
    return {"description": description, "content": _json(body)}


def _json(body: type[msgspec.Struct]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}}
