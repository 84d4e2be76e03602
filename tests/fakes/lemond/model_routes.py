"""`/models` and `/delete`: what the server knows, and what it is told to know."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tests.fakes.lemond import options
from tests.fakes.lemond.bodies import RefusedError, found, name_in, read_object
from tests.fakes.lemond.catalog import Definition
from tests.fakes.lemond.router import Router
from tests.fakes.lemond.shapes import error_a, model_body

NO_VARIANT = (
    "You are required to provide a 'variant' in the checkpoint field when registering a GGUF "
    "model. The variant is provided as CHECKPOINT:VARIANT. For example: "
    "Qwen/Qwen2.5-Coder-3B-Instruct-GGUF:Q4_0 or "
    "Qwen/Qwen2.5-Coder-3B-Instruct-GGUF:qwen2.5-coder-3b-instruct-q4_0.gguf"
)


class ModelRoutes:
    """The list of models."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.catalog = router.catalog

    def versioned(self) -> list[BaseRoute]:
        """Return the routes below each prefix."""
        return [
            Route("/models", self.models),
            Route("/models/register", self.register, methods=["POST"]),
            Route("/models/{name:path}/files", self.files),
            Route("/models/{name:path}/options", self.options),
            Route("/models/{name:path}/options", self.save_options, methods=["POST"]),
            Route("/models/{name:path}", self.model),
            Route("/delete", self.delete, methods=["POST"]),
        ]

    async def models(self, request: Request) -> Response:
        """List what is downloaded, or all."""
        is_all = request.query_params.get("show_all") == "true"
        data = [
            self._body(name, each)
            for name, each in self.catalog.all().items()
            if is_all or self.catalog.is_downloaded(each)
        ]
        return JSONResponse({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        if self.router.told.script.describe == "refuse":
            return error_a("scripted", 503)
        definition = found(self.catalog, request.path_params["name"])
        return JSONResponse(self._body(self.catalog.public(definition), definition))

    def _body(self, name: str, definition: Definition) -> dict[str, Any]:
        return model_body(self.catalog, name, definition, self.router.told.script.ctx_size)

    async def files(self, request: Request) -> Response:
        definition = found(self.catalog, request.path_params["name"])
        path = self.catalog.path(definition)
        file: dict[str, Any] = {"name": path.name, "role": "main", "exists": path.is_file()}
        if file["exists"]:
            file["size_bytes"] = path.stat().st_size
        if request.query_params.get("include_paths") == "true":
            file["path"] = str(path)
        return JSONResponse({"model_id": self.catalog.public(definition), "files": [file]})

    async def options(self, request: Request) -> Response:
        return JSONResponse(self._options(request.path_params["name"]))

    async def save_options(self, request: Request) -> Response:
        """Keep options for later loads that do not name them."""
        name = request.path_params["name"]
        public = self.catalog.public(found(self.catalog, name))
        self.catalog.saved[public] = options.known(await read_object(request))
        return JSONResponse(self._options(name))

    def _options(self, name: str) -> dict[str, Any]:
        definition = found(self.catalog, name)
        saved = self.catalog.saved.get(self.catalog.public(definition), {})
        ctx_size = self.router.told.script.ctx_size
        effective = options.resolved({}, saved, ctx_size)
        return {
            "model_name": definition.name,
            "recipe": "llamacpp",
            "defaults": options.defaults(ctx_size) | {"model_name": definition.name},
            "saved": saved,
            "effective": effective | {"model_name": definition.name},
            "resolved_ctx_size": effective["ctx_size"],
        }

    async def register(self, request: Request) -> Response:
        """Know a model without fetching it."""
        body = await read_object(request)
        name = name_in(body) or ""
        if not body.get("recipe"):
            raise RefusedError(error_a("A non-empty string `recipe` is required", 400))
        definition = register(self.router, name, body)
        public = self.catalog.public(definition)
        return JSONResponse(
            {
                "status": "success",
                "model_name": public,
                "canonical_model_name": definition.name,
                "model": self._body(public, definition),
            }
        )

    async def delete(self, request: Request) -> Response:
        """Unload a registered model and know it no more."""
        name = name_in(await read_object(request)) or ""
        definition = self.catalog.find(name)
        if definition is None:
            return error_a(f"Model not found: {name}", 422)
        if definition.source == "extra_models_dir":
            message = (
                "Cannot delete extra models via API. Models in --extra-models-dir are "
                "user-managed. Delete the file directly from: "
            )
            return error_a(message + definition.checkpoint, 500)
        await self.router.unload(self.catalog.public(definition))
        self.catalog.forget(definition)
        return JSONResponse({"status": "success", "message": f"Deleted model: {name}"})


def register(router: Router, name: str, body: dict[str, Any]) -> Definition:
    """Take a definition from a body; raises RefusedError."""
    if not name.removeprefix("user.") or not name.startswith("user."):
        message = "Registered model definitions must use a non-empty `user.*` name, for example "
        raise RefusedError(error_a(f"{message}`user.Phi-4-Mini-GGUF`. Received: {name}", 400))
    checkpoint = str(body.get("checkpoint") or body.get("checkpoints", {}).get("main") or "")
    if "gguf" in checkpoint.lower() and ":" not in checkpoint:
        raise RefusedError(error_a(NO_VARIANT, 500))
    is_local = body.get("source") == "local_path"
    return router.catalog.register(name, checkpoint, "local_path" if is_local else "huggingface")
