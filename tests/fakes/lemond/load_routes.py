"""`/load`, `/unload` and `/internal/pin`."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from tests.fakes.lemond.backend import LoadError
from tests.fakes.lemond.bodies import RefusedError, found, name_in, read_object, unnamed
from tests.fakes.lemond.catalog import Definition, bare
from tests.fakes.lemond.options import known
from tests.fakes.lemond.router import Router
from tests.fakes.lemond.shapes import error_a, load_failed


class LoadRoutes:
    """What changes which models are loaded."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.catalog = router.catalog

    def versioned(self) -> list[BaseRoute]:
        """Return the routes below each prefix."""
        return [
            Route("/load", self.load, methods=["POST"]),
            Route("/unload", self.unload, methods=["POST"]),
        ]

    def of_root(self) -> list[BaseRoute]:
        """Return the routes without a prefix."""
        return [Route("/internal/pin", self.pin, methods=["POST"])]

    async def load(self, request: Request) -> Response:
        body = await read_object(request)
        name = body.get("model_name")
        if not isinstance(name, str):
            raise unnamed()
        script = self.router.told.of(bare(name))
        if script.load == "refuse":
            return error_a("scripted", 503)
        definition = found(self.catalog, name)
        if body.get("save_options"):
            self.catalog.saved[self.catalog.public(definition)] = known(body)
        answer = asyncio.create_task(self._load(name, definition, body))
        if script.load == "dribble":
            return StreamingResponse(dribble(answer), media_type="application/json")
        return await answer

    async def _load(self, name: str, definition: Definition, body: dict[str, Any]) -> Response:
        try:
            backend = await self.router.load(definition, body)
        except LoadError as exc:
            return load_failed(name, exc)
        if self.router.told.of(backend.name).load == "garbage":
            return Response("<html>", media_type="text/html")
        return JSONResponse(
            {
                "status": "success",
                "model_name": name,
                "checkpoint": backend.checkpoint,
                "recipe": "llamacpp",
            }
        )

    async def unload(self, request: Request) -> Response:
        """Unload a model, or, true to lemond, everything when no name can be read."""
        try:
            name = name_in(json.loads(await request.body()))
        except (ValueError, AttributeError):
            name = None
        if name is None:
            await self.router.evict_all()
            return JSONResponse(
                {"status": "success", "message": "All models unloaded successfully"}
            )
        act = self.router.told.of(bare(name)).unload
        if act == "die":
            os._exit(9)
        if act in {"refuse", "fail"}:
            return error_a("scripted", 503 if act == "refuse" else 500)
        if not await self.router.unload(self._public(name)):
            return error_a(f"Model not loaded: {name}", 404)
        return JSONResponse(
            {
                "status": "success",
                "message": "Model unloaded successfully",
                "model_name": name,
            }
        )

    async def pin(self, request: Request) -> Response:
        body = await read_object(request)
        name = name_in(body)
        if name is None:
            raise RefusedError(error_a("A model name is required", 400))
        backend = self.router.loaded.get(self._public(name))
        if backend is None:
            error = {"message": f"Model not loaded: {name}", "type": "invalid_request_error"}
            return JSONResponse({"error": error}, 400)
        backend.pinned = bool(body.get("pinned", True))
        answer = {"status": "success", "model_name": name, "pinned": backend.pinned}
        return JSONResponse(answer)

    def _public(self, name: str) -> str:
        """Return what health calls the model, which may have lost its file since."""
        definition = self.catalog.find(name)
        return bare(name) if definition is None else self.catalog.public(definition)


async def dribble(answer: asyncio.Task[Response]) -> AsyncIterator[bytes]:
    """Yield a space now and then until the answer is there, then its body."""
    while not answer.done():
        yield b" "
        await asyncio.wait([answer], timeout=0.05)
    yield bytes((await answer).body)
