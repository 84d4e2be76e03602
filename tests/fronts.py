"""Routes of a test, or what it has for inference, behind the front of the API."""

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from hal0.api.auth import Gate
from hal0.api.callers import Callers
from hal0.api.front import Front
from hal0.api.keyring import Keyring
from hal0.db import Database


def behind_front(
    routes: Sequence[BaseRoute], db: Database, inference: ASGIApp | None = None
) -> Front:
    """Return an application of these routes; `inference` has the paths of the dispatcher."""
    app = Starlette(routes=routes)
    gate = Gate(routes, Callers(Keyring(db), is_loopback=True), hosts=None)
    return Front(app.router, inference or app.router, gate)
