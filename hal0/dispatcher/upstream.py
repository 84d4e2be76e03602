"""How a request for inference goes to an engine and its answer comes back: all that knows aiohttp.

An engine has one pool of connections, for inference alone. Only a connection that could not be made
means that nothing was sent. What the client of hal0 said to hal0 alone stays here: who it is, which
machine it named, how its connection is to be kept; and so does what the engine says of its own
connection and of pages.
"""

import io
import os
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Final, Self

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientRequest,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    InvalidURL,
    TCPConnector,
)
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from hal0.engines.connect import read_key
from hal0.errors import EngineBadAnswer, EngineError, EngineUnauthorized, EngineUnreachable
from hal0.registry.roster import EngineRow

KEPT_S: Final = 3.0
"""How long an unused connection is kept: the servers of engines close theirs after five seconds,
and a request that meets that is lost."""
AT_ONCE_BYTES: Final = 1 << 20
"""A larger body is sent in pieces, so that others are served meanwhile."""

HOP_BY_HOP: Final = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization"),
        *(b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    }
)
NOT_SENT: Final = HOP_BY_HOP | {
    *(b"authorization", b"cookie", b"api-key", b"x-api-key"),
    *(b"origin", b"referer"),  # which hal0 has judged; an engine knows its own pages alone
    *(b"host", b"expect", b"accept-encoding", b"content-length", b"content-type"),
    *(b"content-encoding", b"content-digest", b"content-md5", b"digest", b"repr-digest"),
    b"x-request-id",
}
UNLESS_GIVEN: Final = {"Accept": "*/*", "User-Agent": "hal0"}
"""Else aiohttp would say its own; to be told to say nothing costs it more than these two do."""
NOT_PASSED_ON: Final = HOP_BY_HOP | {b"date", b"set-cookie", b"x-request-id"}


class Upstream:
    """The pools of one process, for one event loop."""

    def __init__(self, connect_timeout_s: float) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._lines: dict[str, _Line] = {}

    async def post(
        self,
        engine: EngineRow,
        path: str,
        headers: list[tuple[str, str]],
        body: bytes,
        ensure: Callable[[], None],
    ) -> "Answer":
        """Send `body` to /v1/`path` of an engine; its answer has begun when this returns.

        `ensure` is called when a connection stands and before anything goes over it; what it raises
        is raised, and nothing was sent. Raises EngineUnreachable when nothing was sent,
        EngineUnauthorized for a key that cannot be read or is not taken, EngineBadAnswer for
        anything else.
        """
        _ENSURE.set(ensure)
        line = self._lines.get(engine.url)
        if line is None:
            line = self._lines[engine.url] = _Line(engine, self._connect_timeout_s)
        return await line.post(path, headers, body, engine.key_file)

    async def close(self) -> None:
        """Close every connection."""
        for line in self._lines.values():
            await line.close()
        self._lines.clear()


_ENSURE: ContextVar[Callable[[], None]] = ContextVar("ensure")
"""What the request of this task has checked when its connection stands."""


class _Connector(TCPConnector):
    """aiohttp's; to connect may take long, and behind this nothing waits until it is sent."""

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109 - it is aiohttp's to name
    ) -> Connection:
        """Return a connection over which this may still be sent."""
        connection = await super().connect(req, traces, timeout)
        try:
            _ENSURE.get()()
        except BaseException:
            connection.release()
            raise
        return connection


class _Line:
    """The pool of one engine, and its key as last read."""

    def __init__(self, engine: EngineRow, connect_timeout_s: float) -> None:
        self._name = engine.name
        self._url = engine.url.rstrip("/")
        self._urls: dict[str, URL] = {}
        self._key: str | None = None
        self._key_seen: object = None
        self._session = ClientSession(
            connector=_Connector(limit=0, keepalive_timeout=KEPT_S),
            timeout=ClientTimeout(total=None, sock_connect=connect_timeout_s),
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            headers=UNLESS_GIVEN,
        )

    async def post(
        self, path: str, headers: list[tuple[str, str]], body: bytes, key_file: str | None
    ) -> "Answer":
        """Do as `Upstream.post`."""
        if key_file is not None and (key := self._key_in(key_file)) is not None:
            headers = [*headers, ("Authorization", f"Bearer {key}")]
        try:
            response = await self._session.post(
                self._url_of(path),
                data=body if len(body) <= AT_ONCE_BYTES else io.BytesIO(body),
                headers=headers,
                allow_redirects=False,
            )
        except (ClientError, OSError, ValueError) as exc:
            raise _told(self._name, exc) from exc
        answer = Answer(self._name, response)
        if response.status == 401:
            answer.close()
            raise EngineUnauthorized(
                f"engine {self._name} does not take hal0's key; see the file that it is read from"
            )
        if 300 <= response.status < 400:
            answer.close()
            raise EngineBadAnswer(f"engine {self._name} sends inference elsewhere")
        if not 200 <= response.status < 600:
            answer.close()
            raise EngineBadAnswer(
                f"engine {self._name} answers with status {response.status}, which is none of HTTP"
            )
        return answer

    async def close(self) -> None:
        await self._session.close()

    def _url_of(self, path: str) -> URL:
        if path not in self._urls:
            self._urls[path] = URL(f"{self._url}/v1/{path}")
        return self._urls[path]

    def _key_in(self, file: str) -> str | None:
        """Return the key, read anew when the file is another one or was written."""
        try:
            now = os.stat(file)  # noqa: PTH116 - for each request: a Path would cost more than this
            seen = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
        except OSError:
            seen = None
        if seen is None or seen != self._key_seen:
            self._key = read_key(file)
            self._key_seen = seen
        return self._key


class Answer:
    """What an engine answers, as it comes; close it."""

    __slots__ = ("_content", "_engine", "_response", "headers", "status")

    def __init__(self, engine: str, response: ClientResponse) -> None:
        self._engine = engine
        self._response = response
        self._content = response.content
        self.status = response.status
        self.headers = passed(response.raw_headers, NOT_PASSED_ON)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_events(self) -> bool:
        """Whether it is a stream of events, to which another one can be added."""
        return self._response.content_type == "text/event-stream" and not self.has_length

    @property
    def has_length(self) -> bool:
        """Whether its head says how long it is."""
        return self._response.content_length is not None

    @property
    def is_over(self) -> bool:
        """Whether all of it was taken."""
        return self._content.at_eof()

    async def next(self) -> bytes:
        """Return what has come, b"" at the end; raises EngineBadAnswer when it breaks off."""
        try:
            return await self._content.readany()
        except (ClientError, OSError, ValueError) as exc:
            raise _told(self._engine, exc) from exc

    def broken(self) -> EngineBadAnswer | None:
        """Return the error of an answer whose connection has gone without its end; else None.

        aiohttp closes a connection over which no HTTP comes, and does not tell who reads.
        """
        connection = self._response.connection
        if connection is None or self._content.is_eof() or self._content.exception() is not None:
            return None
        transport = connection.transport
        if transport is not None and not transport.is_closing():
            return None
        return _bad_answer(self._engine, "ConnectionClosed")

    def close(self) -> None:
        """Leave; the engine hears of it, unless it has said everything."""
        if not self._response.closed:
            self._response.close()


def sent_headers(given: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Return what goes to an engine of a client's headers, beside what its body is."""
    kept = passed(given, NOT_SENT)
    return [(name.decode(), value.decode("utf-8", "replace")) for name, value in kept]


def passed(
    given: Iterable[tuple[bytes, bytes]], dropped: frozenset[bytes]
) -> list[tuple[bytes, bytes]]:
    """Return these headers, in lower case, without those dropped and those that Connection names.

    Nor those that tell browsers which pages may read an answer: that is hal0's to say.
    """
    lower = [(name.lower(), value) for name, value in given]
    if named := [value for name, value in lower if name == b"connection"]:
        dropped |= {token.strip().lower() for token in b",".join(named).split(b",")}
    return [
        header
        for header in lower
        if header[0] not in dropped and not header[0].startswith(b"access-control-")
    ]


def _told(engine: str, exc: Exception) -> EngineError:
    what = type(exc).__name__  # its text has the engine's address, or bytes of the answer
    if isinstance(exc, ClientConnectorError | ConnectionTimeoutError | InvalidURL):
        return EngineUnreachable(
            f"engine {engine} accepts no connections; is it running? ({what})",
            evidence={"engine": engine},
        )
    return _bad_answer(engine, what)


def _bad_answer(engine: str, what: str) -> EngineBadAnswer:
    return EngineBadAnswer(
        f"the connection to engine {engine} broke, or its answer is no HTTP ({what})",
        evidence={"engine": engine},
    )
