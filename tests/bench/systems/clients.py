"""The clients for inference that were compared (ADR-0012), each as fast as it is meant to be used.

One pool that is kept and has no limit, no timeout on the whole, no cookies, no proxies of the
environment, and bytes as they come.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, Final, Protocol

import aiohttp
from yarl import URL

from tests.bench.systems.raw_client import RawClient

Headers = list[tuple[bytes, bytes]]
HOP_BY_HOP: Final = frozenset(
    {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
CONNECT_S: Final = 5.0
SILENCE_S: Final = 600.0


class Client(Protocol):
    """One pooled client of one upstream, for one event loop."""

    async def forward(self, path: str, headers: Headers, body: bytes, send: Any) -> None:
        """Send a POST and pass on the answer's head and bytes, but for the last ASGI message."""
        ...

    async def close(self) -> None: ...


class Aiohttp:
    """aiohttp, hal0's choice."""

    def __init__(self, upstream: str) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(None, sock_connect=CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
        )
        self._url_of = cache(URL(upstream).joinpath)

    async def forward(self, path: str, headers: Headers, body: bytes, send: Any) -> None:
        named = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        url = self._url_of(path[1:])
        async with self._session.post(url, headers=named, data=body) as answer:
            await send(_start(answer.status, answer.raw_headers))
            async for chunk in answer.content.iter_any():
                await send(_part(chunk))

    async def close(self) -> None:
        await self._session.close()


class Httpx:
    """httpx, or httpx2, which has the same face."""

    def __init__(self, upstream: str, name: str = "httpx") -> None:
        library = import_module(name)
        self._client = library.AsyncClient(
            base_url=upstream,
            limits=library.Limits(max_connections=None, max_keepalive_connections=None),
            timeout=library.Timeout(SILENCE_S, connect=CONNECT_S),
            trust_env=False,
        )

    async def forward(self, path: str, headers: Headers, body: bytes, send: Any) -> None:
        async with self._client.stream("POST", path, headers=headers, content=body) as answer:
            await send(_start(answer.status_code, answer.headers.raw))
            async for chunk in answer.aiter_raw():
                await send(_part(chunk))

    async def close(self) -> None:
        await self._client.aclose()


def _start(status: int, headers: Any) -> dict[str, Any]:
    lower = ((name.lower(), value) for name, value in headers)
    kept = [(name, value) for name, value in lower if name not in HOP_BY_HOP]
    return {"type": "http.response.start", "status": status, "headers": kept}


def _part(chunk: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": chunk, "more_body": True}


class Raw(RawClient):
    """Our own on httptools."""

    async def forward(self, path: str, headers: Headers, body: bytes, send: Any) -> None:
        async with self.post(path, headers, body) as answer:
            await send(_start(answer.status, answer.headers))
            while chunk := await answer.read():
                await send(_part(chunk))


CLIENTS: Final[dict[str, Callable[[str], Client]]] = {
    "aiohttp": Aiohttp,
    "httpx": Httpx,
    "httpx2": lambda upstream: Httpx(upstream, "httpx2"),
    "httptools": Raw,
}
