"""What the fake answers, byte shapes as captured from lemond 11.7."""

import asyncio
import hmac
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.fakes.lemond.chat import answer_chat
from tests.fakes.lemond.router import LoadError, Router
from tests.fakes.lemond.script import until
from tests.fakes.lemond.shapes import (
    error_a,
    health_body,
    load_failed,
    model_body,
    not_found,
)

PREFIXES = ("/v1", "/api/v1", "/v0", "/api/v0")

Handler = Callable[[Request], Awaitable[Response]]


class Routes:
    """The handlers; the server's state is in the router."""

    def __init__(self, router: Router, url: Callable[[], str]) -> None:
        self.router = router
        self.url = url

    def all(self) -> list[BaseRoute]:
        """Return every route, the versioned ones under each prefix."""
        versioned: list[BaseRoute] = [
            Route("/health", self.health),
            Route("/models", self.models),
            Route("/models/{name:path}", self.model),
            Route("/load", self.load, methods=["POST"]),
            Route("/unload", self.unload, methods=["POST"]),
            Route("/chat/completions", self.chat, methods=["POST"]),
            Route("/completions", self.chat, methods=["POST"]),
        ]
        return [
            Route("/live", self.live),
            Route("/internal/pin", self.pin, methods=["POST"]),
            Route("/internal/set", self.set, methods=["POST"]),
            Route("/_backend/{name}/health", self.backend),
            Route("/_script", self.post_script, methods=["POST"]),
            Route("/_drop", self.drop, methods=["POST"]),
            Route("/_state", self.state),
            *(Mount(prefix, routes=versioned) for prefix in PREFIXES),
        ]

    async def live(self, request: Request) -> Response:
        await until(lambda: self.router.script.live != "hang")
        if self.router.script.live == "refuse":
            return error_a("scripted", 503)
        return JSONResponse({"status": "ok"})

    async def health(self, request: Request) -> Response:
        router = self.router
        await asyncio.sleep(router.script.health_delay_s)
        await until(lambda: router.script.health != "hang")
        if router.script.health == "refuse":
            return error_a("scripted", 503)
        if router.script.health == "garbage":
            return Response("<html>", media_type="text/html")
        async with router.mutex:
            body = health_body(router, self.url())
        if router.script.health == "no_list":
            del body["all_models_loaded"]
        return JSONResponse(body)

    async def models(self, request: Request) -> Response:
        data = [model_body(self.router, name) for name in self.router.files()]
        return JSONResponse({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        public = self.router.public_name(name)
        if public not in self.router.files():
            return not_found(self.router, name)
        return JSONResponse(model_body(self.router, public))

    async def load(self, request: Request) -> Response:
        raw = await request.body()
        if not raw:
            return error_a("Request body is required but was empty", 400)
        try:
            body = json.loads(raw)
        except ValueError as exc:
            return error_a(f"Invalid JSON in request body: {exc}", 400)
        name = body.get("model_name")
        return await (self._load_named(name, body) if isinstance(name, str) else unnamed())

    async def _load_named(self, name: str, body: dict[str, Any]) -> Response:
        public = self.router.public_name(name)
        script = self.router.script.of(public)
        if script.load == "refuse":
            return error_a("scripted", 503)
        if public not in self.router.files():
            return not_found(self.router, name)
        answer = asyncio.create_task(self._load(name, public, body))
        if script.load == "dribble":
            return StreamingResponse(dribble(answer), media_type="application/json")
        return await answer

    async def _load(self, name: str, public: str, body: dict[str, Any]) -> Response:
        try:
            backend = await self.router.load(public, body)
        except LoadError as exc:
            return load_failed(name, exc)
        if self.router.script.of(public).load == "garbage":
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
            body = json.loads(await request.body())
            name = body.get("model_name", body.get("model"))
        except (ValueError, AttributeError):
            name = None
        if not isinstance(name, str) or not name:
            await self.router.evict_all()
            return JSONResponse(
                {"status": "success", "message": "All models unloaded successfully"}
            )
        public = self.router.public_name(name)
        act = self.router.script.of(public).unload
        if act == "die":
            os._exit(9)
        if act in {"refuse", "fail"}:
            return error_a("scripted", 503 if act == "refuse" else 500)
        if not await self.router.unload(public):
            return error_a(f"Model not loaded: {name}", 404)
        return JSONResponse(
            {
                "status": "success",
                "message": "Model unloaded successfully",
                "model_name": name,
            }
        )

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        name = body.get("model")
        if not name:
            return error_a("No model loaded and no model specified in request", 400)
        public = self.router.public_name(name)
        if public not in self.router.files():
            return not_found(self.router, name)
        try:
            return await answer_chat(self.router, public, body, request.url.path)
        except LoadError as exc:
            return load_failed(name, exc)

    async def pin(self, request: Request) -> Response:
        body = await request.json()
        backend = self.router.loaded.get(self.router.public_name(body["model_name"]))
        if backend is None:
            message = f"Model not loaded: {body['model_name']}"
            error = {"message": message, "type": "invalid_request_error"}
            return JSONResponse({"error": error}, 400)
        backend.pinned = bool(body["pinned"])
        return JSONResponse(
            {"status": "success", "model_name": body["model_name"], "pinned": backend.pinned}
        )

    async def set(self, request: Request) -> Response:
        changes = await request.json()
        self.router.script = self.router.script.merged(changes)
        return JSONResponse({"status": "success", "updated": changes})

    async def backend(self, request: Request) -> Response:
        name = request.path_params["name"]
        await until(lambda: self.router.script.of(name).backend != "hang")
        is_up = name in self.router.loaded and self.router.script.of(name).backend == "ok"
        return JSONResponse({"status": "ok" if is_up else "error"}, 200 if is_up else 503)

    async def post_script(self, request: Request) -> Response:
        self.router.script = self.router.script.merged(await request.json())
        return JSONResponse(self.router.script.model_dump(exclude_unset=True))

    async def drop(self, request: Request) -> Response:
        """Let the backends of the named models die."""
        for name in (await request.json())["models"]:
            self.router.loaded.pop(name, None)
        return JSONResponse({})

    async def state(self, request: Request) -> Response:
        router = self.router
        return JSONResponse(
            {"loaded": list(router.loaded), "loading": router.loading, "waiting": router.waiting}
        )


async def unnamed() -> Response:
    """Answer a load without a name."""
    message = "Invalid request: type must be string, but is null"
    error = {"message": message, "type": "invalid_request_error", "code": "invalid_request"}
    return JSONResponse({"error": error}, 400)


async def dribble(answer: asyncio.Task[Response]) -> AsyncIterator[bytes]:
    """Yield a space now and then until the answer is there, then its body."""
    while not answer.done():
        yield b" "
        await asyncio.wait([answer], timeout=0.05)
    yield bytes((await answer).body)


async def no_route(request: Request, exc: Exception) -> Response:
    """Answer an unknown path, and a known path with another method, as lemond does."""
    if isinstance(exc, HTTPException) and exc.status_code == 405:
        return error_a("Method Not Allowed. Use POST for this endpoint", 405)
    message = "The requested endpoint does not exist"
    error = {"message": message, "type": "not_found", "path": request.url.path}
    return JSONResponse({"error": error}, 404)


class Guard:
    """Let only those in who have the key; pages of other sites never."""

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self.app = app
        self.key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/live" or scope["path"].startswith("/_"):
            await self.app(scope, receive, send)
            return
        headers = Request(scope).headers
        given = headers.get("authorization", "")
        if self.key and not hmac.compare_digest(given.encode(), f"Bearer {self.key}".encode()):
            await error_a("Invalid or missing API key", 401)(scope, receive, send)
        elif "origin" in headers:
            await error_a("Origin not allowed", 403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def make_app(router: Router, key: str | None, url: Callable[[], str]) -> ASGIApp:
    """Return the whole application."""
    handlers: dict[Any, Any] = {404: no_route, 405: no_route}
    return Guard(Starlette(routes=Routes(router, url).all(), exception_handlers=handlers), key)
