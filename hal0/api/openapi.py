"""The OpenAPI 3.1 document, made of the route table, the schemas of bodies and those of answers.

Nothing is told here that is not said somewhere else: paths and sentences are those of the routes
and their handlers, roles those of `auth.TABLE`, the rest is in `operations.py` and the error tree.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from http import HTTPStatus
from inspect import getdoc
from typing import Any, Final, Literal

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route

from hal0 import __version__, errors
from hal0.access.roles import Role
from hal0.api import answers, idempotency, openapi_inference, problems
from hal0.api.auth import TABLE
from hal0.api.json_body import MAX_BYTES
from hal0.api.openapi_refusals import (
    ALWAYS,
    OF_A_BODY,
    OF_A_ROLE,
    REQUEST_ID,
    TEXT,
    Json,
    Refusals,
    by_status,
    name_of,
    refusal,
)
from hal0.api.operations import OPERATIONS, PATH_PARAMETERS, Operation
from hal0.api.waiting import MAX_WAIT_S
from hal0.dispatcher.routing import ROUTES as INFERENCE
from hal0.errors import Hal0Error

Mode = Literal["validation", "serialization"]
Told = Mapping[Any, Json]
"""JSON Schemas by what they are of."""

JSON_TYPE: Final = "application/json"
IDEMPOTENCY_KEY: Final[Json] = {
    "name": idempotency.HEADER,
    "in": "header",
    "description": "the same request with the same key is done once; kept for a day",
    "schema": {
        "type": "string",
        "pattern": "^[!-~]([ -~]*[!-~])?$",
        "maxLength": idempotency.MAX_LENGTH,
    },
}
PREFER: Final[Json] = {
    "name": "Prefer",
    "in": "header",
    "description": f"`wait=N`: answer when the order is done, or after N seconds (<= {MAX_WAIT_S})",
    "schema": TEXT,
}
DESCRIPTION: Final = f"""\
Named slots of a local model server. Unknown fields and parameters are refused. Ids are integers,
times RFC 3339 in UTC. A list is read in pages: `cursor` is the `next_cursor` of the page before.

A body is one JSON object in UTF-8 of at most {MAX_BYTES} bytes; none at all counts as `{{}}`. What
is no HTTP request is answered `{errors.NotHttp.code}` ({errors.NotHttp.status}), too long a head
`{errors.HeadTooLarge.code}` ({errors.HeadTooLarge.status}), too slow a one
`{errors.TooSlow.code}` ({errors.TooSlow.status}), a body for which others leave no room
`{errors.NoRoom.code}` ({errors.NoRoom.status}); then the connection is closed.

Requests for inference, each `POST` below `/v1/`, go on to the engine of a slot: what hal0 does not
read of them, and every answer of an engine, is as OpenAI's API and that engine have it.

Every refusal is `{problems.MEDIA_TYPE}`; `x-error-codes` lists all codes. While there is no token,
who is on this machine may do everything and needs none."""


class _Schemas(GenerateJsonSchema):
    """Without titles that only repeat a field's name; a page of X is called XList."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def normalize_name(self, name: str) -> str:
        return super().normalize_name(re.sub(r"^Listed\[(\w+)\]$", r"\1List", name))


@lru_cache(maxsize=1)
def text_of(app: Starlette) -> str:
    """Return the document of the application as JSON; it is made once."""
    return json.dumps(document(app.routes), ensure_ascii=False, separators=(",", ":"))


def document(routes: Sequence[BaseRoute]) -> Json:
    """Return the document of these routes; raises KeyError for one that has no operation."""
    told, schemas = _schemas()
    paths: dict[str, Json] = {}
    refusals: dict[str, Json] = {}
    for method, route in _served(routes):
        path = route.path.replace(":int", "")
        said = _Said(method, path, OPERATIONS[f"{method} {path}"], TABLE[method, route.path])
        paths.setdefault(path, {})[method.lower()] = said.operation(route.endpoint, told)
        refusals |= {
            name_of(kinds): refusal(kinds, told[answers.Problem])
            for kinds in said.problems().values()
        }
    for path, forwarded in INFERENCE.items():
        paths[path] = {
            "post": {
                **_who_may(TABLE["POST", path]),
                **openapi_inference.operation(forwarded),
            }
        }
        refusals |= openapi_inference.refusals(forwarded, told[answers.Problem])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "hal0",
            "version": __version__,
            "summary": "Keeps a local model server in order",
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": dict(sorted(refusals.items())),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "x-error-codes": [
            {"code": error.code, "status": error.status, "meaning": problems.title_of(error)}
            for error in errors.tree()
        ],
    }


def _served(routes: Sequence[BaseRoute]) -> Iterator[tuple[str, Route]]:
    for route in routes:
        assert isinstance(route, Route)
        if not route.include_in_schema:  # of the page, which is for people
            continue
        for method in sorted((route.methods or set()) - {"HEAD"}):
            yield method, route


@cache
def _schemas() -> tuple[Told, Json]:
    """Return the schemas of all operations, those of queries in full, and what they refer to."""
    asked: dict[tuple[Any, Mode], Any] = {(answers.Problem, "serialization"): answers.Problem}
    queries = {operation.query for operation in OPERATIONS.values()}
    asked |= {(name, "validation"): kind for name, kind in PATH_PARAMETERS.items()}
    asked |= {(query, "validation"): query for query in queries}
    for operation in OPERATIONS.values():
        asked |= {(shape, "serialization"): shape for shape in operation.success.values() if shape}
        if operation.body is not None:
            asked[operation.body, "validation"] = operation.body
    told, rest = TypeAdapter.json_schemas(
        [(key, mode, TypeAdapter(kind)) for (key, mode), kind in asked.items()],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Schemas,
    )
    components = dict(sorted(rest["$defs"].items()))
    of_queries = {query: components.pop(query.__name__) for query in queries}
    return {key: of_queries.get(key, schema) for (key, _), schema in told.items()}, components


@dataclass(frozen=True, slots=True)
class _Said:
    """One route and all that is known of it."""

    method: str
    path: str
    known: Operation
    role: Role

    @property
    def _is_done_once(self) -> bool:
        """Whether it takes an Idempotency-Key."""
        return self.method == "POST" and not self.known.is_told_once

    def operation(self, handler: Callable[..., Any], told: Told) -> Json:
        """Return the operation object."""
        said: Json = {
            "operationId": handler.__name__,
            "summary": (getdoc(handler) or "").partition("\n")[0].rstrip("."),
            "tags": [self.path.removeprefix("/api/v1").split("/")[1]],
            **_who_may(self.role),
            "parameters": [*self._parameters(told)],
        }
        if self.known.body is not None:
            body = told[self.known.body]
            said["requestBody"] = {"content": {JSON_TYPE: {"schema": body}}}
            said["requestBody"]["required"] = any(
                field.is_required() for field in self.known.body.model_fields.values()
            )
        return {**said, "responses": self._responses(told)}

    def _parameters(self, told: Told) -> Iterator[Json]:
        for name in re.findall(r"{(\w+)}", self.path):
            yield {"name": name, "in": "path", "required": True, "schema": told[name]}
        for name, schema in told[self.known.query].get("properties", {}).items():
            yield {"name": name, "in": "query", "schema": _given(schema)}
        if self._is_done_once:
            yield IDEMPOTENCY_KEY
        if self.known.can_wait:
            yield PREFER

    def problems(self) -> Refusals:
        """Return what the route may be refused with, by status."""
        return by_status(self._problems())

    def _responses(self, told: Told) -> Json:
        responses = {
            status: self._success(status, told.get(shape))
            for status, shape in self.known.success.items()
        }
        for status, kinds in self.problems().items():
            responses[status] = {"$ref": f"#/components/responses/{name_of(kinds)}"}
        return {str(status): responses[status] for status in sorted(responses)}

    def _success(self, status: int, schema: Json | None) -> Json:
        headers = dict(REQUEST_ID)
        if status in (201, 202) and not self.known.is_told_once:
            headers["Location"] = {"required": True, "schema": TEXT}
        if self._is_done_once:
            headers[idempotency.REPLAYED] = {"schema": {"const": "true"}}
        if self.known.can_wait:
            headers["Preference-Applied"] = {"schema": TEXT}
        said: Json = {"description": HTTPStatus(status).phrase, "headers": headers}
        if schema is None:
            return said
        return {**said, "content": {self.known.media_type: {"schema": schema}}}

    def _problems(self) -> Iterator[type[Hal0Error]]:
        yield from self.known.problems
        yield from ALWAYS
        if self.role is not Role.ANYONE:
            yield from OF_A_ROLE
        if "{" in self.path:
            yield errors.RouteNotFound
        if self.method != "GET":
            yield errors.BadOrigin
        if self.known.body is not None:
            yield from OF_A_BODY
        if self._is_done_once:
            yield errors.KeyReused


def _who_may(role: Role) -> Json:
    security: list[Json] = [] if role is Role.ANYONE else [{"bearer": []}, {}]
    return {"x-role": str(role), "security": security}


def _given(schema: Json) -> Json:
    """Return the schema of a parameter that is given: null is what is left out."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf" and value is not None}
    if len(kinds) == 1:
        return {**rest, **kinds[0]}
    return {**rest, "anyOf": kinds} if kinds else rest
