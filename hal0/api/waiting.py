"""How an order is answered: at once, or after a wait that the caller prefers (RFC 7240 `wait=N`).

Who waits holds neither a thread nor a database connection: the jobs' rows are read again and again.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import anyio
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from hal0.api import exchange, views
from hal0.api.idempotency import Reply
from hal0.clock import monotonic_ms
from hal0.jobs.ledger.intake import Accepted
from hal0.jobs.queries import ChainDetail, chain_detail, is_finished

MAX_WAIT_S: Final = 60
LOOK_EVERY_S: Final = (0.02, 0.05, 0.1, 0.2, 0.25)
"""Pauses between two looks; the last one repeats."""

_WAIT: Final = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,6})\"?\s*(?=$|[,;])", re.IGNORECASE)


def preferred_wait_s(request: Request) -> int:
    """Return the seconds that the caller would wait, 0 to 60; what is no number counts as 0."""
    found = _WAIT.search(", ".join(request.headers.getlist("prefer")))
    return min(MAX_WAIT_S, int(found[1])) if found else 0


async def order(request: Request, do: Callable[[Connection], Accepted]) -> Response:
    """Enqueue an order and answer it: 200 when it is so or was done in time, else 202."""
    reply = await exchange.enqueue(request, lambda tx: _reply(do(tx)))
    body, wait_s = reply.body or {}, preferred_wait_s(request)
    if body["chain_id"] is None or not wait_s:
        return exchange.respond(reply)
    ended = await _wait(request, body["chain_id"], wait_s)
    if ended is not None:
        reply = replace(reply, status=200, body={**body, **views.result_json(ended)})
    return exchange.respond(reply, {"Preference-Applied": f"wait={wait_s}"})


def _reply(accepted: Accepted) -> Reply:
    body = views.accepted_json(accepted)
    if accepted.chain_id is None:
        return Reply(body)
    return Reply(body, 202, f"/api/v1/jobs/{accepted.job_ids[-1]}")


async def _wait(request: Request, chain_id: int, wait_s: int) -> ChainDetail | None:
    """Return the chain when it has ended; None = not in time, or the caller went away."""
    until_ms = monotonic_ms() + wait_s * 1000
    looks = 0

    def look(tx: Connection) -> ChainDetail:
        return chain_detail(tx, chain_id)

    while True:
        chain = await exchange.read(request, look)
        if is_finished([job.job.state for job in chain.jobs]):
            return chain
        left_s = (until_ms - monotonic_ms()) / 1000
        if left_s <= 0 or await request.is_disconnected():
            return None
        await anyio.sleep(min(left_s, LOOK_EVERY_S[min(looks, len(LOOK_EVERY_S) - 1)]))
        looks += 1
