"""What this process is, and whether it can do its work."""

from sqlalchemy import Connection, text
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hal0 import __version__
from hal0.api import exchange, openapi, process_answers
from hal0.api.schemas import Query
from hal0.api.views import when
from hal0.errors import DatabaseNewer, DatabaseOlder, tree
from hal0.jobs.queries import living_workers
from hal0.registry.roster import all_engines
from hal0.states import EDGES, Cause, IncidentKind, JobKind, JobState, Outcome, SlotState
from hal0.tables import REVISION


async def meta(request: Request) -> Response:
    """Return the closed lists of this version, and which engines have models of nobody."""
    exchange.query_of(request, Query)
    engines = await exchange.read(request, all_engines)
    edges = sorted(EDGES, key=lambda edge: (edge.source or "", edge.to, edge.cause))
    lists: process_answers.Meta = {
        "version": __version__,
        "schema_revision": REVISION,
        "home": str(exchange.settings_of(request).home),
        "states": list(SlotState),
        "edges": [{"from": e.source, "to": e.to, "cause": e.cause} for e in edges],
        "causes": list(Cause),
        "kinds": list(JobKind),
        "job_states": list(JobState),
        "outcomes": list(Outcome),
        "incident_kinds": list(IncidentKind),
        "engines": [
            {"name": engine.name, "strangers": (engine.seen or {}).get("strangers", [])}
            for engine in engines
        ],
        "error_codes": [
            {"code": error.code, "http_status": error.status}
            for error in sorted(tree(), key=lambda error: error.code)
        ],
    }
    return exchange.answer(lists)


async def show_openapi(request: Request) -> Response:
    """Return this document."""
    exchange.query_of(request, Query)
    text = await run_in_threadpool(openapi.text_of, request.app)
    return Response(text, media_type="application/json")


async def livez(request: Request) -> Response:
    """Tell that the process answers."""
    alive: process_answers.Live = {"live": True, "version": __version__}
    return exchange.answer(alive)


async def readyz(request: Request) -> Response:
    """Tell that a change would be taken; else what it would be answered: 503, or 507.

    Nothing is written for it: the pulse of this process knows whether the last write went well.
    Workers are told, not required: what is asked of this process is kept until one is there.
    """
    await run_in_threadpool(exchange.pulse_of(request).ensure_writable)
    return exchange.answer(await exchange.read(request, _readiness))


def _readiness(tx: Connection) -> process_answers.Ready:
    found = tx.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    if found != REVISION:
        kind = DatabaseNewer if found is not None and found > REVISION else DatabaseOlder
        raise kind(
            f"the database has schema {found}, this process knows {REVISION}: restart it",
            evidence={"found": found, "expected": REVISION},
        )
    return {
        "ready": True,
        "version": __version__,
        "schema_revision": found,
        "workers": [
            {
                "id": worker.id,
                "pid": worker.pid,
                "started_at": when(worker.started_at),
                "seen_at": when(worker.seen_at),
            }
            for worker in living_workers(tx)
        ],
    }


ROUTES = [
    Route("/livez", livez, methods=["GET"]),
    Route("/readyz", readyz, methods=["GET"]),
    Route("/api/v1/meta", meta, methods=["GET"]),
    Route("/api/v1/openapi.json", show_openapi, methods=["GET"]),
]
