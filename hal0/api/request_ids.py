"""Under which id a request is found again: in its answer, in the rows it makes and in the log."""

import uuid
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hal0 import logs
from hal0.masks import holds_token

HEADER: Final = "X-Request-ID"
MAX_LENGTH: Final = 128


class RequestIds:
    """ASGI middleware that keeps the caller's id, or makes one, and puts it into the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Set `state["request_id"]`."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = kept_or_made(Headers(scope=scope).get(HEADER))
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        with logs.about(request_id=request_id):
            await self.app(scope, receive, send_with_id)


def kept_or_made(given: str | None) -> str:
    """Return the caller's id if it is 1 to 128 printable ASCII characters, else a new one.

    One with a token in it is a slip that rows would keep.
    """
    fits = given and len(given) <= MAX_LENGTH and given.isascii() and given.isprintable()
    if given and fits and not holds_token(given):
        return given
    return uuid.uuid4().hex
