"""What this process is, and whether it can do its work."""

from typing import Any

from sqlalchemy import Connection, text
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hal0 import __version__
from hal0.api import exchange
from hal0.api.views import when
from hal0.errors import DatabaseNewer, DatabaseOlder, tree
from hal0.jobs.queries import living_workers
from hal0.states import EDGES, Cause, JobKind, JobState, Outcome, SlotState
from hal0.tables import REVISION


async def meta(request: Request) -> Response:
    """Return the closed lists of this version."""
    edges = sorted(EDGES, key=lambda edge: (edge.source or "", edge.to, edge.cause))
    return exchange.answer(
        {
            "version": __version__,
            "schema_revision": REVISION,
            "home": str(exchange.settings_of(request).home),
            "states": list(SlotState),
            "edges": [{"from": e.source, "to": e.to, "cause": e.cause} for e in edges],
            "causes": list(Cause),
            "kinds": list(JobKind),
            "job_states": list(JobState),
            "outcomes": list(Outcome),
            "error_codes": [
                {"code": error.code, "http_status": error.status}
                for error in sorted(tree(), key=lambda error: error.code)
            ],
        }
    )


async def livez(request: Request) -> Response:
    """Tell that the process answers."""
    return exchange.answer({"live": True, "version": __version__})


async def readyz(request: Request) -> Response:
    """Tell that the database can be read and has this schema; else 503.

    Workers are told, not required: what is asked of this process is kept until one is there.
    """
    return exchange.answer(await exchange.read(request, _readiness))


def _readiness(tx: Connection) -> dict[str, Any]:
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
]
