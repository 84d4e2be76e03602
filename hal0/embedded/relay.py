"""How a request goes to a child and its answer back, byte by byte, and when it is over.

The model counts as busy from the first to the last byte, also when the client leaves midway: then
the child's connection is closed, which makes llama.cpp stop.
"""

import json
from collections.abc import Iterable
from typing import Final

import anyio
import httpx
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hal0.embedded.residents import NotLoadedError, Resident, Residents
from hal0.embedded.shapes import model_error, typed_error

PASSED_HEADERS: Final = ("content-type", "content-encoding", "cache-control")


class Relay(Response):
    """The answer of a child; an ASGI application that holds its model while it runs."""

    def __init__(
        self, residents: Residents, client: httpx.AsyncClient, name: str, path: str, content: bytes
    ) -> None:
        """Remember what to ask: `path` of the child's server, `content` as it came."""
        self._residents = residents
        self._client = client
        self._name = name
        self._path = path
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask the child and pass on its answer, until either end of the line is gone."""
        try:
            with self._residents.request(self._name) as resident:
                await self._pass_on_while_wanted(resident, receive, send)
        except NotLoadedError:
            message = f"Model '{self._name}' is not loaded. Load it first: POST /v1/load."
            refusal = model_error(message, "model_not_loaded", self._name, 404)
            await refusal(scope, receive, send)
        except httpx.TransportError as exc:
            message = f"The process of model '{self._name}' broke off: {exc!r}"
            refusal = typed_error(message, "backend_error", "backend_lost", 502)
            await refusal(scope, receive, send)

    async def _pass_on_while_wanted(self, resident: Resident, receive: Receive, send: Send) -> None:
        failure: Exception | None = None
        async with anyio.create_task_group() as group:

            async def leave_with_client() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                group.cancel_scope.cancel()

            group.start_soon(leave_with_client)
            try:
                await self._pass_on(resident, send)
            except (
                httpx.TransportError,
                ConnectionResetError,
            ) as exc:  # out of the group it would come in a group
                failure = exc
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _pass_on(self, resident: Resident, send: Send) -> None:
        async with self._client.stream(
            "POST",
            f"{resident.child.url}{self._path}",
            content=self._content,
            headers={
                "Content-Type": "application/json",
                "Authorization": f"Bearer {resident.child.key}",
            },
        ) as answer:
            is_stream = answer.headers.get("content-type", "").startswith("text/event-stream")
            start = {"type": "http.response.start", "status": answer.status_code}
            await send({**start, "headers": _passed(answer.headers)})
            resident.streaming += is_stream
            try:
                async for chunk in answer.aiter_raw():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except httpx.TransportError as exc:
                if not is_stream:
                    raise ConnectionResetError(f"{self._name} broke off midway") from exc
                await send({"type": "http.response.body", "body": _broke_off(), "more_body": True})
            finally:
                resident.streaming -= is_stream
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _passed(headers: httpx.Headers) -> Iterable[tuple[bytes, bytes]]:
    return [(key.encode(), headers[key].encode()) for key in PASSED_HEADERS if key in headers]


def _broke_off() -> bytes:
    """Return the event with which lemond ends a stream whose backend died: no [DONE] follows."""
    error = {
        "message": "The model's process died",
        "type": "backend_error",
        "details": {"code": "backend_lost", "retryable": True},
    }
    return f"data: {json.dumps({'error': error})}\n\n".encode()
