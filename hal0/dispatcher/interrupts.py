"""What ends a request from outside while it waits: its client leaves, its engine is too slow.

Nothing of it costs a timer or a task for a request that is answered at once. One timer looks at all
open requests of the process; whether a client is still there is heard by a listener of its own that
begins to listen when a request is open for the second look.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from starlette.types import Receive

from hal0.errors import Hal0Error

LOOK_S: Final = 0.1
"""How exact a limit is, in seconds."""
NEVER: Final = float("inf")


class ClientGoneError(Exception):
    """The client left; nobody is there to be told anything."""


class Sweep:
    """Looks at the open requests of the event loop that runs, as long as there are any."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._open: set[Interrupts] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, one: "Interrupts") -> None:
        """Look at a request from now on."""
        self._open.add(one)
        if self._timer is None:
            self._timer = self.loop.call_later(LOOK_S, self._look)

    def remove(self, one: "Interrupts") -> None:
        """Look at it no more."""
        self._open.discard(one)

    def _look(self) -> None:
        self._timer = self.loop.call_later(LOOK_S, self._look) if self._open else None
        now = self.loop.time()
        for one in tuple(self._open):
            one.look(now)


class Interrupts:
    """A block that others may end: then it raises what they gave as reason.

    Call `listen` when the body has been read: from then on `receive` is asked only here.
    """

    __slots__ = (
        "_broken",
        "_cancelled",
        "_due",
        "_has_body",
        "_is_known",
        "_late",
        "_listener",
        "_loop",
        "_reason",
        "_receive",
        "_sweep",
        "_task",
    )

    def __init__(self, receive: Receive, sweep: Sweep) -> None:
        self._receive = receive
        self._sweep = sweep
        self._loop = sweep.loop
        task = asyncio.current_task(sweep.loop)
        assert task is not None, "a request is served by a task"
        self._task = task
        self._cancelled = task.cancelling()
        self._reason: Exception | None = None
        self._listener: asyncio.Task[None] | None = None
        self._has_body = False
        self._is_known = False
        self._due = NEVER
        self._late: Callable[[], Hal0Error]
        self._broken: Callable[[], Hal0Error | None] | None = None

    def __enter__(self) -> Self:
        self._sweep.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._sweep.remove(self)
        if self._listener is not None:
            self._listener.cancel()
            self._listener = None  # which holds this: else both stay until a search for garbage
        if self._reason is None:
            return
        was_ours = self._task.uncancel() <= self._cancelled
        if was_ours and isinstance(exc, asyncio.CancelledError):
            raise self._reason from exc

    def listen(self) -> None:
        """Hear of a client that leaves, a moment from now."""
        self._has_body = True

    def expect_within(self, seconds: float, late: Callable[[], Hal0Error]) -> None:
        """Raise what `late` gives unless something is expected anew within so many seconds."""
        self._late = late
        self._due = self._loop.time() + seconds

    def expect_nothing(self) -> None:
        """Wait as long as it takes."""
        self._due = NEVER

    def ends_with(self, broken: Callable[[], Hal0Error | None]) -> None:
        """Raise what `broken` gives, as soon as it gives something while an answer is expected."""
        self._broken = broken

    def interrupt(self, reason: Exception) -> None:
        """End the block with this; the first reason counts."""
        if self._reason is None:
            self._reason = reason
            self._task.cancel()

    def look(self, now: float) -> None:
        """End the block if it is late; listen to the client if it lasts. `now` is the loop's."""
        if self._listener is None and self._has_body and self._is_known:
            self._listener = self._loop.create_task(self._listen())
        self._is_known = True
        if now >= self._due:
            self.interrupt(self._late())
        elif self._due != NEVER and self._broken and (error := self._broken()) is not None:
            self.interrupt(error)

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.interrupt(ClientGoneError())
