"""Whether an answer is as the OpenAPI document tells: its status, headers, type and every field."""

import json
import re
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import httpx
from jsonschema_rs import Draft202012Validator
from starlette.applications import Starlette

from hal0.api import openapi

Json = dict[str, Any]
PROBLEM = "application/problem+json"


class Document:
    """A document, and the answers that it allows."""

    def __init__(self, text: str) -> None:
        self.tree: Json = json.loads(text)
        self._shapes: dict[str, Draft202012Validator] = {}

    def operation(self, method: str, path: str) -> Json | None:
        """Return the operation that serves a decoded path; None where nothing does."""
        for told, operations in self.tree["paths"].items():
            if re.fullmatch(_pattern(told), path):
                found: Json | None = operations.get("get" if method == "HEAD" else method.lower())
                return found
        return None

    def look_up(self, told: Json) -> Json:
        """Return what is told, or what it refers to."""
        found: Any = self.tree
        if "$ref" not in told:
            return told
        for step in told["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        return dict(found)

    def check(self, response: httpx.Response) -> None:
        """Raise AssertionError for an answer that the document does not tell of."""
        request = response.request
        operation = self.operation(request.method, request.url.path)
        if operation is None:
            assert response.status_code >= 400, "answered where the document tells of nothing"
            self._check_body(response, PROBLEM, {"$ref": "#/components/schemas/Problem"})
            return
        responses = operation["responses"]
        told = responses.get(str(response.status_code), responses.get("default"))
        assert told is not None, f"{request.method} {request.url.path}: {response.text}"
        told = self.look_up(told)
        needed = {name for name, header in told["headers"].items() if header.get("required")}
        assert needed <= {name for name in needed if name in response.headers}
        given = response.headers.get("content-type", "").partition(";")[0]
        contents = told.get("content", {"": {"schema": False}})
        fitting = [kind for kind in contents if fnmatchcase(given, kind.partition(";")[0])]
        assert fitting, f"{request.method} {request.url.path}: {given} is none of {[*contents]}"
        kind = next((kind for kind in fitting if "*" not in kind), None)
        if kind is not None and "schema" in contents[kind]:
            self._check_body(response, kind, contents[kind]["schema"])

    def _check_body(self, response: httpx.Response, kind: str, schema: Any) -> None:
        assert response.headers.get("content-type", "") == kind
        if response.request.method == "HEAD" or schema is False:
            assert response.content == b""
            return
        is_json = kind.endswith(("/json", "+json"))
        self.shape(schema).validate(response.json() if is_json else response.text)

    def shape(self, schema: Json) -> Draft202012Validator:
        """Return what checks a value against a schema of this document."""
        key = json.dumps(schema)
        if key not in self._shapes:
            whole = {**schema, "components": self.tree["components"]}
            self._shapes[key] = Draft202012Validator(whole)
        return self._shapes[key]


@cache
def document_of_text(text: str) -> Document:
    """Return the document of this text."""
    return Document(text)


_KNOWN: dict[tuple[str, ...], Document] = {}


def document_of(app: Starlette) -> Document:
    """Return what an application tells of itself; one with the same routes tells the same."""
    routes = tuple(map(repr, app.routes))
    if routes not in _KNOWN:
        _KNOWN[routes] = document_of_text(openapi.text_of(app))
    return _KNOWN[routes]


def _pattern(told: str) -> str:
    steps = re.split(r"({\w+})", told)
    return "".join(
        re.escape(step) if not step.startswith("{") else r"\d+" if "_id" in step else "[^/]+"
        for step in steps
    )
