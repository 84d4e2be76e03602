"""An engine whose answers a test writes byte by byte, in the test's own event loop.

    async def answer(got: Got, line: Line) -> None:
        line.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        await line.drain()
        ...

    async with RawEngine(answer) as engine:
        ... engine.url ... engine.got ... engine.left

Requests of one connection are answered one after another, until `answer` closes it.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

Line = asyncio.StreamWriter
OK = b"HTTP/1.1 200 OK\r\n"
EVENTS = OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Got:
    """A request as it came."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when whoever asked has closed the connection."""

    def header(self, name: str) -> str | None:
        """Return the one value of a header, None = it is not there; raises for two."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) < 2, values
        return values[0] if values else None

    def json(self) -> Any:
        """Return the body, read."""
        return json.loads(self.body)


Answer = Callable[[Got, Line], Awaitable[None]]


class RawEngine:
    """Listens on a free port of 127.0.0.1 while its block runs."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.answer: Answer = answer or says({"choices": []})
        self.got: list[Got] = []
        self.open = 0
        """Connections that are open now."""

    async def __aenter__(self) -> Self:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", 0, limit=1 << 26)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _meet(self, reader: asyncio.StreamReader, line: Line) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while not line.is_closing():
                    await self._serve(reader, line)
        finally:
            self.open -= 1
            self._tasks.discard(task)
            line.close()

    async def _serve(self, reader: asyncio.StreamReader, line: Line) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = [(name, value) for name, _, value in (one.partition(": ") for one in lines)]
        length = next((int(v) for k, v in headers if k.lower() == "content-length"), 0)
        got = Got(method, target, headers, await reader.readexactly(length))
        self.got.append(got)
        waiting = asyncio.create_task(self._note_end(reader, got))
        try:
            await self.answer(got, line)
        except ConnectionError:
            got.gone.set()
            raise
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    async def _note_end(self, reader: asyncio.StreamReader, got: Got) -> None:
        """Wait for the end of the connection without taking anything of a further request."""
        while not reader.at_eof() and reader.exception() is None:  # noqa: ASYNC110 - it has no bell
            await asyncio.sleep(0.01)
        got.gone.set()


def says(value: Any, status: str = "200 OK", more: str = "") -> Answer:
    """Return what answers everything with this JSON, and further header lines."""
    body = json.dumps(value).encode()

    async def answer(got: Got, line: Line) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{more}"
        line.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await line.drain()

    return answer


def chunk(data: bytes) -> bytes:
    """Return a chunk as it is framed; of b"" the last one."""
    return b"%x\r\n%s\r\n" % (len(data), data)
