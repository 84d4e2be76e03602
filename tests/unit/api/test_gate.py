"""Who gets in: the table of routes, the Host and the Origin header."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from hal0.access.roles import Role
from hal0.api.auth import TABLE
from hal0.db import Database
from hal0.dispatcher.routing import ROUTES as INFERENCE
from tests.fronts import behind_front

pytestmark = pytest.mark.anyio


def test_every_route_is_in_the_table_of_roles_and_every_row_is_a_route(app: Starlette) -> None:
    served = {
        (method, route.path)
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert len(app.routes) == len([route for route in app.routes if isinstance(route, Route)])
    assert served | {("POST", path) for path in INFERENCE} == set(TABLE)


def test_whatever_changes_something_needs_a_writer_and_so_does_the_list_of_tokens() -> None:
    for (method, path), role in TABLE.items():
        if path.startswith("/v1/"):
            assert role is Role.CLIENT
            continue
        if path.startswith("/session"):  # signs in and out, and changes nothing here
            assert role is Role.ANYONE
            continue
        is_writer_s = method != "GET" or path == "/api/v1/tokens"
        assert (role is Role.WRITER) == is_writer_s, (method, path)


async def test_a_route_that_is_not_in_the_table_cannot_be_reached(db: Database) -> None:
    """A route that somebody adds and gives no role: not even the operator of this machine."""
    reached: list[str] = []

    def secret(request: Request) -> Response:
        reached.append(request.url.path)
        return PlainTextResponse("secret")

    routes = [
        Route("/secret", secret, methods=["GET", "POST"]),
        Mount("/under", routes=[Route("/it", secret)]),
    ]
    transport = httpx.ASGITransport(behind_front(routes, db))
    async with httpx.AsyncClient(transport=transport, base_url="http://h") as client:
        for path in ("/secret", "/under/it"):
            for method in ("GET", "HEAD", "POST"):
                refused = await client.request(method, path)
                assert refused.status_code == 403, (method, path)
                if method != "HEAD":
                    assert refused.json()["code"] == "auth.forbidden"
    assert reached == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:13310", "localhost", "LOCALHOST:80", "[::1]", "[::1]:13310"]
)
async def test_this_machine_is_served_under_all_its_names(
    api: httpx.AsyncClient, host: str
) -> None:
    assert (await api.get("/livez", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:13310",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "localhost:",
        "localhost:80:80",
        "::1",
        "127.0.0.2",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/livez", "/api/v1/slots", "/nothing"])
async def test_a_host_header_of_another_machine_is_refused(
    api: httpx.AsyncClient, host: str, path: str
) -> None:
    refused = await api.get(path, headers={"Host": host})
    assert (refused.status_code, refused.json()["code"]) == (403, "auth.bad_host")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8080"},
        {"Origin": "http://localhost:13310"},
        {"Origin": "file://"},
        {"Origin": "http://["},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        [("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")],
        [("Sec-Fetch-Site", "none"), ("Sec-Fetch-Site", "none")],
    ],
)
async def test_a_page_of_another_origin_changes_nothing(
    api: httpx.AsyncClient, headers: dict[str, str] | list[tuple[str, str]]
) -> None:
    for send in (
        api.post("/api/v1/slots", json={"name": "chat"}, headers=headers),
        api.patch("/api/v1/slots/chat", json={}, headers=headers),
        api.delete("/api/v1/slots/chat", headers=headers),
    ):
        refused = await send
        assert (refused.status_code, refused.json()["code"]) == (403, "auth.bad_origin")
    assert (await api.get("/api/v1/slots", headers=headers)).json()["items"] == []


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "http://127.0.0.1:13310"}, {"Sec-Fetch-Site": "same-origin"}],
)
async def test_a_page_of_hal0_itself_and_a_plain_client_may_change_things(
    api: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    made = await api.post("/api/v1/slots", json={"name": "chat"}, headers=headers)
    assert made.status_code == 201


async def test_an_unknown_path_is_a_problem_and_so_is_a_slash_too_many(
    api: httpx.AsyncClient,
) -> None:
    for path in ("/pages", "/api/v1", "/api/v1/slots/", "/api/v2/slots", "/api/v1/jobs/one"):
        missing = await api.get(path)
        assert (missing.status_code, missing.json()["code"]) == (404, "request.not_found")
        assert missing.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/api/v1/slots", "GET, HEAD, POST"),
        ("PUT", "/api/v1/slots/chat", "DELETE, GET, HEAD, PATCH"),
        ("GET", "/api/v1/slots/chat/load", "POST"),
        ("OPTIONS", "/livez", "GET, HEAD"),
    ],
)
async def test_a_method_that_is_not_possible_is_answered_with_those_that_are(
    api: httpx.AsyncClient, method: str, path: str, allow: str
) -> None:
    refused = await api.request(method, path)
    assert (refused.status_code, refused.headers["allow"]) == (405, allow)
    assert refused.json()["code"] == "request.method_not_allowed"


async def test_head_is_answered_like_get_without_a_body(api: httpx.AsyncClient) -> None:
    head = await api.head("/api/v1/slots")
    assert (head.status_code, head.content) == (200, b"")
