"""What happened at engines, over HTTP, newest first: each event with all that it cost."""

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hal0.api import engine_views, exchange
from hal0.api.idempotency import Reply
from hal0.api.paging import cursor_of, key_of, page
from hal0.api.schemas import IncidentsQuery, Nothing, Query
from hal0.jobs.incident_queries import Incident, IncidentFilter, incident_detail, incident_page
from hal0.jobs.incidents import acknowledge
from hal0.registry.roster import engine_named
from hal0.slots.overview import ids_ever_named


async def list_incidents(request: Request) -> Response:
    """Return a page of incidents, newest first."""
    query = exchange.query_of(request, IncidentsQuery)
    before = key_of("incidents", int, query.cursor)

    def look(tx: Connection) -> list[Incident]:
        wanted = IncidentFilter(
            None if query.engine is None else engine_named(tx, query.engine).id,
            query.kind,
            None if query.slot is None else ids_ever_named(tx, query.slot),
            query.since,
        )
        return incident_page(tx, wanted, limit=query.limit + 1, before=before)

    rows = await exchange.read(request, look)
    shown = [engine_views.incident_json(row) for row in rows]
    return exchange.answer(page(shown, query.limit, lambda row: cursor_of("incidents", row["id"])))


async def show_incident(request: Request) -> Response:
    """Return one incident."""
    exchange.query_of(request, Query)
    incident_id = request.path_params["incident_id"]
    incident = await exchange.read(request, lambda tx: incident_detail(tx, incident_id))
    return exchange.answer(engine_views.incident_json(incident))


async def acknowledge_incident(request: Request) -> Response:
    """Say that an incident was seen; who said so first stays."""
    await exchange.body_of(request, Nothing)
    incident_id, actor = request.path_params["incident_id"], request.state.actor

    def do(tx: Connection) -> Reply:
        acknowledge(tx, incident_detail(tx, incident_id).id, actor)
        return Reply(engine_views.incident_json(incident_detail(tx, incident_id)))

    return exchange.respond(await exchange.change(request, do))


ROUTES = [
    Route("/api/v1/incidents", list_incidents, methods=["GET"]),
    Route("/api/v1/incidents/{incident_id:int}", show_incident, methods=["GET"]),
    Route("/api/v1/incidents/{incident_id:int}/ack", acknowledge_incident, methods=["POST"]),
]
