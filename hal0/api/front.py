"""What every request passes in front of its route, the same for inference as for anything else.

    its id     kept or made (`request_ids.py`); it stands in the answer and in what is logged
    the gate   who asks, and whether they may (`auth.py`)
    its route  the dispatcher's below /v1, else Starlette's, which looks at each in turn
    problems   what goes wrong behind it is told as one (`problems.py`)

One callable with one wrapper around `send`, for every request for inference goes through it: as a
chain of middlewares, each of which looked at the headers anew, it took a request 9 us more.
"""

import asyncio
import logging
from collections.abc import Awaitable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hal0 import logs
from hal0.api.auth import Gate
from hal0.api.page_problems import told
from hal0.api.problems import known
from hal0.api.request_headers import RequestHeaders
from hal0.api.request_ids import HEADER, kept_or_made
from hal0.dispatcher.routing import ROUTES as INFERENCE
from hal0.errors import Forbidden, Hal0Error, InternalFault, Stopping

log = logging.getLogger(__name__)

_ID = HEADER.lower().encode()


class Front:
    """The outermost ASGI application of the API; `app` has the routes that are no inference."""

    def __init__(self, app: ASGIApp, inference: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._inference = inference
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; a problem that comes after an answer has begun breaks the connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise Forbidden(f"{scope['type']} is not served here")
        headers = RequestHeaders(scope["headers"])
        request_id = kept_or_made(headers.first(_ID))
        scope.setdefault("state", {})["request_id"] = request_id
        has_begun = False

        def answer(message: Message) -> Awaitable[None]:
            nonlocal has_begun
            if not has_begun:
                has_begun = True
                message["headers"] = [*message.get("headers", ()), (_ID, request_id.encode())]
            return send(message)

        with logs.about(request_id=request_id):
            try:
                await self._serve(scope, headers, receive, answer)
            except ClientDisconnect:
                return
            except asyncio.CancelledError:  # the server stops, and the time of its requests is over
                if has_begun:
                    return
                stopping = Stopping("hal0 stops; ask again")
                await told(stopping, scope)(scope, receive, answer)
            except Exception as exc:  # whatever it is, who asked gets a problem and no traceback
                error = _known(exc, scope)
                if has_begun:
                    raise
                await told(error, scope)(scope, receive, answer)

    async def _serve(
        self, scope: Scope, headers: RequestHeaders, receive: Receive, send: Send
    ) -> None:
        caller = await self._gate.admit(scope, headers)
        app = self._inference if scope["path"] in INFERENCE else self._app
        if caller is None:
            await app(scope, receive, send)
            return
        scope["state"].update(actor=caller.actor, role=caller.role)
        try:
            await app(scope, receive, send)
        finally:  # when the answer is sent, so that nobody waits for it
            await self._gate.note_use(caller)


def _known(exc: Exception, scope: Scope) -> Hal0Error:
    """Return the error that `exc` is told as; a bug of hal0's has its traceback in the log."""
    error = known(exc)
    if isinstance(error, InternalFault):
        of = {"request_id": scope["state"]["request_id"]}
        log.error("%s %s", scope["method"], scope["path"], exc_info=exc, extra=of)
    return error
