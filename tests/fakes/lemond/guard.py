"""Who may ask: two keys, and no page of another site.

With a key set, all but `/live` need it; `/internal` needs the admin's key, which is also good
elsewhere and is the same key when no other was set. With the admin's key alone the rest is open.
"""

import hmac
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.fakes.lemond.shapes import error_a

OWN_HOSTS = {"localhost", "127.0.0.1", "::1"}


class Guard:
    """An ASGI application around the server's."""

    def __init__(self, app: ASGIApp, key: str | None, admin_key: str | None) -> None:
        self.app = app
        self.key = key
        self.admin_key = admin_key or key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/live" or scope["path"].startswith("/_"):
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(Request(scope))
        await (self.app if refusal is None else refusal)(scope, receive, send)

    def _refusal(self, request: Request) -> Response | None:
        given = request.headers.get("authorization", "")
        is_internal = request.url.path.startswith("/internal/")
        if is_internal and self.admin_key and not _is(given, self.admin_key):
            return error_a("Invalid or missing admin API key", 401)
        is_known = _is(given, self.key) or _is(given, self.admin_key)
        if not is_internal and self.key and not is_known:
            return error_a("Invalid or missing API key", 401)
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).hostname not in OWN_HOSTS:
            return error_a("Origin not allowed", 403)
        return None


def _is(given: str, key: str | None) -> bool:
    return key is not None and hmac.compare_digest(given.encode(), f"Bearer {key}".encode())
