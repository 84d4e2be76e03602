"""What the server says of itself: health, numbers, configuration."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from tests.fakes.lemond.bodies import RefusedError, read_object
from tests.fakes.lemond.metrics import metrics_text
from tests.fakes.lemond.router import Router
from tests.fakes.lemond.script import until
from tests.fakes.lemond.shapes import error_a, health_body
from tests.fakes.lemond.telemetry import Telemetry

HERE = Path(__file__).parent
CONFIG = json.loads((HERE / "config.json").read_text())
SYSTEM_INFO = json.loads((HERE / "system_info.json").read_text())
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
IN_SCRIPT = {
    "auto_evict": "auto_evict",
    "ctx_size": "ctx_size",
    "global_timeout": "global_timeout_s",
    "max_loaded_models": "max_loaded_models",
    "offline": "offline",
}
"""Key of the configuration -> field of the script that it stands in."""


class ServerRoutes:
    """Liveness, health, numbers and configuration."""

    def __init__(self, router: Router, telemetry: Telemetry, url: Callable[[], str]) -> None:
        self.router = router
        self.telemetry = telemetry
        self.url = url

    def versioned(self) -> list[BaseRoute]:
        """Return the routes below each prefix."""
        return [
            Route("/health", self.health),
            Route("/stats", self.stats),
            Route("/system-info", self.system_info),
            Route("/system-stats", self.system_stats),
        ]

    def of_root(self) -> list[BaseRoute]:
        """Return the routes without a prefix."""
        return [
            Route("/live", self.live),
            Route("/metrics", self.metrics),
            Route("/internal/config", self.config),
            Route("/internal/set", self.set, methods=["POST"]),
        ]

    async def live(self, request: Request) -> Response:
        """Answer whatever else goes on: nothing is waited for but the script."""
        await until(lambda: self.router.told.script.live != "hang")
        if self.router.told.script.live == "refuse":
            return error_a("scripted", 503)
        return JSONResponse({"status": "ok"})

    async def health(self, request: Request) -> Response:
        if request.method == "HEAD":
            return Response()
        told = self.router.told
        await asyncio.sleep(told.script.health_delay_s)
        await until(lambda: told.script.health != "hang")
        if told.script.health == "refuse":
            return error_a("scripted", 503)
        if told.script.health == "garbage":
            return Response("<html>", media_type="text/html")
        if told.script.health == "dribble":
            return StreamingResponse(self._dribble(), media_type="application/json")
        async with self.router.mutex:
            body = health_body(self.router, self.url())
        if told.script.health == "no_list":
            del body["all_models_loaded"]
        return JSONResponse(body)

    async def _dribble(self) -> AsyncIterator[bytes]:
        while self.router.told.script.health == "dribble":
            yield b" "
            await asyncio.sleep(0.05)
        yield b"{}"

    async def stats(self, request: Request) -> Response:
        return JSONResponse(self.telemetry.as_stats())

    async def metrics(self, request: Request) -> Response:
        async with self.router.mutex:
            text = metrics_text(self.router, self.telemetry)
        return PlainTextResponse(text, headers={"Content-Type": METRICS_TYPE})

    async def system_info(self, request: Request) -> Response:
        return JSONResponse(SYSTEM_INFO)

    async def system_stats(self, request: Request) -> Response:
        gpu = dict.fromkeys(("gpu_percent", "npu_percent", "vram_gb"))
        return JSONResponse({"cpu_percent": 1.0, "memory_gb": 0.5, **gpu})

    async def config(self, request: Request) -> Response:
        script = self.router.told.script
        told: dict[str, Any] = {key: getattr(script, field) for key, field in IN_SCRIPT.items()}
        if not told["auto_evict"]:
            del told["auto_evict"]  # lemond shows it only where it was set
        told |= {"host": "127.0.0.1", "port": urlsplit(self.url()).port}
        return JSONResponse(CONFIG | told | {"extra_models_dir": str(self.router.catalog.models)})

    async def set(self, request: Request) -> Response:
        changes = await read_object(request)
        unknown = sorted(set(changes) - set(IN_SCRIPT))
        if unknown:
            raise RefusedError(error_a(f"the fake cannot change {', '.join(unknown)}", 400))
        self.router.told.merge({IN_SCRIPT[key]: value for key, value in changes.items()})
        return JSONResponse({"status": "success", "updated": changes})
