"""The least that a proxy in Python can be: raw ASGI, one pooled client, nothing looked at.

What hal0 costs beyond this, with the same client, is what hal0 does. The settings of uvicorn are
hal0's. `python -m tests.bench.systems.pass_through <client> <upstream> <port>`, with a client of
`CLIENTS`.
"""

import sys
from typing import Any, Final

import uvicorn

from tests.bench.systems.clients import CLIENTS, HOP_BY_HOP, Client

NOT_PASSED: Final = HOP_BY_HOP | {b"host", b"authorization", b"content-length", b"accept-encoding"}


class PassThrough:
    """The ASGI application; its client lives in the loop that serves."""

    def __init__(self, client: str, upstream: str) -> None:
        self._make_client = CLIENTS[client]
        self._upstream = upstream
        self._client: Client

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        body = await _read(receive)
        headers = [(name, value) for name, value in scope["headers"] if name not in NOT_PASSED]
        headers.append((b"accept-encoding", b"identity"))
        await self._client.forward(scope["path"], headers, body, send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        self._client = self._make_client(self._upstream)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._client.close()
        await send({"type": "lifespan.shutdown.complete"})


async def _read(receive: Any) -> bytes:
    """Return the body of a request."""
    message = await receive()
    body: bytes = message["body"]
    while message["more_body"]:
        message = await receive()
        body += message["body"]
    return body


if __name__ == "__main__":
    uvicorn.run(
        PassThrough(*sys.argv[1:3]),
        port=int(sys.argv[3]),
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        proxy_headers=False,
    )
