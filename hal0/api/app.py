"""The web process put together: settings and database in, one ASGI application out."""

import gc
import logging
import resource
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from types import FrameType

import uvicorn
from anyio import CapacityLimiter
from starlette.applications import Starlette

from hal0 import logs, notify, points
from hal0.access.roles import LOCAL
from hal0.api import (
    connection,
    docs,
    engines,
    events,
    exports,
    firstrun,
    incidents,
    inference,
    jobs,
    loads,
    meta,
    metrics,
    models,
    page,
    page_forms,
    page_setup,
    session,
    slots,
    tokens,
    transitions,
)
from hal0.api.address import Address, ensure_closed, listen
from hal0.api.auth import Gate
from hal0.api.callers import Callers
from hal0.api.feed import Feed
from hal0.api.front import Front
from hal0.api.keyring import Keyring
from hal0.api.pulse import Pulse
from hal0.db import Database, open_database
from hal0.dispatcher.app import Dispatcher
from hal0.jobs.boot import first_act
from hal0.settings import Settings

log = logging.getLogger(__name__)

STOP_WITHIN_S = 5
"""How long running requests may go on after SIGTERM."""

COLLECT_AFTER = 20_000
"""So many new objects more than were given up begin a search for garbage."""
MOST_CONNECTIONS = 2000
OTHER_DESCRIPTORS = 128
"""More than the pools of the database (72), the log and the run folder take."""


def create_app(settings: Settings, db: Database) -> Starlette:
    """Return the application; it opens nothing, closes nothing, and its pulse is not started."""
    routes = [
        *meta.ROUTES,
        *slots.ROUTES,
        *loads.ROUTES,
        *jobs.ROUTES,
        *models.ROUTES,
        *engines.ROUTES,
        *firstrun.ROUTES,
        *incidents.ROUTES,
        *transitions.ROUTES,
        *exports.ROUTES,
        *events.ROUTES,
        *metrics.ROUTES,
        *docs.ROUTES,
        *tokens.ROUTES,
        *inference.ROUTES,
        *page.ROUTES,
        *page_forms.ROUTES,
        *page_setup.ROUTES,
        *session.ROUTES,
    ]
    address, keyring = Address.read(settings.bind), Keyring(db)
    pulse = Pulse(settings, db)
    dispatcher = Dispatcher(settings, db, pulse.me)
    feed = Feed(settings, db, keyring)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with dispatcher:
            try:
                yield
            finally:
                await feed.close()

    app = Starlette(routes=routes, lifespan=lifespan)
    app.router.redirect_slashes = False
    callers = Callers(keyring, is_loopback=address.is_loopback)
    gate = Gate(routes, callers, address.hosts)
    app.middleware_stack = Front(app.router, dispatcher, gate)  # errors are told by it alone
    app.state.settings = settings
    app.state.db = db
    app.state.keyring = keyring
    app.state.callers = callers
    app.state.pulse = pulse
    app.state.feed = feed
    app.state.lookers = CapacityLimiter(firstrun.LOOKERS)
    app.state.registry = metrics.registry_of(db, lambda: feed.listeners)
    return app


class Server(uvicorn.Server):
    """uvicorn, which tells the service manager that it serves, and whether it works."""

    def __init__(self, config: uvicorn.Config, db: Database, feed: Feed) -> None:
        super().__init__(config)
        self._db = db
        self._feed = feed

    async def main_loop(self) -> None:
        """Serve until told to stop."""
        log.info("the API serves %s", self._db.path)
        async with notify.serving("answers", self._db.ensure_readable):
            await super().main_loop()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; streams of events, which have no end of their own, end first."""
        self._feed.end()
        await super().shutdown(sockets)


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code of the process.

    Raises SettingsError, and DatabaseOlder or DatabaseNewer for a database of another version.
    """
    logs.set_up(settings.log_level, "hal0-api")
    points.arm(settings.point)
    with listen(settings.bind) as listener, closing(open_database(settings)) as db:
        ensure_closed(settings.bind, db)
        first_act(db, LOCAL)
        return _serve(create_app(settings, db), listener)


def _serve(app: Starlette, listener: socket.socket) -> int:
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        http=connection.within(app.state.settings.request_timeout_s, room_for_connections()),
        ws="none",  # an upgrade would pass by whatever makes a refusal a problem
        proxy_headers=False,  # else whoever comes from loopback says which address failed
        timeout_graceful_shutdown=STOP_WITHIN_S,
    )
    server = Server(config, app.state.db, app.state.feed)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stopped)
    app.state.pulse.start()
    _collect_rarely()
    try:
        server.run(sockets=[listener])
    finally:
        app.state.pulse.end()
    return 0 if server.started else 1


def _collect_rarely() -> None:
    """Spare requests the search for garbage: what they make goes without it, as they hold no cycle.

    With Python's defaults it took a fifth of the CPU of 64 requests at once, a twentieth of 8.
    """
    gc.collect()
    gc.freeze()  # what is there now stays
    gc.set_threshold(COLLECT_AFTER)


def room_for_connections() -> int:
    """Take as many descriptors as this process may have; return how many may be connections.

    The rest is for the database and the run folder: without one the process could do nothing, and
    the service manager would end it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + OTHER_DESCRIPTORS
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(MOST_CONNECTIONS, soft - OTHER_DESCRIPTORS))


def _stopped(number: int, frame: FrameType | None) -> None:
    """Take the signal that uvicorn raises once more when it has stopped: it is no crash."""
