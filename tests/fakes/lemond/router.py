"""When the fake loads, evicts and unloads: lemond's rules, one load at a time in the whole process.

The rules are those of lemond 11.7 (router.cpp): a load goes on after its caller left; a load that
failed evicts everything, pinned models too, and is tried once more, unless its message says that
something was not found; a request to any model waits for the loads before it. The mutex is held
while models are looked up and while one is evicted, which takes as long as its requests do: health,
requests, loads and unloads then wait. It is free while a backend starts.
"""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hal0.clock import monotonic_ms
from tests.fakes.lemond import options
from tests.fakes.lemond.backend import NOT_STARTED, Backend, LoadError
from tests.fakes.lemond.catalog import Catalog, Definition
from tests.fakes.lemond.script import ModelScript, Told, until

NO_EVICTION = ("not found", "does not exist", "No such file")
FIRST_PID = 1 << 23  # beyond any real pid: nobody can be hurt by a signal to one

Fetch = Callable[[Definition], Awaitable[None]]


class Router:
    """What is loaded, and the one load that runs."""

    def __init__(
        self,
        catalog: Catalog,
        told: Told,
        fetch: Fetch,
        opened: Callable[[str, Path], None] | None = None,
    ) -> None:
        self.catalog = catalog
        self.told = told
        self.loaded: dict[str, Backend] = {}
        self.loading: str | None = None
        self.evicting: str | None = None
        self.waiting = 0
        self.mutex = asyncio.Lock()
        self._fetch = fetch
        self._opened = opened
        self._turn = asyncio.Lock()
        self._pids = itertools.count(FIRST_PID)
        self._attempts: dict[str, int] = {}
        self._died: dict[str, Backend] = {}
        self._tasks: set[asyncio.Task[Backend]] = set()

    def most_recent(self) -> Backend | None:
        """Return the model that was wanted last."""
        return max(self.loaded.values(), key=lambda each: each.last_use, default=None)

    def begin(self, definition: Definition, body: Mapping[str, Any]) -> asyncio.Task[Backend]:
        """Load a model in a task of its own: who asked may leave, it goes on."""
        task = asyncio.create_task(self._load(definition, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def load(self, definition: Definition, body: Mapping[str, Any]) -> Backend:
        """Load a model, after fetching what is missing; raises LoadError."""
        return await asyncio.shield(self.begin(definition, body))

    async def _load(self, definition: Definition, body: Mapping[str, Any]) -> Backend:
        if not self.catalog.is_downloaded(definition):
            await self._fetch(definition)
        self.waiting += 1
        async with self._turn:
            self.waiting -= 1
            self.loading = self.catalog.public(definition)
            try:
                return await self._load_in_turn(definition, body)
            finally:
                self.loading = None

    async def _load_in_turn(self, definition: Definition, body: Mapping[str, Any]) -> Backend:
        name = self.catalog.public(definition)
        saved = self.catalog.saved.get(name, {})
        wanted = options.resolved(body, saved, self.told.script.ctx_size)
        kind = self.catalog.type(definition)
        async with self.mutex:
            present = self.loaded.get(name)
            if present is not None:
                if present.options == wanted:
                    present.touch()
                    present.pinned = bool(body.get("pinned", present.pinned))
                    return present
                await self._evict(present)
            await self._make_room(kind)
        backend = Backend(name, kind, self.catalog.checkpoint(definition), wanted, next(self._pids))
        backend.pinned = bool(body.get("pinned"))
        await self._start_or_evict_all(definition, backend)
        self._died.pop(name, None)
        if self._behaviour(name).load != "pretend":
            self.loaded[name] = backend
        return backend

    async def _start_or_evict_all(self, definition: Definition, backend: Backend) -> None:
        """Start the backend; when that fails, drop every model and try once more."""
        name = backend.name
        self._attempts[name] = self._attempts.get(name, 0) + 1
        try:
            await self._start(definition, backend)
        except LoadError as exc:
            if not self._evicts(name, str(exc)):
                raise
            await self.evict_all()
            await self._start(definition, backend, is_retry=True)
        else:
            backend.last_use = monotonic_ms()  # a retry leaves the time of the first start

    async def _start(
        self, definition: Definition, backend: Backend, is_retry: bool = False
    ) -> None:
        """Do what the backend process would do until it is healthy, or raise."""
        options.check(backend.options)
        path = self.catalog.path(definition)
        if self._behaviour(backend.name).load == "die":
            os._exit(9)
        if self._opened is not None and path.is_file():
            self._opened(backend.name, path)
        await asyncio.sleep(self._behaviour(backend.name).load_delay_s)
        if not (is_retry and self._behaviour(backend.name).retry_works):
            await self._do_as_told(backend.name)
        if not self.catalog.starts(definition):
            raise LoadError(NOT_STARTED)

    async def _do_as_told(self, name: str) -> None:
        try:
            async with asyncio.timeout(self.told.script.global_timeout_s):
                await until(lambda: self._behaviour(name).load not in {"hang", "dribble"})
        except TimeoutError as exc:
            raise LoadError(NOT_STARTED) from exc
        message = self._behaviour(name).load_fail
        if message is not None:
            raise LoadError(message)

    def _behaviour(self, name: str) -> ModelScript:
        script = self.told.of(name)
        if script.load_times is not None and self._attempts.get(name, 0) > script.load_times:
            return script.model_copy(update={"load": "ok", "load_fail": None})
        return script

    def _evicts(self, name: str, message: str) -> bool:
        said = self._behaviour(name).load_evicts
        return said if said is not None else not any(text in message for text in NO_EVICTION)

    async def _make_room(self, kind: str) -> None:
        """Drop the least recently used models of the pool until one more fits."""
        limit = self.told.script.max_loaded_models
        while True:
            pool = [each for each in self.loaded.values() if each.type == kind]
            if limit < 0 or len(pool) < limit:
                return
            victims = [each for each in pool if not each.pinned]
            if not victims:
                raise LoadError(
                    f"All loaded models of type standard/{kind} are pinned. Unload a model first.",
                    "slots_pinned_error",
                )
            await self._evict(min(victims, key=lambda each: each.last_use))

    async def _evict(self, backend: Backend, has_grace: bool = False) -> None:
        """Wait for the model's requests, then drop it; with a grace, a busy one is left in the end.

        Needs the mutex.
        """
        began = monotonic_ms()

        def is_over() -> bool:
            return monotonic_ms() - began >= self.told.script.evict_grace_s * 1000

        self.evicting = backend.name
        try:
            await until(lambda: not backend.active or (has_grace and is_over()))
            if backend.active and not backend.has_died:
                return
            await asyncio.sleep(self.told.of(backend.name).unload_delay_s)
            if self.loaded.get(backend.name) is backend:
                del self.loaded[backend.name]
        finally:
            self.evicting = None

    async def evict_all(self) -> None:
        """Drop every model of every pool, pinned or not, but those that stay busy."""
        async with self.mutex:
            for backend in list(self.loaded.values()):
                await self._evict(backend, has_grace=True)

    async def evict_idle(self, name: str) -> None:
        """Drop a model unless a request came meanwhile."""
        async with self.mutex:
            backend = self.loaded.get(name)
            if backend is not None and not backend.active:
                await self._evict(backend)

    async def unload(self, name: str) -> bool:
        """Unload one model; False = it is not loaded (also while it is being loaded)."""
        await until(lambda: self.told.of(name).unload != "hang" or name not in self.loaded)
        async with self.mutex:
            backend = self.loaded.get(name)
            if backend is None:
                return False
            await self._evict(backend)
            return True

    def kill(self, name: str) -> None:
        """Let the model's backend die: health lists it no more, and nobody reloads it by itself."""
        backend = self.loaded.pop(name, None)
        if backend is not None:
            backend.has_died = True
            self._died[name] = backend

    @asynccontextmanager
    async def request(
        self, definition: Definition, body: Mapping[str, Any]
    ) -> AsyncIterator[Backend]:
        """Stamp a request on a model, which is loaded first when it is not; raises LoadError.

        A model whose backend died comes back with the options that it had.
        """
        async with self._turn:
            pass
        name = self.catalog.public(definition)
        async with self.mutex:
            backend = self.loaded.get(name)
        if backend is None:
            died = self._died.get(name)
            backend = await self.load(definition, died.options if died else body)
        backend.touch()
        backend.active += 1
        try:
            yield backend
        finally:
            backend.active -= 1
