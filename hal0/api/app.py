"""The web process put together: settings and database in, one ASGI application out."""

import signal
import socket
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


def listen(bind: str) -> socket.socket:
    """Listen at HAL0_BIND; raises SettingsError when it cannot be had."""
    host, port = loopback_address(bind)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else 40 ms an answer
        listener.bind((host, port))
        listener.listen()  # two that are only bound share a port, and one of them finds out late
    except OSError as exc:
        listener.close()
        raise SettingsError(
            f"HAL0_BIND={bind}: cannot listen there: {exc.strerror}; stop what does, or set "
            "HAL0_BIND to another port",
            evidence={"bind": bind},
        ) from exc
    return listener


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code of the process.

    Raises SettingsError, and DatabaseOlder or DatabaseNewer for a database of another version.
    """
    logs.set_up(settings.log_level)
    points.arm(settings.point)
    listener = listen(settings.bind)
    db = open_database(settings)
    first_act(db, LOCAL_ACTOR)
    config = uvicorn.Config(
        create_app(settings, db),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_WITHIN_S,
    )
    server = uvicorn.Server(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stopped)
    try:
        server.run(sockets=[listener])
    finally:
        db.close()
        listener.close()
    return 0 if server.started else 1


def _stopped(number: int, frame: FrameType | None) -> None:
    """Take the signal that uvicorn raises once more when it has stopped: it is no crash."""
