"""What a request says, or the error that it gets."""

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes.lemond.catalog import Catalog, Definition
from tests.fakes.lemond.shapes import error_a, not_found

NULL_NAME = "[json.exception.type_error.302] type must be string, but is null"


class RefusedError(Exception):
    """A request ends with this answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


async def read_object(request: Request) -> dict[str, Any]:
    """Return the JSON object of the body; raises RefusedError."""
    raw = await request.body()
    if not raw:
        raise RefusedError(error_a("Request body is required but was empty", 400))
    try:
        body = json.loads(raw)
    except ValueError as exc:
        raise RefusedError(error_a(f"Invalid JSON in request body: {exc}", 400)) from exc
    if not isinstance(body, dict):
        raise RefusedError(error_a("Invalid JSON in request body: no object", 400))
    return body


def name_in(body: dict[str, Any]) -> str | None:
    """Return the model that a body names under either of its keys."""
    name = body.get("model_name", body.get("model"))
    return name if isinstance(name, str) and name else None


def found(catalog: Catalog, name: str) -> Definition:
    """Return the model of this name; raises RefusedError."""
    definition = catalog.find(name)
    if definition is None:
        raise RefusedError(not_found(catalog, name))
    return definition


def unnamed() -> RefusedError:
    """Return the refusal of a load without a name."""
    error = {"message": f"Invalid request: {NULL_NAME}", "type": "invalid_request_error"}
    return RefusedError(JSONResponse({"error": error | {"code": "invalid_request"}}, 400))
