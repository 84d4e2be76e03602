"""What can be done to slots over HTTP. Creating and changing one loads nothing; orders enqueue."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hal0.api import answers, exchange, slot_answers
from hal0.api.idempotency import Reply
from hal0.api.paging import cursor_of, key_of, page
from hal0.api.schemas import (
    LoadBody,
    Page,
    PullBody,
    Query,
    SlotChange,
    SlotCreate,
    SlotDelete,
    UnloadBody,
    ValidateBody,
)
from hal0.api.slot_views import Beside, slot_json
from hal0.api.waiting import order
from hal0.clock import utc_now
from hal0.engines.options import complete
from hal0.jobs.idle_scan import fadings
from hal0.jobs.ledger import intake
from hal0.jobs.ledger.breaker import breakers_of
from hal0.jobs.ledger.intake import Accepted, Wish
from hal0.jobs.outlook import is_passed_over
from hal0.jobs.queries import first_unfinished
from hal0.jobs.setup import change_slot, create_slot, delete_slot
from hal0.refusals import refused
from hal0.registry.catalog import model_named
from hal0.registry.roster import EngineRow, engine_by_id, engine_named
from hal0.settings import Settings
from hal0.slots.overview import overviews
from hal0.slots.queries import Slot, living_slots, slot_named
from hal0.slots.times import room_of, times_of
from hal0.states import JobKind


def shown_slots(tx: Connection, settings: Settings, listed: list[Slot]) -> list[slot_answers.Slot]:
    """Return these slots, in their order, as every answer shows them."""
    job_ids, breakers = first_unfinished(tx), breakers_of(tx)
    fading = fadings(tx, listed, settings, utc_now())
    return [
        slot_json(
            seen,
            times_of(seen.slot, settings),
            room_of(seen.slot, settings),
            Beside(
                job_ids.get(seen.slot.id),
                breakers.get(seen.slot.id),
                fading[seen.slot.id],
                is_passed_over(tx, seen),
            ),
        )
        for seen in overviews(tx, listed)
    ]


def options_of(
    engine: EngineRow, given: Mapping[str, Any] | None, kept: Mapping[str, Any]
) -> dict[str, Any]:
    """Return all options of a load at this engine: as given, else kept; raises InvalidRequest."""
    try:
        return complete(engine.kind, given or {}, kept)
    except ValueError as exc:
        raise refused([("options", str(exc))]) from exc


async def list_slots(request: Request) -> Response:
    """Return a page of slots by name."""
    query, settings = exchange.query_of(request, Page), exchange.settings_of(request)
    after = key_of("slots", str, query.cursor) or ""

    def look(tx: Connection) -> answers.Listed[slot_answers.Slot]:
        rest = [slot for slot in living_slots(tx) if slot.name > after]
        shown = shown_slots(tx, settings, rest[: query.limit + 1])
        return page(shown, query.limit, lambda slot: cursor_of("slots", slot["name"]))

    return exchange.answer(await exchange.read(request, look))


async def show_slot(request: Request) -> Response:
    """Return one slot."""
    exchange.query_of(request, Query)
    name, settings = request.path_params["slot"], exchange.settings_of(request)
    shown = await exchange.read(
        request, lambda tx: shown_slots(tx, settings, [slot_named(tx, name)])
    )
    return exchange.answer(shown[0])


async def add_slot(request: Request) -> Response:
    """Create a slot, offline."""
    body = await exchange.body_of(request, SlotCreate)
    settings, act = exchange.settings_of(request), exchange.act(request)

    def do(tx: Connection) -> Reply:
        options = options_of(engine_named(tx, body.engine), body.given_options, {})
        slot = create_slot(tx, settings, body.name, {**body.setup, "options": options}, act)
        return Reply(shown_slots(tx, settings, [slot])[0], 201, f"/api/v1/slots/{slot.name}")

    return exchange.respond(await exchange.change(request, do))


async def set_slot(request: Request) -> Response:
    """Change how a slot is set up."""
    body = await exchange.body_of(request, SlotChange)
    name, settings = request.path_params["slot"], exchange.settings_of(request)

    def do(tx: Connection) -> Reply:
        slot, changes = slot_named(tx, name), body.given
        moves = "engine" in changes
        if moves or body.given_options is not None:
            engine = engine_named(tx, body.engine) if moves else engine_by_id(tx, slot.engine_id)
            changes["options"] = options_of(engine, body.given_options, slot.options)
        changed = change_slot(tx, settings, slot, changes)
        return Reply(shown_slots(tx, settings, [changed])[0])

    return exchange.respond(await exchange.change(request, do))


async def remove_slot(request: Request) -> Response:
    """Delete a slot that holds nothing."""
    query, by = exchange.query_of(request, SlotDelete), exchange.by(request)
    name = request.path_params["slot"]

    def do(tx: Connection) -> Reply:
        delete_slot(tx, slot_named(tx, name), by, force=query.force)
        return Reply(None, 204)

    return exchange.respond(await exchange.enqueue(request, do))


async def load_slot(request: Request) -> Response:
    """Want a slot loaded."""
    body = await exchange.body_of(request, LoadBody)
    name, by = request.path_params["slot"], exchange.by(request)
    drain_timeout_s = exchange.settings_of(request).drain_timeout_s

    def do(tx: Connection) -> Accepted:
        slot = slot_named(tx, name)
        model_id = None if body.model is None else model_named(tx, body.model).id
        engine = engine_by_id(tx, slot.engine_id)
        options = options_of(engine, body.given_options, slot.options)
        wish = Wish(
            JobKind.LOAD, model_id, options, rehash=body.rehash, drain_timeout_s=drain_timeout_s
        )
        return intake.request_load(tx, slot, wish, by)

    return await order(request, do)


async def unload_slot(request: Request) -> Response:
    """Want a slot empty."""
    body = await exchange.body_of(request, UnloadBody)
    name, by = request.path_params["slot"], exchange.by(request)
    drain_timeout_s = body.drain_timeout_s
    if drain_timeout_s is None:
        drain_timeout_s = exchange.settings_of(request).drain_timeout_s
    wish = Wish(JobKind.UNLOAD, force=body.force, drain_timeout_s=drain_timeout_s)

    def do(tx: Connection) -> Accepted:
        slot = slot_named(tx, name)
        return intake.request_unload(tx, slot, wish, by, even_if_pinned=body.even_if_pinned)

    return await order(request, do)


async def validate_slot(request: Request) -> Response:
    """Want the files of a slot's model checked."""
    body = await exchange.body_of(request, ValidateBody)
    return await _check(request, Wish(JobKind.VALIDATE, rehash=body.rehash))


async def pull_slot(request: Request) -> Response:
    """Want the files of a slot's model brought."""
    body = await exchange.body_of(request, PullBody)
    return await _check(request, Wish(JobKind.PULL, force=body.again))


async def _check(request: Request, wish: Wish) -> Response:
    name, by = request.path_params["slot"], exchange.by(request)

    def do(tx: Connection) -> Accepted:
        return intake.request_check(tx, slot_named(tx, name), wish, by)

    return await order(request, do)


ROUTES = [
    Route("/api/v1/slots", list_slots, methods=["GET"]),
    Route("/api/v1/slots", add_slot, methods=["POST"]),
    Route("/api/v1/slots/{slot}", show_slot, methods=["GET"]),
    Route("/api/v1/slots/{slot}", set_slot, methods=["PATCH"]),
    Route("/api/v1/slots/{slot}", remove_slot, methods=["DELETE"]),
    Route("/api/v1/slots/{slot}/load", load_slot, methods=["POST"]),
    Route("/api/v1/slots/{slot}/unload", unload_slot, methods=["POST"]),
    Route("/api/v1/slots/{slot}/validate", validate_slot, methods=["POST"]),
    Route("/api/v1/slots/{slot}/pull", pull_slot, methods=["POST"]),
]
