"""What the client of one request has been sent so far, and how an answer ends that cannot go on."""

from collections.abc import Awaitable

from starlette.types import Send

from hal0.dispatcher.openai_errors import last_event
from hal0.dispatcher.routing import Route
from hal0.dispatcher.upstream import Answer
from hal0.errors import Hal0Error


class Reply:
    """The way to one client."""

    __slots__ = ("_answer", "_route", "_send", "has_begun", "is_over")

    def __init__(self, send: Send, route: Route) -> None:
        self._send = send
        self._route = route
        self._answer: Answer | None = None
        self.has_begun = False
        """Whether the client may have seen something of an answer."""
        self.is_over = False
        """Whether the last of it is on its way to the client."""

    def begin(self, answer: Answer) -> Awaitable[None]:
        """Send the head of an answer."""
        self.has_begun = True
        self._answer = answer
        return self._send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": answer.headers,
            }
        )

    def part(self, chunk: bytes, *, is_last: bool) -> Awaitable[None]:
        """Send some bytes; waits for a client that reads slowly."""
        self.is_over = is_last
        return self._send({"type": "http.response.body", "body": chunk, "more_body": not is_last})

    async def break_off(self, error: Hal0Error) -> None:
        """End an answer that has begun: a stream of events with one that says why.

        Any other is left without its end: the server closes the connection, and so it is noticed.
        """
        if self._answer is not None and self._answer.is_events:
            event = last_event(error, is_typed=self._route.has_typed_events)
            await self.part(event, is_last=True)
