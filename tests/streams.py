"""Clients of the event stream, spoken to in ASGI: they keep what they are told, and may be slow.

async with Client(app) as client:
    await client.until(lambda: client.named("snapshot"))
"""

import asyncio
import json
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from starlette.types import ASGIApp, Message

from tests.apis import LIMIT_S, until

HOST = b"127.0.0.1:13310"


@dataclass(frozen=True)
class Told:
    """One event."""

    name: str
    data: Any
    id: str | None


@dataclass
class Client:
    """One client, from its first byte until it leaves; `last_event_id` None = it is new."""

    app: ASGIApp
    last_event_id: str | None = None
    method: str = "GET"
    query: str = ""
    token: str | None = None
    events: list[Told] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    is_reading: asyncio.Event = field(default_factory=asyncio.Event)
    _left: asyncio.Event = field(default_factory=asyncio.Event)
    _rest: bytes = b""
    _task: "asyncio.Task[None] | None" = None

    async def __aenter__(self) -> Self:
        self.is_reading.set()
        self._task = asyncio.get_running_loop().create_task(self._ask())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.leave()

    async def leave(self) -> None:
        """Close the connection and see that the server is done with it."""
        self._left.set()
        self.is_reading.set()
        assert self._task is not None
        async with asyncio.timeout(LIMIT_S):
            await self._task

    async def _ask(self) -> None:
        headers = [(b"host", HOST)]
        if self.last_event_id is not None:
            headers.append((b"last-event-id", self.last_event_id.encode()))
        if self.token is not None:
            headers.append((b"authorization", f"Bearer {self.token}".encode()))
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": "/api/v1/events",
            "raw_path": b"/api/v1/events",
            "root_path": "",
            "query_string": self.query.encode(),
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 13310),
        }
        await self.app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self.is_reading.wait()
        if self._left.is_set():
            return
        self.messages.append(message)
        *whole, self._rest = (self._rest + message.get("body", b"")).split(b"\n\n")
        for block in whole:
            self._take(block.decode())

    def _take(self, block: str) -> None:
        if block.startswith((":", "retry")):
            self.comments.append(block)
            return
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        told = Told(fields["event"], json.loads(fields["data"]), fields.get("id"))
        self.events.append(told)
        self.last_event_id = told.id or self.last_event_id

    @property
    def status(self) -> int | None:
        """What it was answered; None = nothing yet."""
        return self.messages[0]["status"] if self.messages else None

    @property
    def headers(self) -> dict[str, str]:
        """The headers of its answer."""
        pairs = self.messages[0]["headers"]
        return {name.decode().lower(): value.decode() for name, value in pairs}

    @property
    def has_ended(self) -> bool:
        """Whether the server ended the stream, in good order."""
        return len(self.messages) > 1 and not self.messages[-1].get("more_body")

    def named(self, name: str) -> list[Any]:
        """Return the data of the events of this name."""
        return [told.data for told in self.events if told.name == name]

    @property
    def rows(self) -> list[int]:
        """The ids of the transitions, as they came."""
        return [row["id"] for row in self.named("transition")]

    async def started(self) -> dict[str, Any]:
        """Wait for the snapshot and return it."""
        await until(lambda: self.named("snapshot"))
        return dict(self.named("snapshot")[0])
