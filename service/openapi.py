"""What FastAPI cannot know of the API's description: the hot route, the key, errors as problems."""

import json
from typing import Any

import msgspec

from features.event import EVENT_CLASSES
from service.shoal import Answer

_REF = "#/components/schemas/{name}"
_PROBLEM = {
    "description": "a problem (RFC 9457)",
    "content": {"application/problem+json": {"schema": {"$ref": _REF.format(name="Problem")}}},
}


class Place(msgspec.Struct):
    """A part of what was sent, by JSON pointer, and what is wrong with it."""

    pointer: str
    detail: str


class Problem(msgspec.Struct):
    """RFC 9457."""

    type: str
    status: int
    title: str
    detail: str
    errors: list[Place] = []


def complete(told: dict[str, Any]) -> dict[str, Any]:
    """FastAPI's description with the rest written into it."""
    _, schemas = msgspec.json.schema_components(
        [*EVENT_CLASSES, Answer, Problem], ref_template=_REF
    )
    # Python ends a pattern with \Z, ECMA-262 with $
    schemas = json.loads(json.dumps(schemas).replace("\\\\Z", "$"))
    schemas["Event"] = {
        "oneOf": [{"$ref": _REF.format(name=c.__name__)} for c in EVENT_CLASSES],
        "discriminator": {
            "propertyName": "type",
            "mapping": {
                str(c.__struct_config__.tag): _REF.format(name=c.__name__) for c in EVENT_CLASSES
            },
        },
    }
    told["paths"] = {"/v1/events": {"post": _post_events()}} | told["paths"]
    for path, methods in told["paths"].items():
        for method in methods.values():
            method["responses"].pop("422", None)  # FastAPI's own form of it, which we do not use
            method["responses"] |= {"4XX": _PROBLEM, "5XX": _PROBLEM}
            if path.startswith("/v1/"):
                method["security"] = [{"key": []}, {}]  # none is needed until one exists
    parts = told.setdefault("components", {})
    parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    parts.setdefault("schemas", {}).update(schemas)
    for unused in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(unused, None)
    return told


def _post_events() -> dict[str, Any]:
    event, answer = {"$ref": _REF.format(name="Event")}, {"$ref": _REF.format(name="Answer")}

    def one_or_more(schema: dict[str, str]) -> dict[str, Any]:
        return {"schema": {"oneOf": [schema, {"type": "array", "items": schema}]}}

    lines = {"schema": {"type": "string", "description": "one event a line"}}
    return {
        "summary": "Post Events",
        "operationId": "post_events",
        "description": (
            "One event, an array of them, or NDJSON. Each is answered when it is in the log, in "
            "order. A bad one among several costs only itself and has `status: rejected`, with "
            "line, field and hint; a single bad event is a problem with a pointer to the field. "
            "The same `event_id` again is a `duplicate` with its first answer, and with "
            "`conflict: true` if the body was another one."
        ),
        "requestBody": {
            "required": True,
            "content": {"application/json": one_or_more(event), "application/x-ndjson": lines},
        },
        "responses": {
            "200": {
                "description": "as many answers as there were events",
                "content": {"application/json": one_or_more(answer)},
            }
        },
    }
