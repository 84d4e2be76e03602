"""Who may do what: one table of routes and roles, and nothing that is not in it can be reached.

A request passes four checks. Its Host must name this machine where the API is bound to loopback
(against DNS rebinding). One that changes something must not come from a page of another origin. Its
caller must be known (`callers.py`), except for what is anyone's. The caller's role must be the
route's.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from hal0.access.roles import Role
from hal0.api.callers import Caller, Callers
from hal0.errors import (
    BadHost,
    BadOrigin,
    Forbidden,
    MethodNotAllowed,
    RequestError,
    RouteNotFound,
)

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


_ROUTES = """
GET    /livez                               anyone
GET    /readyz                              anyone
GET    /api/v1/meta                         reader
GET    /api/v1/openapi.json                 reader
GET    /api/v1/slots                        reader
POST   /api/v1/slots                        writer
GET    /api/v1/slots/{slot}                 reader
PATCH  /api/v1/slots/{slot}                 writer
DELETE /api/v1/slots/{slot}                 writer
POST   /api/v1/slots/{slot}/load            writer
POST   /api/v1/slots/{slot}/unload          writer
POST   /api/v1/slots/{slot}/validate        writer
POST   /api/v1/slots/{slot}/pull            writer
GET    /api/v1/jobs                         reader
POST   /api/v1/jobs/retry                   writer
GET    /api/v1/jobs/{job_id:int}            reader
POST   /api/v1/jobs/{job_id:int}/retry      writer
POST   /api/v1/jobs/{job_id:int}/cancel     writer
GET    /api/v1/chains/{chain_id:int}        reader
GET    /api/v1/models                       reader
POST   /api/v1/models                       writer
GET    /api/v1/models/{model}               reader
DELETE /api/v1/models/{model}               writer
GET    /api/v1/engines                      reader
POST   /api/v1/engines                      writer
GET    /api/v1/engines/{engine}             reader
GET    /api/v1/incidents                    reader
GET    /api/v1/incidents/{incident_id:int}  reader
GET    /api/v1/transitions                  reader
GET    /api/v1/tokens                       writer
POST   /api/v1/tokens                       writer
DELETE /api/v1/tokens/{token}               writer
"""

TABLE: Final[dict[tuple[str, str], Role]] = {
    (method, path): Role.named(role)
    for method, path, role in (line.split() for line in _ROUTES.strip().splitlines())
}


class Gate:
    """ASGI middleware that lets a request through to a route of the table, or raises why not."""

    def __init__(
        self,
        app: ASGIApp,
        routes: Sequence[BaseRoute],
        callers: Callers,
        hosts: AbstractSet[str] | None,
    ) -> None:
        self.app = app
        self.routes = routes
        self.callers = callers
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with `state["actor"]`.

        Raises BadHost, BadOrigin, Unauthorized, TooManyFailures, Forbidden, RouteNotFound,
        MethodNotAllowed.
        """
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise Forbidden(f"{scope['type']} is not served here")
        headers = Headers(scope=scope)
        check_host(headers, self.hosts)
        if scope["method"] not in SAFE_METHODS:
            check_origin(headers)
        caller = await self._admitted(scope, headers)
        if caller is None:
            await self.app(scope, receive, send)
            return
        scope.setdefault("state", {})["actor"] = caller.actor
        try:
            await self.app(scope, receive, send)
        finally:  # when the answer is sent, so that nobody waits for it
            await self.callers.note_use(caller)

    async def _admitted(self, scope: Scope, headers: Headers) -> Caller | None:
        """Return who asks, None for anyone; raises when they may not."""
        address = (scope.get("client") or ("",))[0]
        try:
            needed = role_of(scope, self.routes)
        except RequestError:
            await self.callers.identify(headers, address)  # a stranger learns not what there is
            raise
        if needed is Role.ANYONE:
            return None
        caller = await self.callers.identify(headers, address)
        if caller.role < needed:
            raise Forbidden(
                f"{scope['method']} {scope['path']} needs the role {needed}; the token "
                f"{caller.actor} has the role {caller.role}",
                evidence={"needed": str(needed), "role": str(caller.role)},
            )
        return caller


def check_host(headers: Headers, hosts: AbstractSet[str] | None) -> None:
    """Refuse a Host header that names none of `hosts`, None = all will do; raises BadHost."""
    if hosts is None:
        return
    values = headers.getlist("host")
    host = values[0].lower() if len(values) == 1 else ""
    name, colon, port = host.rpartition(":")
    if host in hosts or (name in hosts and colon and port.isdigit()):
        return
    raise BadHost(
        f"the Host header must name this machine ({', '.join(sorted(hosts))}), "
        f"not {', '.join(values) or 'nothing'}",
        evidence={"host": values},
    )


def check_origin(headers: Headers) -> None:
    """Refuse what a page of another site makes a browser send; raises BadOrigin."""
    origins, host = headers.getlist("origin"), headers.get("host", "").lower()
    if origins:
        is_ours = len(origins) == 1 and origins[0].lower() in {f"http://{host}", f"https://{host}"}
    else:
        sites = headers.getlist("sec-fetch-site") or ["none"]
        is_ours = len(sites) == 1 and sites[0] in {"none", "same-origin"}
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
