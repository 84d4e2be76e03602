"""What a handler takes from its request and gives back: body, query, who asks, the database.

SQLite is reached through a thread, so the event loop never waits for a disk. One reading endpoint
is one `db.read()`: what it shows is one consistent view.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

from pydantic import BaseModel
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from hal0 import points
from hal0.api.idempotency import REPLAYED, Once, Reply, digest_of, done_once, key_in
from hal0.api.json_body import json_object
from hal0.api.pulse import Pulse
from hal0.api.schemas import Query
from hal0.db import Database
from hal0.errors import DatabaseError
from hal0.jobs import bell
from hal0.jobs.ledger.rows import By
from hal0.refusals import refused, validated
from hal0.settings import Settings
from hal0.slots.transitions import Act

T = TypeVar("T")
S = TypeVar("S", bound=BaseModel)


def settings_of(request: Request) -> Settings:
    """Return the settings of this process."""
    return cast(Settings, request.app.state.settings)


def database_of(request: Request) -> Database:
    """Return the database of this process."""
    return cast(Database, request.app.state.db)


def pulse_of(request: Request) -> Pulse:
    """Return the pulse of this process."""
    return cast(Pulse, request.app.state.pulse)


def by(request: Request) -> By:
    """Return who asks, as chains keep it."""
    return By(request.state.actor, request.state.request_id)


def act(request: Request) -> Act:
    """Return who asks, as audit rows keep it."""
    return Act(request.state.actor, request_id=request.state.request_id)


async def read(request: Request, look: Callable[[Connection], T]) -> T:
    """Run `look` in a thread, on one consistent view."""

    def in_thread() -> T:
        with database_of(request).read() as tx:
            return look(tx)

    return await run_in_threadpool(in_thread)


async def change(
    request: Request,
    do: Callable[[Connection], Reply],
    around: AbstractContextManager[None] | None = None,
) -> Reply:
    """Run `do` in a thread, in one transaction whose commit is on disk when this returns.

    A POST that was done before under its Idempotency-Key is not done again. `around` is entered in
    the thread, before the transaction.
    """

    def in_thread() -> Reply:
        with around or nullcontext():
            return _changed(request, do)

    return await run_in_threadpool(in_thread)


async def enqueue(request: Request, do: Callable[[Connection], Reply]) -> Reply:
    """Do as `change`, then wake the workers."""

    def in_thread() -> Reply:
        reply = _changed(request, do)
        if not reply.is_replayed:
            points.reach("api.enqueued")
            bell.ring(settings_of(request).run)
        return reply

    return await run_in_threadpool(in_thread)


def _changed(request: Request, do: Callable[[Connection], Reply]) -> Reply:
    once = _once(request)
    try:
        with database_of(request).write() as tx:
            return do(tx) if once is None else done_once(tx, once, do)
    except DatabaseError as error:
        pulse_of(request).doubt(error)
        raise


def _once(request: Request) -> Once | None:
    """Return under which key this request is done; other methods than POST can be repeated."""
    key = key_in(request.headers) if request.method == "POST" else None
    if key is None:
        return None
    said = digest_of(request.method, request.scope["path"], request.state.body)
    return Once(request.state.actor, key, said)


async def body_of(request: Request, schema: type[S]) -> S:
    """Return the checked body; none at all counts as `{}`. A POST reads it before it changes.

    Raises TooLarge, TooSlow, NotJsonType, NotJson, and InvalidRequest that lists every bad field.
    """
    query_of(request, Query)
    within_s = settings_of(request).request_timeout_s
    request.state.body = await json_object(request, within_s)
    return validated(schema, request.state.body)


def query_of(request: Request, schema: type[S]) -> S:
    """Return the checked query. Raises InvalidRequest that lists every bad parameter."""
    pairs = request.query_params.multi_items()
    times = Counter(name for name, _ in pairs)
    twice = sorted(name for name in times if times[name] > 1)
    if twice:
        raise refused([(name, "is given twice") for name in twice])
    return validated(schema, dict(pairs))


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer; half a surrogate pair in a row, which UTF-8 has not, is escaped."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    kept = {"Cache-Control": "no-store", **(headers or {})}
    return Response(text.encode(errors="backslashreplace"), status, kept, "application/json")


def respond(reply: Reply, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer to a change."""
    more = {} if reply.location is None else {"Location": reply.location}
    if reply.is_replayed:
        more[REPLAYED] = "true"
    if reply.body is None:
        return Response(status_code=reply.status, headers=more)
    return answer(reply.body, reply.status, {**more, **(headers or {})})
