"""What the fake says: `word0 word1 …`, whole or as a stream."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from tests.fakes.lemond.router import Backend, Router
from tests.fakes.lemond.script import until

BACKEND_RESET = {
    "message": "Backend was reset",
    "type": "backend_error",
    "details": {"code": "backend_watchdog_reset", "retryable": True},
}


class Stream(StreamingResponse):
    """A stream that holds its model busy until it is over or its client has gone."""

    def __init__(self, chunks: AsyncIterator[bytes], stack: AsyncExitStack) -> None:
        super().__init__(chunks, media_type="text/event-stream")
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            await super().__call__(scope, receive, send)


async def answer_chat(router: Router, name: str, body: dict[str, Any], path: str) -> Response:
    """Answer a chat or a completion; raises LoadError when the model had to be loaded first."""
    script = router.script.of(name)
    if script.chat == "refuse":
        return JSONResponse({"error": "scripted"}, 503)
    stack = AsyncExitStack()
    backend = await stack.enter_async_context(router.request(name))
    if body.get("stream"):
        return Stream(_stream(router, backend, body), stack)
    async with stack:
        words = [word async for word in _words(router, name)]
    is_chat = "chat" in path
    text = "".join(words)
    choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
    choice |= {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
    return JSONResponse(
        {
            "id": "chatcmpl-fake",
            "object": "chat.completion" if is_chat else "text_completion",
            "created": 1234567890,
            "model": body["model"],
            "system_fingerprint": "fake",
            "choices": [choice | ({} if is_chat else {"logprobs": None})],
            "usage": {
                "prompt_tokens": 1,
                "completion_tokens": len(words),
                "total_tokens": len(words) + 1,
                "prompt_tokens_details": {"cached_tokens": 0},
            },
            "timings": {},
        }
    )


async def _words(router: Router, name: str) -> AsyncIterator[str]:
    for number in range(router.script.of(name).chat_tokens):
        await asyncio.sleep(router.script.of(name).chat_token_delay_s)
        await until(lambda: router.script.of(name).chat != "hang")
        yield f"word{number} "


async def _stream(router: Router, backend: Backend, body: dict[str, Any]) -> AsyncIterator[bytes]:
    backend.streaming += 1
    try:
        async for word in _words(router, backend.name):
            yield _event(
                {
                    "object": "chat.completion.chunk",
                    "model": body["model"],
                    "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}],
                }
            )
            act = router.script.of(backend.name).chat
            if act == "break":
                raise ConnectionResetError("scripted")
            if act == "error":
                yield _event({"error": BACKEND_RESET})
                return
        yield b"data: [DONE]\n\n"
    finally:
        backend.streaming -= 1


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()
