"""What the fake's models say: `word0 word1 …`, whole or as a stream."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from tests.fakes.lemond.backend import Backend
from tests.fakes.lemond.catalog import Definition
from tests.fakes.lemond.router import Router
from tests.fakes.lemond.script import ModelScript, until
from tests.fakes.lemond.telemetry import Telemetry

EVENT_STREAM = {"Content-Type": "text/event-stream"}
PING_S = 1.0
PROMPT_TOKENS = 31
BACKEND_RESET = {
    "message": "llama-server was unresponsive and has been reset by the backend watchdog. The "
    "model will be reloaded automatically on retry.",
    "type": "backend_error",
    "details": {
        "backend": "llama-server",
        "code": "backend_watchdog_reset",
        "reason": "backend process exited during streaming request",
        "retryable": True,
    },
}


class BackendDiedError(Exception):
    """The model's process ended under a request."""


class Stream(StreamingResponse):
    """A stream that holds its model busy until it is over or its client has gone."""

    def __init__(self, chunks: AsyncIterator[bytes], stack: AsyncExitStack) -> None:
        super().__init__(chunks, headers=EVENT_STREAM)
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            await super().__call__(scope, receive, send)


class Chat:
    """Answers chats and completions with the models of a router."""

    def __init__(self, router: Router, telemetry: Telemetry) -> None:
        self._router = router
        self._telemetry = telemetry

    async def answer(self, definition: Definition, body: dict[str, Any], is_chat: bool) -> Response:
        """Answer one request; raises LoadError when its model had to be loaded first."""
        if self._router.told.of(definition.bare).chat == "refuse":
            return JSONResponse({"error": "scripted"}, 503)
        options = {"ctx_size": body["ctx_size"]} if "ctx_size" in body else {}
        stack = AsyncExitStack()
        backend = await stack.enter_async_context(self._router.request(definition, options))
        if body.get("stream"):
            return Stream(self._stream(definition, backend, body, stack), stack)
        async with stack:
            try:
                words = [word async for word in self._words(backend, body)]
            except BackendDiedError:
                async with self._router.request(definition, options) as again:
                    words = [word async for word in self._words(again, body)]
        return JSONResponse(_whole(body, words, is_chat))

    async def _words(self, backend: Backend, body: dict[str, Any]) -> AsyncIterator[str]:
        began = time.monotonic()
        first_s = 0.0
        said = 0
        while said < self._limit(backend, body):
            await asyncio.sleep(self._script(backend).chat_token_delay_s)
            await until(lambda: backend.has_died or self._script(backend).chat != "hang")
            if backend.has_died:
                raise BackendDiedError
            first_s = first_s or time.monotonic() - began
            yield f"word{said} "
            said += 1
        self._telemetry.note(PROMPT_TOKENS, said, first_s, time.monotonic() - began)

    def _script(self, backend: Backend) -> ModelScript:
        return self._router.told.of(backend.name)

    def _limit(self, backend: Backend, body: dict[str, Any]) -> int:
        tokens = self._script(backend).chat_tokens
        return min(tokens, body.get("max_tokens") or tokens)

    async def _stream(
        self,
        definition: Definition,
        backend: Backend,
        body: dict[str, Any],
        stack: AsyncExitStack,
    ) -> AsyncIterator[bytes]:
        try:
            async for chunk in with_pings(self._chunks(backend, body, stack)):
                yield chunk
        except BackendDiedError:
            self._router.begin(definition, backend.options)  # lemond reloads it unasked
            yield _event({"error": BACKEND_RESET})
        else:
            if self._script(backend).chat != "error":
                yield b"data: [DONE]\n\n"

    async def _chunks(
        self, backend: Backend, body: dict[str, Any], stack: AsyncExitStack
    ) -> AsyncIterator[bytes]:
        has_begun = False
        async for word in self._words(backend, body):
            if not has_begun:
                has_begun = True
                stack.enter_context(backend.stream())
                yield _chunk(backend, {"role": "assistant", "content": None})
            yield _chunk(backend, {"content": word})
            act = self._script(backend).chat
            if act == "break":
                raise ConnectionResetError("scripted")
            if act == "error":
                yield _event({"error": BACKEND_RESET})
                return
        yield _chunk(backend, {}, finish_reason="length", timings={})


async def with_pings(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the chunks, and a comment before the first for each second without one."""
    first = asyncio.ensure_future(anext(chunks, None))
    try:
        while not (await asyncio.wait({first}, timeout=PING_S))[0]:
            yield b": ping\n\n"
        chunk = await first
    finally:
        first.cancel()
    while chunk is not None:
        yield chunk
        chunk = await anext(chunks, None)


def _chunk(backend: Backend, delta: dict[str, Any], **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": more.pop("finish_reason", None)}
    return _event(
        {
            "object": "chat.completion.chunk",
            "id": "chatcmpl-fake",
            "created": 1234567890,
            "model": backend.checkpoint,
            "system_fingerprint": "fake",
            "choices": [choice],
            **more,
        }
    )


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


def _whole(body: dict[str, Any], words: list[str], is_chat: bool) -> dict[str, Any]:
    text = "".join(words)
    choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
    choice |= {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion" if is_chat else "text_completion",
        "created": 1234567890,
        "model": body.get("model"),
        "system_fingerprint": "fake",
        "choices": [choice | ({} if is_chat else {"logprobs": None})],
        "usage": {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": len(words),
            "total_tokens": len(words) + PROMPT_TOKENS,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
        "timings": {},
    }
