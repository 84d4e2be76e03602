"""When the fake loads, evicts and unloads: lemond's rules, one load at a time in the whole process.

The rules are those of lemond 11.7 (router.cpp): a load goes on after its caller left; a load that
failed evicts everything, pinned models too, unless its message says that something was not found;
a chat to any model waits for a running load; an unload waits for the model's requests and holds
health up meanwhile; last use is stamped at the start of a request.
"""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hal0.clock import monotonic_ms
from tests.fakes.lemond.gguf_check import Verdict, judge
from tests.fakes.lemond.script import ModelScript, Script, until

NO_EVICTION = ("not found", "does not exist", "No such file")
NOT_DOWNLOADED = "CURL error: Couldn't resolve host name"
NOT_STARTED = "llama-server failed to start"
RESERVED_ARGS = ("--port", "--model", "-m", "--ctx-size", "-c", "--device", "--metrics", "--jinja")
FIRST_PID = 1 << 23  # beyond any real pid: nobody can be hurt by a signal to one


class LoadError(Exception):
    """A load failed; `code` is lemond's, and gives the status."""

    def __init__(self, message: str, code: str = "model_load_error") -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Backend:
    """One loaded model."""

    name: str
    checkpoint: str
    options: dict[str, Any]
    pid: int
    pinned: bool = False
    last_use: int = field(default_factory=monotonic_ms)
    active: int = 0
    streaming: int = 0


class Router:
    """What is loaded, and the one load that runs."""

    def __init__(
        self, models: Path, script: Script, opened: Callable[[str, Path], None] | None = None
    ) -> None:
        self.models = models
        self.script = script
        self._opened = opened
        self.loaded: dict[str, Backend] = {}
        self.loading: str | None = None
        self.waiting = 0
        self.mutex = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._pids = itertools.count(FIRST_PID)
        self._attempts: dict[str, int] = {}
        self._tasks: set[asyncio.Task[Backend]] = set()

    def files(self) -> dict[str, Path]:
        """Return name -> file of the models folder, as `extra_models_dir` names them."""
        found = {path.stem: path for path in sorted(self.models.glob("*.gguf"))}
        for folder in sorted(path for path in self.models.iterdir() if path.is_dir()):
            for path in sorted(folder.glob("*.gguf"), reverse=True):
                if not path.name.startswith("mmproj"):
                    found[folder.name] = path
        return found

    def public_name(self, name: str) -> str:
        """Return the name without its prefix."""
        return name.removeprefix("extra.").removeprefix("user.")

    def checkpoint(self, name: str) -> str:
        """Return the file that a load of this model opens."""
        return self.script.of(name).checkpoint or str(self.files()[name].resolve())

    async def load(self, name: str, body: dict[str, Any]) -> Backend:
        """Load a model in a task of its own: who asked may leave, it goes on."""
        task = asyncio.create_task(self._load(name, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _load(self, name: str, body: dict[str, Any]) -> Backend:
        self.waiting += 1
        async with self._turn:
            self.waiting -= 1
            self.loading = name
            try:
                return await self._load_in_turn(name, body)
            finally:
                self.loading = None

    async def _load_in_turn(self, name: str, body: dict[str, Any]) -> Backend:
        options = _options(body)
        present = self.loaded.get(name)
        if present is not None:
            if present.options == options:
                present.last_use = monotonic_ms()
                present.pinned = body.get("pinned", present.pinned)
                return present
            await self._evict(present, None)
        await self._make_room()
        if judge(self.files().get(name, self.models / name)) is Verdict.NO_GGUF:
            raise LoadError(NOT_DOWNLOADED)
        self._attempts[name] = self._attempts.get(name, 0) + 1
        try:
            await self._start(name, body)
        except LoadError as exc:
            if not self._evicts(name, str(exc)):
                raise
            await self.evict_all()
            await self._start(name, body)
        backend = Backend(name, self.checkpoint(name), options, next(self._pids))
        backend.pinned = bool(body.get("pinned"))
        self.loaded[name] = backend
        return backend

    async def _start(self, name: str, body: dict[str, Any]) -> None:
        """Do what the backend process would do until it is healthy, or raise."""
        _check_options(body)
        if self._behaviour(name).load == "die":
            os._exit(9)
        if self._opened is not None and name in self.files():
            self._opened(name, self.files()[name])
        await asyncio.sleep(self._behaviour(name).load_delay_s)
        try:
            async with asyncio.timeout(self.script.global_timeout_s):
                await until(lambda: self._behaviour(name).load not in {"hang", "dribble"})
        except TimeoutError as exc:
            raise LoadError(NOT_STARTED) from exc
        message = self._behaviour(name).load_fail
        if message is not None:
            raise LoadError(message)
        if judge(self.files().get(name, self.models / name)) is not Verdict.GOOD:
            raise LoadError(NOT_STARTED)

    def _behaviour(self, name: str) -> ModelScript:
        script = self.script.of(name)
        if script.load_times is not None and self._attempts.get(name, 0) > script.load_times:
            return script.model_copy(update={"load": "ok", "load_fail": None})
        return script

    def _evicts(self, name: str, message: str) -> bool:
        said = self._behaviour(name).load_evicts
        return said if said is not None else not any(text in message for text in NO_EVICTION)

    async def _make_room(self) -> None:
        limit = self.script.max_loaded_models
        while 0 <= limit <= len(self.loaded):
            victims = [backend for backend in self.loaded.values() if not backend.pinned]
            if not victims:
                raise LoadError(
                    "All loaded models of type standard/llm are pinned. Unload a model first.",
                    "slots_pinned_error",
                )
            await self._evict(min(victims, key=lambda backend: backend.last_use), None)

    async def _evict(self, backend: Backend, grace_s: float | None) -> None:
        """Wait for the model's requests, then drop it; after the grace a busy one is left."""
        async with self.mutex:
            try:
                async with asyncio.timeout(grace_s):
                    await until(lambda: not backend.active)
            except TimeoutError:
                return
            if self.loaded.get(backend.name) is backend:
                del self.loaded[backend.name]

    async def evict_all(self) -> None:
        """Drop every model, pinned or not, but those that stay busy."""
        for backend in list(self.loaded.values()):
            await self._evict(backend, self.script.evict_grace_s)

    async def unload(self, name: str) -> bool:
        """Unload one model; False = it is not loaded (also while it is being loaded)."""
        backend = self.loaded.get(name)
        if backend is None:
            return False
        await asyncio.sleep(self.script.of(name).unload_delay_s)
        await until(lambda: self.script.of(name).unload != "hang")
        await self._evict(backend, None)
        return True

    @asynccontextmanager
    async def request(self, name: str) -> AsyncIterator[Backend]:
        """Stamp a request on a model, which is loaded first when it is not."""
        async with self._turn:
            pass
        backend = self.loaded.get(name) or await self.load(name, {})
        backend.last_use = monotonic_ms()
        backend.active += 1
        try:
            yield backend
        finally:
            backend.active -= 1


def _options(body: dict[str, Any]) -> dict[str, Any]:
    size = body.get("ctx_size")
    return {
        "ctx_size": size if isinstance(size, int) and size > 0 else 4096,
        "llamacpp_args": body.get("llamacpp_args") or "",
        "llamacpp_backend": "cpu",
    }


def _check_options(body: dict[str, Any]) -> None:
    if body.get("llamacpp_backend") not in {None, "auto", "cpu"}:
        raise LoadError("'llamacpp.backend' must be one of: auto, cpu")
    for word in str(body.get("llamacpp_args") or "").split():
        if word in RESERVED_ARGS:
            raise LoadError(
                "Invalid custom llama-server arguments:\n"
                f"Argument '{word}' is managed by Lemonade and cannot be overridden."
            )
