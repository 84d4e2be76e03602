"""What a handler takes from its request and gives back: body, query, who asks, the database.

SQLite is reached through a thread, so the event loop never waits for a disk. One reading endpoint
is one `db.read()`: what it shows is one consistent view.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn, TypeVar, cast

from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from hal0 import points
from hal0.db import Database
from hal0.errors import InvalidRequest, NotJson, TooLarge
from hal0.jobs import bell
from hal0.jobs.ledger.rows import By
from hal0.settings import Settings
from hal0.slots.transitions import Act

MAX_BODY_BYTES: Final = 1 << 20
T = TypeVar("T")
S = TypeVar("S", bound=BaseModel)


def settings_of(request: Request) -> Settings:
    """Return the settings of this process."""
    return cast(Settings, request.app.state.settings)


def database_of(request: Request) -> Database:
    """Return the database of this process."""
    return cast(Database, request.app.state.db)


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


async def change(request: Request, do: Callable[[Connection], T]) -> T:
    """Run `do` in a thread, in one transaction whose commit is on disk when this returns."""

    def in_thread() -> T:
        with database_of(request).write() as tx:
            return do(tx)

    return await run_in_threadpool(in_thread)


async def enqueue(request: Request, do: Callable[[Connection], T]) -> T:
    """Do as `change`, then wake the workers."""

    def in_thread() -> T:
        with database_of(request).write() as tx:
            done = do(tx)
        points.reach("api.enqueued")
        bell.ring(settings_of(request).run)
        return done

    return await run_in_threadpool(in_thread)


async def body_of(request: Request, schema: type[S]) -> S:
    """Return the checked body; none at all counts as `{}`.

    Raises TooLarge, NotJson, and InvalidRequest that lists every bad field.
    """
    return validated(schema, _json_object(await _bytes(request)))


def query_of(request: Request, schema: type[S]) -> S:
    """Return the checked query. Raises InvalidRequest that lists every bad parameter."""
    pairs = request.query_params.multi_items()
    twice = sorted({name for name, _ in pairs if len(request.query_params.getlist(name)) > 1})
    if twice:
        refuse([{"field": name, "problem": "is given twice"} for name in twice])
    return validated(schema, dict(pairs))


def validated(schema: type[S], values: Mapping[str, Any]) -> S:
    """Return `values` as `schema`; raises InvalidRequest."""
    try:
        return schema.model_validate(values)
    except ValidationError as exc:
        found = exc.errors(include_url=False, include_context=False, include_input=False)
        refuse(
            [
                {
                    "field": ".".join(map(str, error["loc"])),
                    "problem": error["msg"].removeprefix("Value error, "),
                }
                for error in found
            ]
        )


def refuse(fields: list[dict[str, str]]) -> NoReturn:
    """Raise InvalidRequest that names these fields."""
    detail = "; ".join(
        f"{field['field']}: {field['problem']}" if field["field"] else field["problem"]
        for field in fields
    )
    raise InvalidRequest(detail, evidence={"fields": fields})


async def _bytes(request: Request) -> bytes:
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _too_large()
    return bytes(body)


def _too_large() -> TooLarge:
    return TooLarge(
        f"the body is larger than {MAX_BODY_BYTES} bytes", evidence={"limit_bytes": MAX_BODY_BYTES}
    )


def _json_object(text: bytes) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        value = json.loads(text.decode(), parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as exc:
        raise NotJson(f"the body is not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise NotJson("the body must be a JSON object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    kept = {"Cache-Control": "no-store", **(headers or {})}
    return Response(text, status, kept, "application/json")
