"""``/openapi.json``: OpenAPI 3.1 made from the route table and the pydantic models, so it cannot lie about either."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from mixer.http.problems import PROBLEM_JSON
from mixer.http.routing import Answer, Route

_TAGS: Final = {
    "rooms": "Rooms, tokens for them, their picture and figures",
    "participants": "Who is there",
    "layouts": "Where each picture goes",
    "recordings": "Recordings and their archived packages",
    "archive": "What an archivist decides and checks: hold, retention, deletion, audit",
    "whip": "Publishing (RFC 9725)",
    "whep": "Watching (draft-ietf-wish-whep)",
    "media": "What a client needs to connect",
    "events": "What happens, as it happens",
    "pages": "Pages for people",
    "operation": "Running the server",
}

_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "RFC 9457",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "format": "uri-reference"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["loc", "msg"],
                "properties": {
                    "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                    "msg": {"type": "string"},
                },
            },
        },
    },
}


def describe(routes: Sequence[Route], *, version: str) -> dict[str, Any]:
    """The whole document as JSON-serialisable data."""
    references, schemas = _schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Mosaique",
            "version": version,
            "description": "Many streams in, one mixed stream out, recorded.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Problem": _PROBLEM},
            "responses": {str(status): _problem_response(status) for status in _all_errors(routes)},
            "securitySchemes": {
                "bearer": {
                    "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                    "description": "The admin token, or a JWT (HS256) with sub, name, room, role, exp, nbf.",
                },
                "query": {
                    "type": "apiKey", "in": "query", "name": "access_token",
                    "description": "The same token where a player cannot send a header (RFC 6750 section 2.3).",
                },
            },
        },
    }  # fmt: skip


def _schemas(routes: Iterable[Route]) -> tuple[dict[type[BaseModel], dict[str, Any]], dict[str, Any]]:
    """How each model is referred to, and the shared definitions."""
    requests = {m for r in routes for m in r.body.values() if m is not None}
    answers = {
        s
        for r in routes
        for a in r.answers
        for s in a.content.values()
        if isinstance(s, type) and issubclass(s, BaseModel)
    }
    wanted: list[tuple[type[BaseModel], Any]] = [
        (model, mode)
        for mode, models in (("validation", requests), ("serialization", answers))
        for model in sorted(models, key=lambda m: m.__name__)
    ]
    references, document = models_json_schema(wanted, ref_template="#/components/schemas/{model}")
    by_model = {model: ref for (model, _), ref in references.items() if issubclass(model, BaseModel)}
    return by_model, document.get("$defs", {})


def _operation(route: Route, references: Mapping[type[BaseModel], dict[str, Any]]) -> dict[str, Any]:
    responses: dict[str, Any] = {str(a.status): _response(a, references) for a in route.answers}
    responses |= {str(status): {"$ref": f"#/components/responses/{status}"} for status in errors_of(route)}
    operation: dict[str, Any] = {
        "operationId": operation_id(route),
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": _parameters(route),
        "responses": dict(sorted(responses.items())),
    }
    if route.access is None:
        operation["security"] = []
    else:
        schemes: list[dict[str, list[str]]] = (
            [{"bearer": []}, {"query": []}] if route.access.query_token else [{"bearer": []}]
        )
        operation["security"] = schemes
        operation["description"] = "Roles: " + ", ".join(sorted(route.access.roles)) + "."
    if route.body:
        content = {kind: {"schema": _schema(model, references)} for kind, model in route.body.items()}
        operation["requestBody"] = {"required": route.body_required, "content": content}
    return operation


def operation_id(route: Route) -> str:
    """A stable name: method and path in words."""
    words = re.findall(r"[A-Za-z0-9]+", route.template) or ["index"]
    return "_".join([route.method.lower(), *words]).lower()


def errors_of(route: Route) -> list[int]:
    """The statuses a route may end in: its own, and those that follow from guard, path and body."""
    errors = set(route.errors)
    if route.access is not None:
        errors |= {401, 403}
    if "{" in route.path:
        errors.add(404)
    if route.body:
        errors |= {400, 413}
        if any(model is not None for model in route.body.values()):
            errors.add(422)
    if any(q.schema.get("enum") for q in route.query):
        errors.add(422)
    return sorted(errors)


def _all_errors(routes: Iterable[Route]) -> list[int]:
    return sorted({status for route in routes for status in errors_of(route)})


def _problem_response(status: int) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": HTTPStatus(status).phrase,
        "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    header = {401: "WWW-Authenticate", 503: "Retry-After"}.get(status)
    if header is not None:
        response["headers"] = {header: {"schema": {"type": "string"}}}
    return response


def _parameters(route: Route) -> list[dict[str, Any]]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", route.template)
    ]
    in_query = [
        {"name": q.name, "in": "query", "description": q.description, "schema": dict(q.schema)}
        for q in route.query
    ]
    return [*in_path, *in_query]


def _response(answer: Answer, references: Mapping[type[BaseModel], dict[str, Any]]) -> dict[str, Any]:
    response: dict[str, Any] = {"description": answer.description}
    if answer.content:
        response["content"] = {
            kind: {"schema": _schema(schema, references)} for kind, schema in answer.content.items()
        }
    if answer.headers:
        response["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in answer.headers.items()
        }
    return response


def _schema(
    schema: type[BaseModel] | Mapping[str, Any] | None, references: Mapping[type[BaseModel], dict[str, Any]]
) -> dict[str, Any]:
    if schema is None:
        return {}
    if isinstance(schema, Mapping):
        return dict(schema)
    return references[schema]
