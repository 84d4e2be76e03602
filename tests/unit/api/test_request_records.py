"""What is logged while a request is answered says which one, in threads too."""

import logging

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from hal0.api.request_ids import HEADER, RequestIds
from tests.records import kept_records, subject_of

log = logging.getLogger("hal0.api.of_a_test")


def in_a_thread(request: Request) -> Response:
    log.info("in a thread")
    return PlainTextResponse("done")


async def in_the_loop(request: Request) -> Response:
    log.info("in the loop")
    return PlainTextResponse("done")


@pytest.mark.anyio
async def test_records_of_a_request_carry_its_id_and_those_after_it_do_not() -> None:
    routes = [Route("/thread", in_a_thread), Route("/loop", in_the_loop)]
    app = Starlette(routes=routes, middleware=[Middleware(RequestIds)])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        with kept_records() as records:
            for path in ("/thread", "/loop"):
                await client.get(path, headers={HEADER: f"asked-{path}"})
            log.info("after")
    told = {one.getMessage(): subject_of(one) for one in records if one.name == log.name}
    assert told == {
        "in a thread": {"request_id": "asked-/thread"},
        "in the loop": {"request_id": "asked-/loop"},
        "after": {},
    }
