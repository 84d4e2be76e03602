"""Who may do what: one table of routes and roles, and nothing that is not in it can be reached.

    client   inference alone
    reader   also looks at everything
    writer   also changes everything

There are no tokens yet: hal0 binds to loopback alone and who is on this machine is a writer, named
`local`. A web page that runs on this machine is not its user, though. Two checks keep pages out:
the Host header must name this machine (against DNS rebinding), and a request that changes something
must not come from another origin.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from hal0.errors import BadHost, BadOrigin, Forbidden, MethodNotAllowed, RouteNotFound

LOOPBACK: Final = frozenset({"127.0.0.1", "[::1]", "localhost"})
"""The names of this machine, as a Host header writes them."""

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
LOCAL_ACTOR: Final = "local"


class Role(IntEnum):
    """What a caller may do; each role may do what those below it may."""

    ANYONE = 0
    CLIENT = 1
    READER = 2
    WRITER = 3


_ROUTES = """
GET    /livez                            anyone
GET    /readyz                           anyone
GET    /api/v1/meta                      reader
GET    /api/v1/slots                     reader
POST   /api/v1/slots                     writer
GET    /api/v1/slots/{slot}              reader
PATCH  /api/v1/slots/{slot}              writer
DELETE /api/v1/slots/{slot}              writer
POST   /api/v1/slots/{slot}/load         writer
POST   /api/v1/slots/{slot}/unload       writer
POST   /api/v1/slots/{slot}/validate     writer
POST   /api/v1/slots/{slot}/pull         writer
GET    /api/v1/jobs                      reader
POST   /api/v1/jobs/retry                writer
GET    /api/v1/jobs/{job_id:int}         reader
POST   /api/v1/jobs/{job_id:int}/retry   writer
POST   /api/v1/jobs/{job_id:int}/cancel  writer
GET    /api/v1/chains/{chain_id:int}     reader
GET    /api/v1/models                    reader
POST   /api/v1/models                    writer
GET    /api/v1/models/{model}            reader
DELETE /api/v1/models/{model}            writer
GET    /api/v1/engines                   reader
POST   /api/v1/engines                   writer
GET    /api/v1/engines/{engine}          reader
GET    /api/v1/transitions               reader
"""

TABLE: Final[dict[tuple[str, str], Role]] = {
    (method, path): Role[role.upper()]
    for method, path, role in (line.split() for line in _ROUTES.strip().splitlines())
}


class Gate:
    """ASGI middleware that lets a request through to a route of the table, or raises why not."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self.app = app
        self.routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check host, origin and role; raises Forbidden, RouteNotFound, MethodNotAllowed."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise Forbidden(f"{scope['type']} is not served here")
        headers = Headers(scope=scope)
        host = check_host(headers)
        if scope["method"] not in SAFE_METHODS:
            check_origin(headers, host)
        needed = role_of(scope, self.routes)
        actor, role = identify()
        if role < needed:
            raise Forbidden(f"{scope['method']} {scope['path']} needs the role {needed.name}")
        scope.setdefault("state", {})["actor"] = actor
        await self.app(scope, receive, send)


def identify() -> tuple[str, Role]:
    """Return who asks and what they may do: without tokens, the user of this machine."""
    return LOCAL_ACTOR, Role.WRITER


def check_host(headers: Headers) -> str:
    """Return the Host header if it names this machine; raises BadHost."""
    values = headers.getlist("host")
    host = values[0].lower() if len(values) == 1 else ""
    name, colon, port = host.rpartition(":")
    if host in LOOPBACK or (name in LOOPBACK and colon and port.isdigit()):
        return host
    raise BadHost(
        f"the Host header must name this machine ({', '.join(sorted(LOOPBACK))}), "
        f"not {', '.join(values) or 'nothing'}",
        evidence={"host": values},
    )


def check_origin(headers: Headers, host: str) -> None:
    """Refuse what a page of another site makes a browser send; raises BadOrigin."""
    origins = headers.getlist("origin")
    if origins:
        parts = urlsplit(origins[0])
        is_ours = len(origins) == 1 and parts.scheme in {"http", "https"} and parts.netloc == host
    else:
        is_ours = headers.get("sec-fetch-site", "none") in {"none", "same-origin"}
    if not is_ours:
        raise BadOrigin(
            "a page of another site may not change anything here",
            evidence={"origin": origins, "host": host},
        )


def role_of(scope: Scope, routes: Sequence[BaseRoute]) -> Role:
    """Return the role that this request needs.

    Raises RouteNotFound, MethodNotAllowed, and Forbidden for a route that the table does not have.
    """
    allowed: set[str] = set()
    for route in routes:
        match = _match(route, scope)
        if match is Match.FULL:
            return _listed_role(scope["method"], route)
        if match is Match.PARTIAL and isinstance(route, Route):
            allowed |= route.methods or set()
    if allowed:
        allow = sorted(allowed)
        raise MethodNotAllowed(
            f"{scope['method']} is not possible on {scope['path']}; use {', '.join(allow)}",
            evidence={"allow": allow},
        )
    raise RouteNotFound(
        f"there is nothing at {scope['path']:.200}; the part REST of README lists what there is"
    )


def _match(route: BaseRoute, scope: Scope) -> Match:
    try:
        return route.matches(scope)[0]
    except ValueError:  # an id of more digits than Python reads
        return Match.NONE


def _listed_role(method: str, route: BaseRoute) -> Role:
    path = route.path if isinstance(route, Route) else None
    role = TABLE.get(("GET" if method == "HEAD" else method, str(path)))
    if role is None:
        raise Forbidden("this route is in no role's table")
    return role
