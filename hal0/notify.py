"""What the service manager is told of this process: it serves, it stops, it works (sd_notify).

The protocol is one datagram of lines to the socket that NOTIFY_SOCKET names; outside of a service
manager nothing is said. What carries the notice may fail, but never the process that gives it.

Own code where there are libraries: `sdnotify` was left alone in 2017 and knows no watchdog, and
`systemd-watchdog` counts by the wall clock: set back an hour, it would feed nothing for an hour.
"""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from hal0.clock import monotonic_ms
from hal0.errors import Hal0Error

log = logging.getLogger(__name__)

SEND_S: Final = 1.0
"""How long a manager that does not read may hold up who tells it something."""
MEALS: Final = 3
"""So often in its time the watchdog is fed: one that comes late, after a slow look, is in time."""


def ready(status: str) -> None:
    """Tell that this process serves from now on, and in one line what."""
    _tell("READY=1", f"STATUS={' '.join(status.split())}")


def stopping() -> None:
    """Tell that this process was told to stop, and does."""
    _tell("STOPPING=1")


class Watchdog:
    """The manager's watchdog over this process, which it kills when it was not fed in time."""

    def __init__(self) -> None:
        self.every_s = _every_s()
        """Seconds between two meals; None = nobody watches this process."""
        self._next_ms = 0
        self._is_starving = False

    def feed_if_due(self, look: Callable[[], object]) -> None:
        """Feed it if it is time and `look` finds that the process can work.

        `look` raises one of our errors when it cannot: then it looks again the next time.
        """
        now = monotonic_ms()
        if self.every_s is None or now < self._next_ms:
            return
        try:
            look()
        except Hal0Error as error:
            if not self._is_starving:
                log.error("the watchdog is not fed until this has passed: %s", error)
            self._is_starving = True
            return
        self._is_starving = False
        _tell("WATCHDOG=1")
        self._next_ms = now + int(self.every_s * 1000)


@asynccontextmanager
async def serving(status: str, look: Callable[[], object]) -> AsyncIterator[None]:
    """Be ready, and feed the watchdog from this event loop, until the block is left: then stop.

    `look` is called in a thread, as `Watchdog.feed_if_due` does. A loop that hangs feeds nothing,
    and neither does a look that does not come back.
    """
    ready(status)
    feeding = asyncio.create_task(_keep_feeding(look))
    try:
        yield
    finally:
        stopping()
        feeding.cancel()


async def _keep_feeding(look: Callable[[], object]) -> None:
    watchdog = Watchdog()
    while watchdog.every_s is not None:
        await asyncio.to_thread(watchdog.feed_if_due, look)
        await asyncio.sleep(watchdog.every_s / 2)


def _every_s() -> float | None:
    watched = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    usec = os.environ.get("WATCHDOG_USEC", "")
    if watched != str(os.getpid()) or not usec.isdecimal() or int(usec) == 0:
        return None
    return int(usec) / 1_000_000 / MEALS


def _tell(*lines: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(SEND_S)
            sender.sendto("\n".join(lines).encode(), address)
    except OSError as error:
        log.warning("the service manager was not told %s: %s", lines[0], error)
