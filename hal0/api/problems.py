"""What a caller is told when something goes wrong: RFC 9457 `application/problem+json`.

The one place where errors become responses. A `Hal0Error` says itself what happened; anything else
is a bug of hal0: the log has the traceback, the caller a request id and nothing more.
"""

import json
import math
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import Response

from hal0.dispatcher.openai_errors import as_openai
from hal0.errors import (
    Hal0Error,
    InternalFault,
    MethodNotAllowed,
    RequestError,
    RouteNotFound,
    SlotParked,
    SlotUnloaded,
    TooSlow,
    Unauthorized,
)
from hal0.masks import masked

MEDIA_TYPE: Final = "application/problem+json"
WAIT_STATUSES: Final = frozenset({429, 503})
NOT_BY_WAITING: Final = (SlotUnloaded, SlotParked)
"""What passes by itself only if the error says when."""
INFERENCE: Final = "/v1/"
"""Below it clients of OpenAI's API read `error`."""


def title_of(error: type[Hal0Error]) -> str:
    """Return what this kind of error means in one sentence, without the full stop."""
    return (error.__doc__ or error.code).partition("\n")[0].rstrip(".")


def as_problem(error: Hal0Error, path: str) -> dict[str, Any]:
    """Return the body of an answer to a request for `path`."""
    body = {
        "type": f"/problems/{error.code}",
        "title": title_of(type(error)),
        "status": error.status,
        "detail": error.detail,
        "instance": path,
        "code": error.code,
        "evidence": error.evidence,
    }
    if error.job_id is not None:
        body["job_id"] = error.job_id
    if path.startswith(INFERENCE):
        body["error"] = as_openai(error)
    return body


def response_for(error: Hal0Error, path: str) -> Response:
    """Return the answer; 429 and 503 say when to come back, 405 what is possible."""
    headers = {"Cache-Control": "no-store"}
    passes = error.retry_after_s is not None or not isinstance(error, NOT_BY_WAITING)
    if error.status in WAIT_STATUSES and passes:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s or 1)))
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TooSlow):
        headers["Connection"] = "close"
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.evidence.get("allow", ()))
    content = masked(json.dumps(as_problem(error, path), default=str))
    return Response(content, error.status, headers, MEDIA_TYPE)


def known(exc: Exception) -> Hal0Error:
    """Return the error of ours that `exc` is, or that it is told as."""
    if isinstance(exc, Hal0Error):
        return exc
    if isinstance(exc, HTTPException):
        kind = {404: RouteNotFound, 405: MethodNotAllowed}.get(exc.status_code, RequestError)
        return kind(str(exc.detail))
    return InternalFault("hal0 has a bug; the log of the API has more under this request's id")
