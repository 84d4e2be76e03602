"""Where engines are spoken to: one event loop in a thread of its own, one client an engine.

Job threads hand their calls in and wait. A load that nobody waits for any more goes on here, so
that its late answer is still read (ADR-0007).
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from hal0.clock import monotonic_ms
from hal0.engines.base import Engine
from hal0.engines.connect import connect
from hal0.errors import EngineError, EngineTimeout
from hal0.registry.roster import EngineRow

T = TypeVar("T")
SLICE_S: Final = 0.2
Call = Callable[[Engine], Awaitable[T]]


class Stopping(Exception):  # noqa: N818  (not a failure: the worker was told to stop)
    """This process is about to exit; the job goes back to the queue."""


class EngineRoom:
    """The loop, its thread and its clients; one a process. `stopping` ends every wait."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._loop = asyncio.new_event_loop()
        self._clients: dict[tuple[str, str, str | None], Engine] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, name="engines", daemon=True)
        self._thread.start()

    def begin(self, row: EngineRow, call: Call[T]) -> "concurrent.futures.Future[T]":
        """Start a call without a deadline; the future belongs to who asked."""
        return asyncio.run_coroutine_threadsafe(self._call(row, call), self._loop)

    def ask(self, row: EngineRow, call: Call[T], timeout_s: float) -> T:
        """Make a call and wait for it.

        Raises EngineTimeout after `timeout_s` of wall time, Stopping when the process must exit.
        """
        future = self.begin(row, call)
        until_ms = monotonic_ms() + int(timeout_s * 1000)
        while not future.done():
            left_s = (until_ms - monotonic_ms()) / 1000
            if left_s <= 0:
                future.cancel()
                raise EngineTimeout(
                    f"engine {row.name} at {row.url} did not answer within {timeout_s:g} s"
                )
            if self._stopping.is_set():
                future.cancel()
                raise Stopping
            concurrent.futures.wait([future], min(SLICE_S, left_s))
        return future.result()

    def ask_all(
        self, row: EngineRow, calls: Sequence[Call[T]], timeout_s: float
    ) -> list[T | EngineError]:
        """Make calls at once and wait for all; what failed, or was too slow, is its error.

        Raises Stopping when the process must exit.
        """
        futures = [self.begin(row, call) for call in calls]
        until_ms = monotonic_ms() + int(timeout_s * 1000)
        while not all(future.done() for future in futures):
            left_s = (until_ms - monotonic_ms()) / 1000
            if left_s <= 0 or self._stopping.is_set():
                break
            concurrent.futures.wait(futures, min(SLICE_S, left_s))
        for future in futures:
            future.cancel()
        if self._stopping.is_set():
            raise Stopping
        return list(map(_outcome, futures))

    async def _call(self, row: EngineRow, call: Call[T]) -> T:
        key = (row.kind, row.url, row.key_file)
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = connect(row.kind, row.url, row.key_path)
        return await call(client)

    def close(self) -> None:
        """Stop the loop; what is under way there is dropped, as a death would."""

        async def wind_up() -> None:
            this = asyncio.current_task()
            others = [task for task in asyncio.all_tasks() if task is not this]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            for client in self._clients.values():
                await client.close()

        self._run_to_end(wind_up())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        if not self._thread.is_alive():
            self._loop.close()

    def _run_to_end(self, work: Coroutine[Any, Any, None]) -> None:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        concurrent.futures.wait([future], 5)


def _outcome(future: "concurrent.futures.Future[T]") -> T | EngineError:
    """Return what came of a call that is over or was given up; what is no engine's is raised."""
    try:
        return future.result()
    except concurrent.futures.CancelledError:
        return EngineTimeout("the engine did not answer in time")
    except EngineError as error:
        return error
