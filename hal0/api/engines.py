"""Which engines there are, over HTTP. None is asked anything here: workers do that."""

from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hal0.api import engine_views, exchange
from hal0.api.idempotency import Reply
from hal0.api.paging import cursor_of, key_of, page
from hal0.api.schemas import EngineCreate, Page, Query
from hal0.registry.roster import add_engine, all_engines, engine_named
from hal0.settings import Settings


async def list_engines(request: Request) -> Response:
    """Return a page of engines by name."""
    query = exchange.query_of(request, Page)
    after = key_of("engines", str, query.cursor) or ""
    known = await exchange.read(request, all_engines)
    rest = [engine for engine in known if engine.name > after]
    shown = [engine_views.engine_json(engine) for engine in rest[: query.limit + 1]]
    return exchange.answer(
        page(shown, query.limit, lambda engine: cursor_of("engines", engine["name"]))
    )


async def show_engine(request: Request) -> Response:
    """Return one engine."""
    exchange.query_of(request, Query)
    name = request.path_params["engine"]
    engine = await exchange.read(request, lambda tx: engine_named(tx, name))
    return exchange.answer(engine_views.engine_json(engine))


def values_of(settings: Settings, body: EngineCreate) -> dict[str, Any]:
    """Return what a row of this engine says; what is left out is as its kind has it."""
    settle_s = body.settle_s or settings.settle_s_of(body.kind)
    return {**body.model_dump(), "settle_s": settle_s}


async def create_engine(request: Request) -> Response:
    """Make another inference server known."""
    body = await exchange.body_of(request, EngineCreate)
    values = values_of(exchange.settings_of(request), body)

    def do(tx: Connection) -> Reply:
        engine = add_engine(tx, values)
        return Reply(engine_views.engine_json(engine), 201, f"/api/v1/engines/{engine.name}")

    return exchange.respond(await exchange.change(request, do))


ROUTES = [
    Route("/api/v1/engines", list_engines, methods=["GET"]),
    Route("/api/v1/engines", create_engine, methods=["POST"]),
    Route("/api/v1/engines/{engine}", show_engine, methods=["GET"]),
]
