"""What is logged while a request is answered says which one, in threads too."""

import logging

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from hal0.api.request_ids import HEADER
from hal0.db import Database
from tests.fronts import behind_front
from tests.records import kept_records, subject_of

log = logging.getLogger("hal0.api.of_a_test")


def in_a_thread(request: Request) -> Response:
    log.info("in a thread")
    return PlainTextResponse("done")


async def in_the_loop(request: Request) -> Response:
    log.info("in the loop")
    return PlainTextResponse("done")


@pytest.mark.anyio
async def test_records_of_a_request_carry_its_id_and_those_after_it_do_not(db: Database) -> None:
    routes = [Route("/livez", in_a_thread), Route("/readyz", in_the_loop)]
    transport = httpx.ASGITransport(behind_front(routes, db))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        with kept_records() as records:
            for path in ("/livez", "/readyz"):
                await client.get(path, headers={HEADER: f"asked-{path}"})
            log.info("after")
    told = {one.getMessage(): subject_of(one) for one in records if one.name == log.name}
    assert told == {
        "in a thread": {"request_id": "asked-/livez"},
        "in the loop": {"request_id": "asked-/readyz"},
        "after": {},
    }
