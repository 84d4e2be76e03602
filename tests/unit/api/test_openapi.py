"""The OpenAPI document against what it tells of: routes, roles, schemas, errors.

That every answer is as it tells is checked by the client of all tests here (`conftest.py`).
"""

import inspect
import json
import re
from typing import Any

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.applications import Starlette
from starlette.routing import Route

from hal0.api import openapi
from hal0.api.auth import TABLE
from hal0.api.operations import OPERATIONS
from hal0.dispatcher.routing import ROUTES as INFERENCE
from hal0.errors import Hal0Error, tree
from tests.documented import Document, Json, document_of

pytestmark = pytest.mark.anyio
KNOWN = re.compile(r"hal0_knows_no_such: is unknown; (?:known are (.*)|none is taken)$")


@pytest.fixture
def document(app: Starlette) -> Document:
    return document_of(app)


def operations(document: Document) -> dict[str, Json]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document.tree["paths"].items()
        for method, operation in methods.items()
    }


def an_example_of(path: str) -> str:
    return re.sub(r"{\w+}", "chat", re.sub(r"{\w+_id}", "1", path))


def names_known(answer: httpx.Response) -> set[str]:
    """Return the names that a refusal of `hal0_knows_no_such` gives as known."""
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid")
    found = KNOWN.search(answer.json()["detail"])
    assert found, answer.json()["detail"]
    return set(found[1].split(", ")) if found[1] else set()


async def test_it_is_served_as_json_and_the_same_each_time(
    api: httpx.AsyncClient, app: Starlette
) -> None:
    first, again = [await api.get("/api/v1/openapi.json") for _ in range(2)]
    assert (first.status_code, first.headers["content-type"]) == (200, "application/json")
    assert first.content == again.content
    assert first.json() == openapi.document(app.routes)


def test_it_is_a_valid_openapi_3_1_document(document: Document) -> None:
    assert document.tree["openapi"] == "3.1.0"
    assert [*OpenAPIV31SpecValidator(document.tree).iter_errors()] == []


def test_every_route_is_an_operation_with_its_role_and_every_operation_a_route(
    app: Starlette, document: Document
) -> None:
    routes = {
        (method, route.path)
        for route in app.routes
        if isinstance(route, Route) and route.include_in_schema
        for method in (route.methods or set()) - {"HEAD"}
    }
    forwarded = {("POST", path) for path in INFERENCE}
    roles = {
        f"{method} {path.replace(':int', '')}": str(TABLE[method, path])
        for method, path in routes | forwarded
    }
    told = {name: operation["x-role"] for name, operation in operations(document).items()}
    assert told == roles
    assert {*OPERATIONS, *(f"POST {path}" for path in INFERENCE)} == set(roles)


def test_every_operation_has_an_id_and_a_sentence_of_its_own(document: Document) -> None:
    told = [*operations(document).values()]
    for what in ("operationId", "summary"):
        assert len({operation[what] for operation in told}) == len(told)
    assert all(operation["summary"] for operation in told)


def test_every_error_is_listed_with_its_status_and_sentence(document: Document) -> None:
    errors = [error for error in tree() if error.__module__ == Hal0Error.__module__]
    said = [(inspect.getdoc(error) or "").splitlines()[0].rstrip(".") for error in errors]
    listed = {
        (row["code"], row["status"], row["meaning"]) for row in document.tree["x-error-codes"]
    }
    assert {(e.code, e.status, s) for e, s in zip(errors, said, strict=True)} <= listed
    assert set(document.tree["components"]["schemas"]["Code"]["enum"]) == {e.code for e in errors}


def test_a_code_stands_under_its_own_status(document: Document) -> None:
    status_of = {row["code"]: str(row["status"]) for row in document.tree["x-error-codes"]}
    for name, operation in operations(document).items():
        for status, answer in operation["responses"].items():
            told = document.look_up(answer)
            problem = told.get("content", {}).get("application/problem+json")
            if problem is not None:
                codes = problem["schema"]["allOf"][1]["properties"]["code"]["enum"]
                assert {status_of[code] for code in codes} == {status}, name


@pytest.mark.parametrize("name", [name for name in OPERATIONS if OPERATIONS[name].body])
async def test_a_body_is_told_by_the_schema_that_checks_it(
    api: httpx.AsyncClient, document: Document, name: str
) -> None:
    method, _, path = name.partition(" ")
    content = operations(document)[name]["requestBody"]["content"]
    told = document.look_up(content["application/json"]["schema"])
    assert told["additionalProperties"] is False
    body: dict[str, Any] = {"hal0_knows_no_such": 1}
    if told.get("required"):  # what is missing is told first
        body |= {"name": "a", "kind": "lemonade", "url": "http://h", "role": "reader"}
        body = {key: body[key] for key in (*told["required"], "hal0_knows_no_such")}
    refused = await api.request(method, an_example_of(path), json=body)
    assert names_known(refused) == set(told["properties"])


@pytest.mark.parametrize("name", [name for name in OPERATIONS if " /api/" in name])
async def test_a_query_is_told_by_the_schema_that_checks_it(
    api: httpx.AsyncClient, document: Document, name: str
) -> None:
    method, _, path = name.partition(" ")
    told = operations(document)[name]["parameters"]
    refused = await api.request(method, an_example_of(path), params={"hal0_knows_no_such": 1})
    assert names_known(refused) == {one["name"] for one in told if one["in"] == "query"}


async def test_what_is_told_as_an_example_is_taken(api: httpx.AsyncClient) -> None:
    """The formats that no schema can tell in full have examples."""
    model = {"name": "m", "source": "hf://org/repo/model.gguf"}
    engine = {"name": "e", "kind": "lemonade", "url": "http://127.0.0.1:8000"}
    for path, body in (("models", model), ("engines", engine)):
        assert (await api.post(f"/api/v1/{path}", json=body)).status_code == 201, json.dumps(body)
