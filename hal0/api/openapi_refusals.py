"""How the OpenAPI document tells of refusals: by status, each with every code that stands there."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from hal0 import errors
from hal0.api import problems, request_ids
from hal0.errors import Hal0Error

Json = dict[str, Any]
Refusals = Mapping[int, Sequence[type[Hal0Error]]]
"""What a route may be refused with, by status."""

ALWAYS: Final = (errors.BadHost, errors.InternalFault)
OF_A_ROLE: Final[tuple[type[Hal0Error], ...]] = (
    *(errors.InvalidRequest, errors.Unauthorized, errors.Forbidden, errors.TooManyFailures),
    *errors.tree(errors.DatabaseError),
)
OF_A_BODY: Final = (errors.NotJson, errors.NotJsonType, errors.TooLarge, errors.TooSlow)

TEXT: Final[Json] = {"type": "string"}
REQUEST_ID: Final[Json] = {request_ids.HEADER: {"required": True, "schema": TEXT}}
RETRY_AFTER: Final[Json] = {"schema": {"type": "integer", "minimum": 1}}


def by_status(kinds: Iterable[type[Hal0Error]]) -> Refusals:
    """Return these errors by status, each once; statuses and codes in their order."""
    found: dict[int, list[type[Hal0Error]]] = {}
    for error in sorted({*kinds}, key=lambda error: error.code):
        found.setdefault(error.status, []).append(error)
    return dict(sorted(found.items()))


def name_of(kinds: Sequence[type[Hal0Error]]) -> str:
    """Return what the response of these errors, which have one status, is called."""
    return "-".join([str(kinds[0].status), *(error.code for error in kinds)])


def refusal(kinds: Sequence[type[Hal0Error]], problem: Json) -> Json:
    """Return the response of one status, with every code that may stand in a `problem`."""
    status = kinds[0].status
    code = {"properties": {"code": {"enum": [error.code for error in kinds]}}}
    headers = dict(REQUEST_ID)
    if status in problems.WAIT_STATUSES:
        headers["Retry-After"] = {**RETRY_AFTER, "required": True}
    return {
        "description": "; ".join(f"`{error.code}`: {problems.title_of(error)}" for error in kinds),
        "headers": headers,
        "content": {problems.MEDIA_TYPE: {"schema": {"allOf": [problem, code]}}},
    }
