"""What the engine answers on each route."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from hal0.embedded.catalog import find, list_models
from hal0.embedded.options import ArgumentsError, OptionError, read_options
from hal0.embedded.relay import Relay
from hal0.embedded.residents import LoadError, Residents
from hal0.embedded.shapes import (
    health_body,
    model_body,
    model_error,
    plain_error,
    typed_error,
    unknown_model,
)

PREFIXES: Final = ("/v1", "/api/v1")


class BodyError(Exception):
    """The body is no JSON object; carries what to say."""


class Routes:
    """The handlers of one engine."""

    def __init__(self, models: Path, residents: Residents, client: httpx.AsyncClient) -> None:
        """`client` speaks to the children; who made it closes it."""
        self._models = models
        self._residents = residents
        self._client = client

    def all(self) -> list[BaseRoute]:
        """Return every route; what Lemonade versions is there under both prefixes."""
        versioned: list[BaseRoute] = [
            Route("/health", self.health),
            Route("/models", self.models),
            Route("/models/{name:path}", self.model),
            Route("/load", self.load, methods=["POST"]),
            Route("/unload", self.unload, methods=["POST"]),
            Route("/chat/completions", self.generate, methods=["POST"]),
            Route("/completions", self.generate, methods=["POST"]),
        ]
        return [Route("/live", self.live), *(Mount(at, routes=versioned) for at in PREFIXES)]

    async def live(self, request: Request) -> Response:
        """Answer at once, whatever else goes on."""
        return JSONResponse({"status": "ok"})

    async def health(self, request: Request) -> Response:
        """List the loaded models."""
        return JSONResponse(health_body(self._residents.list(), os.getpid()))

    async def models(self, request: Request) -> Response:
        """List the models of the folder; all are downloaded, so `show_all` adds none."""
        data = [model_body(files) for files in list_models(self._models)]
        return JSONResponse({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        """Describe one model."""
        name = request.path_params["name"]
        files = find(self._models, name)
        return (
            unknown_model(self._models, name) if files is None else JSONResponse(model_body(files))
        )

    async def load(self, request: Request) -> Response:
        """Load a model and answer when it serves."""
        try:
            body = await _body(request)
            name = body.get("model_name")
            if not isinstance(name, str):
                raise OptionError("model_name must be text")
            return await self._load(name, body)
        except BodyError as exc:
            return plain_error(str(exc), 400)
        except OptionError as exc:
            message = f"Invalid request: {exc}"
            return typed_error(message, "invalid_request_error", "invalid_request", 400)

    async def _load(self, name: str, body: Mapping[str, Any]) -> Response:
        files = find(self._models, name)
        if files is None:
            return unknown_model(self._models, name)
        pin = body.get("pinned")
        try:
            resident = await self._residents.load(
                files, read_options(body), pin if isinstance(pin, bool) else None
            )
        except (ArgumentsError, LoadError) as exc:
            message = f"Failed to load model '{name}': {exc}"
            return model_error(message, "model_load_error", name, 500)
        return JSONResponse(
            {
                "status": "success",
                "model_name": name,
                "checkpoint": str(resident.files.main),
                "recipe": "llamacpp",
            }
        )

    async def unload(self, request: Request) -> Response:
        """Unload one model, never all: a name that is missing or empty is refused."""
        try:
            body = await _body(request)
        except BodyError as exc:
            return plain_error(str(exc), 400)
        name = body.get("model_name", body.get("model"))
        if not isinstance(name, str) or not name.strip():
            return plain_error("model_name is required: this engine does not unload all", 400)
        if not await self._residents.unload(name):
            return plain_error(f"Model not loaded: {name}", 404)
        return JSONResponse(
            {
                "status": "success",
                "message": "Model unloaded successfully",
                "model_name": name,
            }
        )

    async def generate(self, request: Request) -> Response:
        """Hand a chat or a completion to the model's process."""
        try:
            name = (await _body(request)).get("model")
        except BodyError as exc:
            return plain_error(str(exc), 400)
        if not isinstance(name, str) or not name:
            return plain_error("No model specified in request", 400)
        if find(self._models, name) is None:
            return unknown_model(self._models, name)
        path = "/v1" + request.url.path.rpartition("/v1")[2]
        return Relay(self._residents, self._client, name, path, await request.body())


async def no_route(request: Request, exc: Exception) -> Response:
    """Answer an unknown path, and a known one asked with another method, as lemond does."""
    if isinstance(exc, HTTPException) and exc.status_code == 405:
        return plain_error("Method Not Allowed. Use POST for this endpoint", 405)
    error = {
        "message": "The requested endpoint does not exist",
        "type": "not_found",
        "path": request.url.path,
    }
    return JSONResponse({"error": error}, 404)


async def _body(request: Request) -> Mapping[str, Any]:
    raw = await request.body()
    if not raw:
        raise BodyError("Request body is required but was empty")
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise BodyError(f"Invalid JSON in request body: {exc}") from exc
    if not isinstance(body, dict):
        raise BodyError("Invalid JSON in request body: it is no object")
    return body
