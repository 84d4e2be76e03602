"""Who may do what: one table of routes and roles, and nothing that is not in it can be reached.

A request passes four checks. Its Host must name this machine where the API is bound to loopback
(against DNS rebinding). One that changes something must not come from a page of another origin, and
one that a cookie speaks for must show that it comes from a page of ours. Its caller must be known
(`callers.py`), except for what is anyone's. The caller's role must be the route's.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from hal0.access.roles import Role
from hal0.api.callers import Caller, Callers, session_in
from hal0.api.request_headers import RequestHeaders
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
GET    /metrics                             reader
GET    /api/v1/meta                         reader
GET    /api/v1/openapi.json                 reader
GET    /api/v1/docs                         reader
GET    /api/v1/slots                        reader
POST   /api/v1/slots                        writer
GET    /api/v1/slots/{slot}                 reader
PATCH  /api/v1/slots/{slot}                 writer
DELETE /api/v1/slots/{slot}                 writer
POST   /api/v1/slots/{slot}/load            writer
POST   /api/v1/slots/{slot}/unload          writer
POST   /api/v1/slots/{slot}/validate        writer
POST   /api/v1/slots/{slot}/pull            writer
GET    /api/v1/slots/{slot}/loads           reader
GET    /api/v1/jobs                         reader
GET    /api/v1/jobs/failed                  reader
POST   /api/v1/jobs/retry                   writer
POST   /api/v1/jobs/cancel                  writer
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
GET    /api/v1/probe                        reader
POST   /api/v1/probe                        writer
GET    /api/v1/starters                     reader
POST   /api/v1/starters/{starter}/look      writer
GET    /api/v1/incidents                    reader
GET    /api/v1/incidents/{incident_id:int}  reader
POST   /api/v1/incidents/{incident_id:int}/ack writer
GET    /api/v1/events                       reader
GET    /api/v1/transitions                  reader
GET    /api/v1/transitions.ndjson           reader
GET    /api/v1/transitions.csv              reader
GET    /api/v1/tokens                       writer
POST   /api/v1/tokens                       writer
DELETE /api/v1/tokens/{token}               writer
GET    /v1/models                           client
GET    /v1/models/{name}                    client
POST   /v1/chat/completions                 client
POST   /v1/completions                      client
POST   /v1/embeddings                       client
POST   /v1/rerank                           client
POST   /v1/responses                        client
POST   /v1/audio/speech                     client
POST   /v1/audio/transcriptions             client
POST   /v1/audio/translations               client
POST   /v1/images/generations               client
POST   /v1/images/edits                     client
POST   /v1/images/variations                client
GET    /                                          reader
GET    /assets/{name}                             anyone
POST   /session                                   anyone
DELETE /session                                   anyone
POST   /session/end                               anyone
GET    /page/head                                 reader
GET    /page/alerts                               reader
GET    /page/cards                                reader
GET    /page/cards/{slot}                         reader
GET    /page/setup                                reader
POST   /page/setup/probe                          writer
POST   /page/setup/engine                         writer
POST   /page/setup/look                           writer
POST   /page/setup/begin                          writer
POST   /page/setup/token                          writer
GET    /page/record                               reader
GET    /page/slots/{slot}                         reader
GET    /page/slots/{slot}/ask/{action}            reader
POST   /page/slots/{slot}/{action}                writer
GET    /page/jobs/{job_id:int}                    reader
POST   /page/jobs/{job_id:int}/retry              writer
POST   /page/jobs/{job_id:int}/cancel             writer
GET    /page/ask/retry                            reader
GET    /page/ask/cancel                           reader
POST   /page/retry                                writer
POST   /page/cancel                               writer
POST   /page/incidents/{incident_id:int}/ack      writer
"""

TABLE: Final[dict[tuple[str, str], Role]] = {
    (method, path): Role.named(role)
    for method, path, role in (line.split() for line in _ROUTES.strip().splitlines())
}

_WHOLE: Final = {
    path: {
        method: role
        for (listed, one), role in TABLE.items()
        if one == path
        for method in ((listed, "HEAD") if listed == "GET" else (listed,))
    }
    for _, path in TABLE
    if "{" not in path
}
"""The rows whose path stands for itself alone, by that path: roles by method; HEAD is as GET."""


class Gate:
    """Lets a request through to a route of the table, or raises why not."""

    def __init__(
        self, routes: Sequence[BaseRoute], callers: Callers, hosts: AbstractSet[str] | None
    ) -> None:
        self._routes = routes
        self._callers = callers
        self._hosts = hosts

    async def admit(self, scope: Scope, headers: RequestHeaders) -> Caller | None:
        """Return who asks, None for anyone.

        Raises BadHost, BadOrigin, Unauthorized, TooManyFailures, Forbidden, RouteNotFound,
        MethodNotAllowed.
        """
        check_host(headers, self._hosts)
        if scope["method"] not in SAFE_METHODS:
            check_origin(headers)
        address = (scope.get("client") or ("",))[0]
        try:
            needed = role_of(scope, self._routes)
        except RequestError:
            await self._callers.identify(headers, address)  # a stranger learns not what there is
            raise
        if needed is Role.ANYONE:
            return None
        caller = await self._callers.identify(headers, address)
        if caller.role < needed:
            raise Forbidden(
                f"{scope['method']} {scope['path']} needs the role {needed}; the token "
                f"{caller.actor} has the role {caller.role}",
                evidence={"needed": str(needed), "role": str(caller.role)},
            )
        return caller

    async def note_use(self, caller: Caller) -> None:
        """Write that the caller's token was used."""
        await self._callers.note_use(caller)


def check_host(headers: RequestHeaders, hosts: AbstractSet[str] | None) -> None:
    """Refuse a Host header that names none of `hosts`, None = all will do; raises BadHost."""
    if hosts is None:
        return
    values = headers.all(b"host")
    host = values[0].lower() if len(values) == 1 else ""
    name, colon, port = host.rpartition(":")
    if host in hosts or (name in hosts and colon and port.isdigit()):
        return
    raise BadHost(
        f"the Host header must name this machine ({', '.join(sorted(hosts))}), "
        f"not {', '.join(values) or 'nothing'}",
        evidence={"host": values},
    )


def check_origin(headers: RequestHeaders) -> None:
    """Refuse what a page of another site makes a browser send; raises BadOrigin.

    Programs send neither Origin nor Sec-Fetch-Site. A request that a cookie speaks for is a
    browser's, which sends one of them: without both, nobody knows which page it comes from.
    """
    host = headers.first(b"host") or ""
    origins = headers.all(b"origin")
    if origins:
        ours = {f"http://{host}".lower(), f"https://{host}".lower()}
        is_ours = len(origins) == 1 and origins[0].lower() in ours
    else:
        good = [["same-origin"]] if session_in(headers) else [[], ["none"], ["same-origin"]]
        is_ours = headers.all(b"sec-fetch-site") in good
    if not is_ours:
        raise BadOrigin(
            "a page of another site may not change anything here",
            evidence={"origin": origins, "host": host},
        )


def role_of(scope: Scope, routes: Sequence[BaseRoute]) -> Role:
    """Return the role that this request needs.

    Raises RouteNotFound, MethodNotAllowed, and Forbidden for a route that the table does not have.
    """
    method, allowed = scope["method"], set[str]()
    if (roles := _WHOLE.get(scope["path"])) is not None:
        if method in roles:
            return roles[method]
        allowed, routes = set(roles), ()
    for route in routes:
        match = _match(route, scope)
        if match is Match.FULL:
            return _listed_role(method, route)
        if match is Match.PARTIAL and isinstance(route, Route):
            allowed |= route.methods or set()
    if allowed:
        allow = sorted(allowed)
        raise MethodNotAllowed(
            f"{method} is not possible on {scope['path']}; use {', '.join(allow)}",
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
