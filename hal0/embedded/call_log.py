"""What is kept of each call that an engine got: two lines of NDJSON, never a prompt.

A `begin` line is in the file before the call is handled, so that what a killed engine was asked
can still be read; an `end` line follows the answer, also when nobody waited for it. Lines belong
together by (pid, call):

    {"at", "mono_ms", "pid", "call", "phase": "begin", "method", "path", "body"}
    {"at", "mono_ms", "pid", "call", "phase": "end", "method", "path", "status"}

`body` is the JSON of a load or an unload, null for all else; `status` null = no answer was begun.
"""

import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hal0.clock import monotonic_ms, utc_now

WITH_BODY: Final = ("/load", "/unload")


class CallLog:
    """An ASGI application around another, which writes the lines; no path = no lines."""

    def __init__(self, app: ASGIApp, path: Path | None) -> None:
        """Open the file for appending: each line is one write, so several engines may share it."""
        self._app = app
        self._numbers = itertools.count(1)
        self._fd = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write `begin`, hand over, write `end`."""
        if scope["type"] != "http" or self._fd is None:
            await self._app(scope, receive, send)
            return
        call: dict[str, Any] = {"call": next(self._numbers)}
        call |= {"method": scope["method"], "path": scope["path"]}
        body = None
        if scope["method"] == "POST" and scope["path"].endswith(WITH_BODY):
            messages = await _read(receive)
            body = _json(messages)
            receive = _replay(messages, receive)
        status: int | None = None

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.note({"phase": "begin", **call, "body": body})
        try:
            await self._app(scope, receive, watch)
        finally:
            self.note({"phase": "end", **call, "status": status})

    def note(self, fields: Mapping[str, Any]) -> None:
        """Append one line: when, which process, and these fields."""
        if self._fd is None:
            return
        at = utc_now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"at": at, "mono_ms": monotonic_ms(), "pid": os.getpid(), **fields}
        os.write(self._fd, json.dumps(line).encode() + b"\n")


async def _read(receive: Receive) -> list[Message]:
    messages = []
    while True:
        message = await receive()
        messages.append(message)
        if message["type"] != "http.request" or not message.get("more_body"):
            return messages


def _json(messages: list[Message]) -> object:
    try:
        return json.loads(b"".join(message.get("body", b"") for message in messages))
    except ValueError:
        return None


def _replay(messages: list[Message], receive: Receive) -> Receive:
    kept = iter(messages)

    async def replayed() -> Message:
        for message in kept:
            return message
        return await receive()

    return replayed
