"""`/chat/completions`, `/completions`, `/embeddings` and `/slots`."""

import json
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tests.fakes.lemond.backend import LoadError
from tests.fakes.lemond.bodies import RefusedError, found, read_object
from tests.fakes.lemond.catalog import Definition
from tests.fakes.lemond.chat import Chat
from tests.fakes.lemond.router import Router
from tests.fakes.lemond.shapes import error_a, load_failed

SLOTS = json.loads(Path(__file__).with_name("slots.json").read_text())
NO_EMBEDDINGS = "This server does not support embeddings. Start it with `--embeddings`"
NO_MODEL = "No model loaded and no model specified in request"


class InferenceRoutes:
    """What models are asked; each request loads its model when that is not loaded."""

    def __init__(self, router: Router, chat: Chat) -> None:
        self.router = router
        self.chat = chat

    def versioned(self) -> list[BaseRoute]:
        """Return the routes below each prefix."""
        return [
            Route("/chat/completions", self.complete, methods=["POST"]),
            Route("/completions", self.complete, methods=["POST"]),
            Route("/embeddings", self.embed, methods=["POST"]),
            Route("/slots", self.slots),
        ]

    async def complete(self, request: Request) -> Response:
        body = await read_object(request)
        definition = self._asked(body)
        try:
            return await self.chat.answer(definition, body, "/chat/" in request.url.path)
        except LoadError as exc:
            return load_failed(str(body["model"]), exc)

    async def embed(self, request: Request) -> Response:
        """Return a vector; a model of another kind refuses, and counts it as used."""
        body = await read_object(request)
        definition = self._asked(body)
        try:
            async with self.router.request(definition, {}) as backend:
                kind = backend.type
        except LoadError as exc:
            return load_failed(str(body["model"]), exc)
        if kind != "embedding":
            return no_embeddings()
        vector = {"object": "embedding", "index": 0, "embedding": [0.0, 1.0]}
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return JSONResponse(
            {"object": "list", "model": body["model"], "data": [vector], "usage": usage}
        )

    async def slots(self, request: Request) -> Response:
        """Tell what the most recent model does, which counts as a use of it."""
        backend = self.router.most_recent()
        if backend is None:
            return error_a(NO_MODEL, 400)
        backend.touch()
        return JSONResponse([SLOTS[0] | {"n_ctx": backend.options["ctx_size"]}])

    def _asked(self, body: dict[str, Any]) -> Definition:
        """Return the model of a request: the named one, else the most recent."""
        recent = self.router.most_recent()
        name = body.setdefault("model", recent.name if recent else None)
        if not name:
            raise RefusedError(error_a(NO_MODEL, 400))
        return found(self.router.catalog, name)


def no_embeddings() -> Response:
    """Return what llama-server says to whom it cannot embed for, in lemond's wrapping."""
    said = {"code": 501, "message": NO_EMBEDDINGS, "type": "not_supported_error"}
    details = {"backend": "llama-server", "response": {"error": said}}
    return JSONResponse({"error": said | {"status_code": 501, "details": details}}, 501)
