"""Who may ask the engine: who has its key, and no page of another site."""

import hmac
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from hal0.embedded.shapes import plain_error

LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Guard:
    """An ASGI application around another; `/live` is open to all."""

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        """Let everyone in who is no foreign page when there is no key."""
        self._app = app
        self._expected = f"Bearer {key}".encode() if key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand over, or answer 401 or 403."""
        app: ASGIApp = self._app
        if scope["type"] == "http" and scope["path"] != "/live":
            headers = Headers(scope=scope)
            given = headers.get("authorization", "").encode()
            if not _is_local(headers.get("origin")):
                app = plain_error("Origin not allowed", 403)
            elif not _is_address(headers.get("host", "")):
                app = plain_error("Host not allowed: use an address, or localhost", 403)
            elif self._expected and not hmac.compare_digest(given, self._expected):
                app = plain_error("Invalid or missing API key", 401)
        await app(scope, receive, send)


def _is_address(host: str) -> bool:
    """Whether a Host header names no name that somebody's name server can give to this machine."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        ip_address(name)
    except ValueError:
        return name == "localhost"
    return True


def _is_local(origin: str | None) -> bool:
    if origin is None:
        return True
    try:
        return urlsplit(origin).hostname in LOCAL_HOSTS
    except ValueError:
        return False
