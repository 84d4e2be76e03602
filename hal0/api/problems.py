"""What a caller is told when something goes wrong: RFC 9457 `application/problem+json`.

The one place where errors become responses. A `Hal0Error` says itself what happened; anything else
is a bug of hal0: the log has the traceback, the caller a request id and nothing more.
"""

import json
import logging
import math
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hal0.errors import (
    Hal0Error,
    InternalFault,
    MethodNotAllowed,
    RequestError,
    RouteNotFound,
    TooSlow,
    Unauthorized,
)
from hal0.masks import masked

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
WAIT_STATUSES: Final = frozenset({429, 503})


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
    return body if error.job_id is None else {**body, "job_id": error.job_id}


def response_for(error: Hal0Error, path: str) -> Response:
    """Return the answer; 429 and 503 say when to come back, 405 what is possible."""
    headers = {"Cache-Control": "no-store"}
    if error.status in WAIT_STATUSES:
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


class Problems:
    """ASGI middleware that answers for whatever is raised behind it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a problem, unless an answer has begun already: then the connection breaks."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_begun = False

        async def watch(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except ClientDisconnect:
            return
        except Exception as exc:  # whatever it is, who asked gets a problem and no traceback
            error = known(exc)
            if isinstance(error, InternalFault):
                request_id = scope.get("state", {}).get("request_id")
                log.exception(
                    "%s %s", scope["method"], scope["path"], extra={"request_id": request_id}
                )
            if has_begun:
                raise
            await response_for(error, scope["path"])(scope, receive, send)
