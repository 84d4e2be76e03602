"""`/pull` and `/downloads`."""

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from tests.fakes.lemond.bodies import NULL_NAME, RefusedError, name_in, read_object
from tests.fakes.lemond.catalog import Definition
from tests.fakes.lemond.chat import EVENT_STREAM
from tests.fakes.lemond.downloads import DONE, Downloads, HubError, variant_of
from tests.fakes.lemond.model_routes import register
from tests.fakes.lemond.router import Router
from tests.fakes.lemond.shapes import error_a, not_found_text
from tests.tiny_gguf import tiny_gguf_bytes

STATUS_AFTER = {"pause": "paused", "cancel": "cancelled"}


class PullRoutes:
    """What fetches models."""

    def __init__(self, router: Router, downloads: Downloads) -> None:
        self.router = router
        self.downloads = downloads

    def versioned(self) -> list[BaseRoute]:
        """Return the routes below each prefix."""
        return [
            Route("/pull", self.pull, methods=["POST"]),
            Route("/pull/variants", self.variants),
            Route("/downloads", self.list),
            Route("/downloads/control", self.control, methods=["POST"]),
        ]

    async def pull(self, request: Request) -> Response:
        """Fetch a model: wait for it, stream its progress, or leave it to a job."""
        body = await read_object(request)
        name = name_in(body)
        if name is None:
            return error_a(NULL_NAME, 500)
        definition = self._definition(name, body)
        if body.get("stream") and body.get("subscribe") is False:
            return JSONResponse(self.downloads.begin(definition, name).as_json())
        if body.get("stream"):
            return StreamingResponse(self._events(definition), headers=EVENT_STREAM)
        try:
            await self.downloads.whole(definition)
        except HubError as exc:
            return error_a(str(exc), 500)
        return JSONResponse({"status": "success", "model_name": name})

    def _definition(self, name: str, body: dict[str, Any]) -> Definition:
        """Return what is to be fetched; a definition stays registered when nothing can be."""
        if body.get("checkpoint"):
            definition: Definition | None = register(self.router, name, body)
        else:
            definition = self.router.catalog.find(name)
        if self.router.told.script.offline:
            message = "Lemond is in offline mode, models not downloaded"
            raise RefusedError(JSONResponse({"error": message, "code": "lemond_offline"}, 400))
        if definition is None:
            message = not_found_text(self.router.catalog, name)
            raise RefusedError(JSONResponse({"error": message, "code": "model_not_found"}, 400))
        return definition

    async def _events(self, definition: Definition) -> AsyncIterator[bytes]:
        try:
            async for progress in self.downloads.reports(definition):
                yield _event("progress", progress)
            yield _event("complete", DONE)
        except HubError as exc:
            yield _event("error", {"error": str(exc)})

    async def variants(self, request: Request) -> Response:
        """Tell which files a repository has."""
        repository = request.query_params.get("checkpoint", "")
        files = self.router.told.script.hub.get(repository)
        if files is None:
            message = "Hugging Face repository not found or not accessible"
            return error_a(f"{message}: {repository}", 500)
        variants = [
            {
                "name": variant_of(name),
                "primary_file": name,
                "files": [name],
                "sharded": False,
                "size_bytes": len(tiny_gguf_bytes()),
            }
            for name in files
        ]
        return JSONResponse(
            {
                "checkpoint": repository,
                "recipe": "llamacpp",
                "repo_kind": "gguf",
                "source": "huggingface",
                "suggested_name": repository.rpartition("/")[2],
                "suggested_labels": ["chat"],
                "mmproj_files": [],
                "draft_files": [],
                "variants": variants,
            }
        )

    async def list(self, request: Request) -> Response:
        """List the jobs, also those that are over."""
        return JSONResponse([job.as_json() for job in self.downloads.jobs.values()])

    async def control(self, request: Request) -> Response:
        """Pause, cancel or remove a job."""
        body = await read_object(request)
        job = self.downloads.jobs.get(str(body.get("id")))
        action = body.get("action")
        if job is None:
            return error_a(f"Download not found: {body.get('id')}", 404)
        if action not in {*STATUS_AFTER, "remove"}:
            return error_a(f"Unknown action: {action}", 400)
        if job.status == "downloading":
            job.status = STATUS_AFTER.get(action, "cancelled")
        if action == "remove":
            del self.downloads.jobs[job.id]
        return JSONResponse(job.as_json())


def _event(kind: str, data: dict[str, Any]) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()
