"""The web process put together: settings and database in, one ASGI application out."""

import signal
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware

from hal0 import logs, points
from hal0.api import engines, jobs, meta, models, slots, transitions
from hal0.api.auth import LOCAL_ACTOR, LOOPBACK, Gate
from hal0.api.problems import Problems
from hal0.api.request_ids import RequestIds
from hal0.db import Database, open_database
from hal0.errors import SettingsError
from hal0.jobs.boot import first_act
from hal0.settings import Settings

STOP_WITHIN_S = 5
"""How long running requests may go on after SIGTERM."""


def create_app(settings: Settings, db: Database) -> Starlette:
    """Return the application; it opens nothing and closes nothing."""
    routes = [
        *meta.ROUTES,
        *slots.ROUTES,
        *jobs.ROUTES,
        *models.ROUTES,
        *engines.ROUTES,
        *transitions.ROUTES,
    ]
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(RequestIds),
            Middleware(Problems),
            Middleware(Gate, routes=routes),
        ],
    )
    app.router.redirect_slashes = False
    app.state.settings = settings
    app.state.db = db
    return app


def loopback_address(bind: str) -> tuple[str, int]:
    """Split HAL0_BIND; raises SettingsError for an address that other machines can reach."""
    host, _, port = bind.rpartition(":")
    if host not in LOOPBACK:
        raise SettingsError(
            f"HAL0_BIND={bind}: this version has no tokens yet, so it listens on this machine "
            f"alone; use one of {', '.join(sorted(LOOPBACK))}",
            evidence={"bind": bind},
        )
    return host.strip("[]"), int(port)


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code of the process.

    Raises SettingsError, and DatabaseOlder or DatabaseNewer for a database of another version.
    """
    logs.set_up(settings.log_level)
    points.arm(settings.point)
    host, port = loopback_address(settings.bind)
    db = open_database(settings)
    first_act(db, LOCAL_ACTOR)
    config = uvicorn.Config(
        create_app(settings, db),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_WITHIN_S,
    )
    server = uvicorn.Server(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stopped)
    try:
        server.run()
    finally:
        db.close()
    return 0 if server.started else 1


def _stopped(number: int, frame: FrameType | None) -> None:
    """Take the signal that uvicorn raises once more when it has stopped: it is no crash."""
