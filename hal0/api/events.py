"""What happens, as a stream of server-sent events that can be taken up again where it broke off.

    (none)               snapshot, then what happens
    Last-Event-ID here   the rows behind it, however old, then a snapshot, then what happens
    any other            reset, which says why, then as with none

Rows have an id, so that each is told exactly once; all else says how something is now, and the
snapshot makes up for what was missed of it. A stream has no end of its own: it ends with the
client, with the server, and with the token that let it in.
"""

import logging
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final, Self

import anyio
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from hal0.api import exchange
from hal0.api.feed import Batch, Feed, Listener, Start
from hal0.api.news import encoded, event
from hal0.api.schemas import EventsQuery
from hal0.errors import DatabaseError

log = logging.getLogger(__name__)

RETRY: Final = b"retry: 2000\n\n"
PING: Final = b": ping\n\n"
MEDIA_TYPE: Final = "text/event-stream"
HEADERS: Final = {
    "Content-Type": MEDIA_TYPE,
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # a proxy that collects would make it no stream
}
_ID: Final = re.compile(r"(\d{1,18})-(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Place:
    """The id of the last event that a client has."""

    epoch: int
    transition_id: int

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Read an id as it stands in events; None for what is none."""
        found = _ID.fullmatch(text)
        return None if found is None else cls(int(found[1]), int(found[2]))


class Stream:
    """An answer that goes on: told to one client, by the right of `actor`."""

    def __init__(self, feed: Feed, actor: str, last_event_id: str | None) -> None:
        self._feed = feed
        self._actor = actor
        self._last_event_id = last_event_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client leaves, or the stream is ended. Raises TooManyStreams."""
        with self._feed.listen(self._actor) as listener:
            headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            if scope["method"] != "HEAD":
                await self._until_gone(listener, receive, send)
        await send({"type": "http.response.body"})

    async def _until_gone(self, listener: Listener, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as group:

            async def wait_for_the_end() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                group.cancel_scope.cancel()

            group.start_soon(wait_for_the_end)
            async for data in self._events(listener):
                await send({"type": "http.response.body", "body": data, "more_body": True})
            group.cancel_scope.cancel()

    async def _events(self, listener: Listener) -> AsyncIterator[bytes]:
        yield RETRY
        has, at, epoch = self._last_event_id, None, 0
        if has is not None:
            at = Place.read(has)
            if at is None:
                yield _reset(f"{has[:60]!r} is no id of an event")
        while not listener.is_ended:
            told = await listener.next(self._feed.ping_s)
            if told is None:
                yield PING
            elif isinstance(told, Batch):
                yield told.data
                at = Place(epoch, told.last_id)
            else:
                try:
                    async for data in self._up_to(told, at):
                        yield data
                except DatabaseError as error:
                    log.warning("a stream of events is broken off: %s", error.detail)
                    return  # who comes back with its last id misses nothing
                epoch = told.epoch
                at = Place(epoch, told.last_id)

    async def _up_to(self, start: Start, at: Place | None) -> AsyncIterator[bytes]:
        """Tell the rows that a client at `at` has not, then how everything is."""
        why = None if at is None else _broken(start, at)
        behind = start.last_id if at is None or why else at.transition_id
        while behind < start.last_id:
            page = await self._feed.page(start.epoch, behind, start.last_id)
            if page.data:
                yield page.data
            behind = page.last_id
            if page.is_gap:
                why = f"rows behind {start.epoch}-{behind} were pruned"
                break
        if why:
            yield _reset(why)
        yield start.snapshot


def _broken(start: Start, at: Place) -> str | None:
    """Say why a stream cannot go on where a client was; None = it can."""
    if at.epoch != start.epoch:
        return f"{at.epoch}-{at.transition_id} is of another boot; this is {start.epoch}"
    if at.transition_id > start.last_id:
        return f"{at.epoch}-{at.transition_id} is not there; the newest is {start.last_id}"
    return None


def _reset(why: str) -> bytes:
    return event("reset", encoded({"why": why}))


async def stream_events(request: Request) -> Any:
    """Tell what happens, as server-sent events; `Last-Event-ID` takes a stream up again."""
    query = exchange.query_of(request, EventsQuery)
    last_event_id = request.headers.get("last-event-id") or query.last_event_id
    return Stream(request.app.state.feed, request.state.actor, last_event_id)


ROUTES = [Route("/api/v1/events", stream_events, methods=["GET"])]
