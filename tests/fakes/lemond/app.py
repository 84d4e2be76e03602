"""The whole server: every route of lemond 11.7 that has a capture, below each of its prefixes."""

from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp

from tests.fakes.lemond.bodies import RefusedError
from tests.fakes.lemond.chat import Chat
from tests.fakes.lemond.control_routes import ControlRoutes
from tests.fakes.lemond.downloads import Downloads
from tests.fakes.lemond.inference_routes import InferenceRoutes
from tests.fakes.lemond.load_routes import LoadRoutes
from tests.fakes.lemond.model_routes import ModelRoutes
from tests.fakes.lemond.pull_routes import PullRoutes
from tests.fakes.lemond.router import Router
from tests.fakes.lemond.server_routes import ServerRoutes
from tests.fakes.lemond.shapes import error_a
from tests.fakes.lemond.telemetry import Telemetry

PREFIXES = ("/v1", "/api/v1", "/v0", "/api/v0")


def make_app(router: Router, downloads: Downloads, url: Callable[[], str]) -> ASGIApp:
    """Return the application, without its guard."""
    telemetry = Telemetry()
    loads = LoadRoutes(router)
    server = ServerRoutes(router, telemetry, url)
    versioned: list[BaseRoute] = [
        *server.versioned(),
        *loads.versioned(),
        *ModelRoutes(router).versioned(),
        *PullRoutes(router, downloads).versioned(),
        *InferenceRoutes(router, Chat(router, telemetry)).versioned(),
    ]
    roots = [*server.of_root(), *loads.of_root(), *ControlRoutes(router).of_root()]
    mounts = [Mount(prefix, routes=versioned) for prefix in PREFIXES]
    handlers: dict[Any, Any] = {404: no_route, 405: no_route, RefusedError: refused}
    return Starlette(routes=[*roots, *mounts], exception_handlers=handlers)


async def refused(request: Request, exc: RefusedError) -> Response:
    """Answer what the handler refused."""
    return exc.response


async def no_route(request: Request, exc: HTTPException) -> Response:
    """Answer an unknown path, and a GET of a path for POST, as lemond does."""
    if exc.status_code == 405 and request.method == "GET":
        return error_a("Method Not Allowed. Use POST for this endpoint", 405)
    message = "The requested endpoint does not exist"
    error = {"message": message, "type": "not_found", "path": request.url.path}
    return JSONResponse({"error": error}, 404)
