"""The dispatcher put together: the ASGI application for inference, below /v1."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from starlette.types import Receive, Scope, Send

from hal0.db import Database
from hal0.dispatcher.admission import Admission
from hal0.dispatcher.proxy import Proxy
from hal0.dispatcher.routing import ROUTES
from hal0.dispatcher.serving import Serving
from hal0.dispatcher.speeds import Speeds
from hal0.dispatcher.upstream import Upstream
from hal0.dispatcher.wake import Waker
from hal0.dispatcher.watch import Watch
from hal0.errors import RouteNotFound
from hal0.jobs.bell import ring
from hal0.jobs.owners import Beat
from hal0.settings import Settings


class Dispatcher:
    """Inference for one API process, in the event loop in which its block is entered."""

    def __init__(self, settings: Settings, db: Database, me: Callable[[], Beat | None]) -> None:
        """`me` tells as which owner this process holds leases, and when that was last written."""
        self._settings = settings
        self._db = db
        self._me = me

    async def __aenter__(self) -> Self:
        settings, db = self._settings, self._db
        watch = Watch(db)
        waker = Waker(settings, db, watch, self._ring)
        speeds = Speeds()
        self._serving = Serving(settings, db, self._me, watch, speeds, self._ring)
        self._upstream = Upstream(settings.connect_timeout_s)
        admission = Admission(db, self._serving, waker)
        self._proxy = Proxy(settings, admission, self._serving, self._upstream, speeds)
        await self._serving.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._serving.end()
        await self._upstream.close()

    def _ring(self) -> None:
        ring(self._settings.run)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a POST, whose caller is known and may do this; raises Hal0Error."""
        route = ROUTES.get(scope["path"])
        if route is None:  # whatever the table of roles says: nothing else goes to an engine
            raise RouteNotFound(f"there is no inference at {scope['path']:.200}")
        await self._proxy.serve(route, scope, receive, send)
