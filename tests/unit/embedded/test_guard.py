"""Whom the embedded engine lets in: nobody's page, and who asks it by an address."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from hal0.embedded.guard import Guard

pytestmark = pytest.mark.anyio


async def answered(key: str | None = None, **headers: str) -> int:
    async def health(_request: object) -> JSONResponse:
        return JSONResponse({})

    app = Guard(Starlette(routes=[Route("/v1/health", health)]), key)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        url = "http://127.0.0.1:13311/v1/health"
        return (await client.get(url, headers=headers)).status_code


@pytest.mark.parametrize("host", ["127.0.0.1:13311", "localhost", "[::1]:1", "192.168.1.7:13311"])
async def test_who_asks_an_address_is_answered(host: str) -> None:
    assert await answered(host=host) == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil:13311", "", "127.0.0.1.evil"])
async def test_a_name_that_a_name_server_can_point_here_is_refused(host: str) -> None:
    assert await answered(host=host) == 403
    assert await answered("key", host=host, authorization="Bearer key") == 403


async def test_a_page_of_another_site_is_refused() -> None:
    assert await answered(origin="https://evil.example") == 403
    assert await answered(origin="http://localhost:3000") == 200


async def test_a_key_is_needed_where_there_is_one() -> None:
    assert await answered("key") == 401
    assert await answered("key", authorization="Bearer key") == 200
