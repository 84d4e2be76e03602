"""What can be registered as a model over HTTP. No file is looked at here: jobs do that."""

from collections.abc import Sequence

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hal0.api import answers, exchange, views
from hal0.api.idempotency import Reply
from hal0.api.paging import cursor_of, key_of, page
from hal0.api.schemas import ModelCreate, Page, Query
from hal0.declare.setup import FileBody
from hal0.registry.catalog import (
    Model,
    RegisteredFile,
    delete_model,
    living_models,
    model_named,
    register,
)
from hal0.registry.last_good import last_found_good
from hal0.registry.names import final_paths
from hal0.registry.reach import ensure_allowed
from hal0.registry.sources import Source
from hal0.settings import Settings


def _shown(tx: Connection, listed: Sequence[Model]) -> list[answers.Model]:
    good = last_found_good(tx, listed)
    return [views.model_json(model, good.get(model.id, {})) for model in listed]


def placed(settings: Settings, name: str, files: Sequence[FileBody]) -> list[RegisteredFile]:
    """Return the files with their final places; one without a source is there already.

    Raises HostNotAllowed, and InvalidRequest for names that have no place.
    """
    names = []
    for file in files:
        source = None if file.source is None else Source.parse(file.source)
        if source is not None:
            ensure_allowed(settings, source)
        names.append(file.name or (source.file_name if source else ""))
    return [
        RegisteredFile(file.role, path, file.source, file.size_bytes, file.sha256)
        for file, path in zip(files, final_paths(settings.models, name, names), strict=True)
    ]


async def list_models(request: Request) -> Response:
    """Return a page of models by name."""
    query = exchange.query_of(request, Page)
    after = key_of("models", str, query.cursor) or ""
    shown = await exchange.read(
        request,
        lambda tx: _shown(tx, living_models(tx, after=after, limit=query.limit + 1)),
    )
    return exchange.answer(
        page(shown, query.limit, lambda model: cursor_of("models", model["name"]))
    )


async def show_model(request: Request) -> Response:
    """Return one model."""
    exchange.query_of(request, Query)
    name = request.path_params["model"]
    shown = await exchange.read(request, lambda tx: _shown(tx, [model_named(tx, name)]))
    return exchange.answer(shown[0])


async def add_model(request: Request) -> Response:
    """Register a model."""
    body = await exchange.body_of(request, ModelCreate)
    files = placed(exchange.settings_of(request), body.name, body.in_order)

    def do(tx: Connection) -> Reply:
        model = register(tx, body.name, body.format, files, allow_copy=body.allow_copy)
        return Reply(_shown(tx, [model])[0], 201, f"/api/v1/models/{model.name}")

    return exchange.respond(await exchange.change(request, do))


async def remove_model(request: Request) -> Response:
    """Forget a model that no slot holds or wants; its files stay."""
    exchange.query_of(request, Query)
    name = request.path_params["model"]

    def do(tx: Connection) -> Reply:
        delete_model(tx, model_named(tx, name))
        return Reply(None, 204)

    return exchange.respond(await exchange.change(request, do))


ROUTES = [
    Route("/api/v1/models", list_models, methods=["GET"]),
    Route("/api/v1/models", add_model, methods=["POST"]),
    Route("/api/v1/models/{model}", show_model, methods=["GET"]),
    Route("/api/v1/models/{model}", remove_model, methods=["DELETE"]),
]
