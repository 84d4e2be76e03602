"""How long a connection waits for its client: to ask, and to read what it is answered.

Who goes on reading is not broken off, however slowly. The kernel keeps megabytes of an answer and
takes no more of it until a third has arrived, which may last; so what has arrived is asked of it.
Who lets nothing arrive for so long is broken off: to close would wait for ever.
"""

import asyncio
import fcntl
import struct
import termios
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

NEVER: Final = float("inf")


class TimedProtocol(HttpToolsProtocol):
    """uvicorn's, with one deadline for the next of a request, and an eye on who does not read."""

    limit_s: ClassVar[float]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._due = NEVER
        self._unread: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._cancel_deadline()
        self._stop_watching()
        super().connection_lost(exc)

    def _is_late(self) -> None:
        """Do what is to be done when the deadline is over."""
        raise NotImplementedError

    def _set_deadline(self, sooner_s: float | None = None) -> None:
        """Set when to end; a timer that runs looks at it in time, for it was set before."""
        limit_s = sooner_s or self.limit_s
        self._due = self.loop.time() + limit_s
        if sooner_s is not None:
            self._cancel_deadline()
        if self._deadline is None:
            self._deadline = self.loop.call_later(limit_s, self._look_at_deadline)

    def _look_at_deadline(self) -> None:
        self._deadline = None
        left_s = self._due - self.loop.time()
        if left_s <= 0:
            self._is_late()
        elif left_s != NEVER:
            self._deadline = self.loop.call_later(left_s, self._look_at_deadline)

    def _clear_deadline(self) -> None:
        self._due = NEVER

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def pause_writing(self) -> None:
        """Give whoever does not read an answer so long to read some of it."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Go on: enough was read. Behind the last of all nobody else looks after the rest."""
        if not self.transport.is_closing():
            self._stop_watching()
        super().resume_writing()

    def _close(self) -> None:
        """Close when all was read; the deadline comes to who does not read it."""
        self.transport.close()
        self._set_deadline()

    def _watch(self) -> None:
        """Break the connection off as soon as nothing arrives for so long."""
        if self._unread is None:
            self._look_after(self._count_unread())

    def _look_after(self, unread_bytes: int) -> None:
        self._unread = self.loop.call_later(self.limit_s, self._look_again, unread_bytes)

    def _look_again(self, before_bytes: int) -> None:
        now_bytes = self._count_unread()
        if now_bytes >= before_bytes:
            self.transport.abort()
        else:
            self._look_after(now_bytes)

    def _stop_watching(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _count_unread(self) -> int:
        """Return how many bytes wait for the client to take them, here and in the kernel."""
        connection = self.transport.get_extra_info("socket")
        told = fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(struct.calcsize("i")))
        return self.transport.get_write_buffer_size() + int(struct.unpack("i", told)[0])
