"""Which models are loaded: one load at a time, in the order asked; a failed one costs only itself.

Loads and unloads run in tasks of their own: who asked may leave, they go on. An unload lets the
model's running requests end, at most `DRAIN_S`, and no new one in. A model whose process died is
gone from the list at once.
"""

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from hal0.clock import monotonic_ms
from hal0.embedded.catalog import PREFIX, Identity, ModelFiles
from hal0.embedded.options import LoadOptions
from hal0.embedded.process import Child, StartError

log = logging.getLogger(__name__)
T = TypeVar("T")

LOAD_LIMIT_S: Final = 600.0
"""Seconds that a child gets to load its model; settings.default_settle_s counts on it."""
DRAIN_S: Final = 50.0
"""Less than HAL0_UNLOAD_TIMEOUT_S (60): the answer comes before hal0 stops waiting for it."""


class LoadError(Exception):
    """The model could not be loaded; the text says why."""


class NotLoadedError(Exception):
    """The model is not loaded, or is being unloaded."""


@dataclass(slots=True, eq=False)
class Resident:
    """One loaded model; `last_use` is the start of the latest request, monotonic ms."""

    files: ModelFiles
    identity: Identity
    options: LoadOptions
    child: Child
    is_pinned: bool = False
    last_use: int = field(default_factory=monotonic_ms)
    active: int = 0
    streaming: int = 0
    leaving: asyncio.Task[None] | None = None
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        """The public name."""
        return self.files.name

    def serves(self, options: LoadOptions, identity: Identity) -> bool:
        """Whether a load with these options of these files would change nothing."""
        return self.leaving is None and (self.options, self.identity) == (options, identity)


class Residents:
    """The loaded models of one engine; lives in one event loop."""

    def __init__(self) -> None:
        self._loaded: dict[str, Resident] = {}
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    def list(self) -> list[Resident]:
        """Return the loaded models whose process lives, the latest used first."""
        living = [resident for resident in self._loaded.values() if resident.child.is_alive]
        return sorted(living, key=lambda resident: resident.last_use, reverse=True)

    async def load(
        self, files: ModelFiles, options: LoadOptions, is_pinned: bool | None
    ) -> Resident:
        """Load a model, or find it loaded from the same files with the same options.

        `is_pinned` None keeps the pin. Raises LoadError.
        """
        return await asyncio.shield(self._spawn(self._load_in_turn(files, options, is_pinned)))

    async def unload(self, name: str) -> bool:
        """Unload a model; False = it is not loaded, as is one that is still being loaded."""
        resident = self._find(name)
        if resident is None:
            return False
        await self._retire(resident)
        return True

    @contextmanager
    def request(self, name: str) -> Iterator[Resident]:
        """Hold a model for one request; raises NotLoadedError."""
        resident = self._find(name)
        if resident is None or resident.leaving is not None:
            raise NotLoadedError(name)
        resident.last_use = monotonic_ms()
        resident.active += 1
        resident.idle.clear()
        try:
            yield resident
        finally:
            resident.active -= 1
            if resident.active == 0:
                resident.idle.set()

    async def close(self) -> None:
        """Give up loads under way and end every process, without waiting for requests."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(resident.child.stop() for resident in self._loaded.values()))

    def _find(self, name: str) -> Resident | None:
        resident = self._loaded.get(name.removeprefix(PREFIX))
        return resident if resident is not None and resident.child.is_alive else None

    async def _load_in_turn(
        self, files: ModelFiles, options: LoadOptions, is_pinned: bool | None
    ) -> Resident:
        async with self._turn:
            present = self._find(files.name)
            try:
                identity = files.identity()
                if present is not None and present.serves(options, identity):
                    present.last_use = monotonic_ms()
                    present.is_pinned = _either(is_pinned, present.is_pinned)
                    return present
                if present is not None:
                    await self._retire(present)
                async with asyncio.timeout(LOAD_LIMIT_S):
                    child = await Child.start(files, options)
            except (StartError, OSError) as exc:
                raise LoadError(str(exc)) from exc
            except TimeoutError as exc:
                raise LoadError(f"llama.cpp did not start within {LOAD_LIMIT_S:g} s") from exc
            was_pinned = present is not None and present.is_pinned
            pin = _either(is_pinned, was_pinned)
            resident = Resident(files, identity, options, child, pin)
            resident.idle.set()
            self._loaded[files.name] = resident
            self._spawn(self._watch(resident))
            log.info("loaded %s: process %s at %s", files.name, child.pid, child.url)
            return resident

    async def _retire(self, resident: Resident) -> None:
        if resident.leaving is None:
            resident.leaving = self._spawn(self._drain_and_stop(resident))
        await asyncio.shield(resident.leaving)

    async def _drain_and_stop(self, resident: Resident) -> None:
        try:
            async with asyncio.timeout(DRAIN_S):
                await resident.idle.wait()
        except TimeoutError:
            log.warning("unloading %s with %d running requests", resident.name, resident.active)
        await resident.child.stop()
        self._forget(resident)

    async def _watch(self, resident: Resident) -> None:
        code = await resident.child.wait()
        self._forget(resident)
        if resident.leaving is None:
            words = resident.child.last_words()[-500:]
            log.error("the process of %s died with exit code %s: %s", resident.name, code, words)

    def _forget(self, resident: Resident) -> None:
        if self._loaded.get(resident.name) is resident:
            del self._loaded[resident.name]

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task


def _either(said: bool | None, otherwise: bool) -> bool:
    return otherwise if said is None else said
