"""How hal0's wishes are said to llama.cpp's router: a `llama-server` that was started without -m.

Written against b10434, b11434 compared. The answer to a load or an unload says only that it has
begun: both are followed in the router's list to their end. There a load that failed looks as one
that an unload has cut short: what was asked for through this adapter tells them apart. A router may
load whatever model it is asked about; so every question about one says `autoload=0`, and nothing
else is ever said about that. What the answers mean is in `llamacpp_answers`.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

import httpx

from hal0.engines.base import (
    EngineConfig,
    EngineHealth,
    EngineModel,
    LoadedModel,
    checked_name,
    is_name,
)
from hal0.engines.http import PROBE_S, Key, Wire, error_of, json_of, object_of, text_of
from hal0.engines.llamacpp_answers import (
    RUNNING,
    Listed,
    counters_of,
    find,
    is_busy_by,
    is_busy_by_slots,
    last_use_of,
    limits_of,
    listed_of,
)
from hal0.engines.options import complete
from hal0.engines.process import is_loopback, listener_name
from hal0.errors import EngineBadAnswer, EngineError, EngineRefused

HEALTH_S: Final = 30.0
"""A router whose threads are all busy with streams answers when one is free: 8 s were measured."""
RESOLVE_S: Final = 30.0
USE_S: Final = 2.0
"""For what one model's process says of its use: one that hangs holds health up no longer."""
AT_ONCE: Final = 8
FIRST_LOOK_S: Final = 0.02
LAST_LOOK_S: Final = 0.3

ALREADY: Final = frozenset({"model is already running"})
NOT_THERE: Final = frozenset({"model is not running", "model is not found"})
ASLEEP: Final = "asleep"


class LlamaCppEngine:
    """One router. Its models have their options from its own preset, so a load carries none."""

    unload_stops_load: Final = True

    def __init__(
        self,
        url: str,
        key: Key = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare a client for the router at `url`, without a path; nothing is sent yet."""
        self._wire = Wire(url, key, transport)
        self._url = self._wire.url
        self._unloads: Counter[str] = Counter()
        self._asking = asyncio.Semaphore(AT_ONCE)

    async def is_live(self) -> bool:
        """Tell whether anything but a server error comes back from `/health` within 5 s."""
        status = await self._wire.probe(f"{self._url}/health")
        return status is not None and status < 500

    async def health(self) -> EngineHealth:
        """Read the list, the limit, and what the process of each loaded model says of its use.

        Raises EngineBadAnswer for a `llama-server` that is no router.
        """
        async with self._wire.limit(HEALTH_S):
            props = object_of(await self._wire.send("GET", "/props"))
            if props.get("role") != "router":
                raise EngineBadAnswer(
                    f"the llama-server at {self._url} is no router: start it without a model",
                    evidence={"role": text_of(props.get("role"))},
                )
            listed = listed_of(object_of(await self._wire.send("GET", "/models")))
            models = None if listed is None else await self._loaded(listed)
        return EngineHealth(
            process=await asyncio.to_thread(self._process),
            models=models,
            limits=limits_of(props),
            version=text_of(props.get("build_info")),
        )

    async def config(self) -> EngineConfig | None:
        """Return None: a router tells nothing of the kind."""
        return None

    async def resolve(self, name: str) -> EngineModel | None:
        """Look into the list; a name that is not there makes the router read its folder again.

        Raises EngineBadAnswer for a file that only the router's own folder tells.
        """
        checked_name(name)
        async with self._wire.limit(RESOLVE_S):
            one = find(await self._list(), name) or find(await self._list("?reload=1"), name)
        if one is None:
            return None
        if not is_name(one.name):
            raise EngineBadAnswer(f"{self._url} has model {name!r} under no name to call it by")
        if one.path is not None and one.checkpoint is None:
            raise EngineBadAnswer(
                f"the router at {self._url} has model {one.name} at {one.path}, below a folder "
                "that only it knows: start it with an absolute --models-dir"
            )
        return EngineModel(one.name, one.checkpoint, one.is_on_disk, one.others)

    async def load(
        self, name: str, options: Mapping[str, Any], on_sent: Callable[[], None]
    ) -> None:
        """Send one load and follow it to its end; of one that runs already, too.

        Raises EngineRefused for a load that failed, and, with `cancelled` in its evidence, for one
        that an `unload` of this adapter has cut short.
        """
        complete("llamacpp", options)
        body = {"model": checked_name(name)}
        unloads = self._unloads[name]
        response = await self._wire.send("POST", "/models/load", body, on_sent)
        if not _says(response, ALREADY):
            object_of(response)
        ended = await self._follow(name, frozenset({"loading"}))
        if ended is not None and ended.is_loaded:
            return
        if self._unloads[name] != unloads:
            raise EngineRefused(
                f"the load of {name} was cancelled by an unload", evidence={"cancelled": True}
            )
        exit_code = None if ended is None else ended.exit_code
        raise EngineRefused(
            f"the engine could not load {name}: its process ended with exit code {exit_code}; the "
            "reason is in the log of llama-server",
            evidence={"exit_code": exit_code},
        )

    async def unload(self, name: str, on_sent: Callable[[], None]) -> bool:
        """Unload one model and follow it to its end; False = it was not loaded.

        Running requests are cut off, and hold the end up for the model's `stop-timeout` (10 s). A
        load that is under way is killed.
        """
        body = {"model": checked_name(name)}
        self._unloads[name] += 1  # before it is sent: the load's end may be seen before the answer
        response = await self._wire.send("POST", "/models/unload", body, on_sent)
        if _says(response, NOT_THERE):
            self._unloads[name] -= 1
            return False
        object_of(response)
        await self._follow(name, RUNNING)
        return True

    async def answers(self, model: LoadedModel) -> bool:
        """Tell whether the model's process describes itself, by way of the router, within 5 s."""
        return await self._ask("/props", model.name, PROBE_S) is not None

    async def close(self) -> None:
        """Close the client."""
        await self._wire.close()

    async def _list(self, query: str = "") -> tuple[Listed, ...]:
        listed = listed_of(object_of(await self._wire.send("GET", f"/models{query}")))
        if listed is None:
            raise EngineBadAnswer(f"the router at {self._url} gives no list of its models")
        return listed

    async def _follow(self, name: str, statuses: frozenset[str]) -> Listed | None:
        """Return the model when it has left these statuses; None = it is not listed any more.

        Raises EngineBadAnswer when the list cannot be had: what was sent may have been done.
        """
        pause_s = FIRST_LOOK_S
        while True:
            try:
                one = find(await self._list(), name)
            except EngineError as exc:
                raise EngineBadAnswer(f"what became of {name} is not known: {exc.detail}") from exc
            if one is None or one.status not in statuses:
                return one
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, LAST_LOOK_S)

    async def _loaded(self, listed: tuple[Listed, ...]) -> tuple[LoadedModel, ...]:
        return tuple(await asyncio.gather(*(self._seen(one) for one in listed if one.is_loaded)))

    async def _seen(self, one: Listed) -> LoadedModel:
        if one.status == "sleeping":  # it is not asked: that would wake it
            return LoadedModel(
                one.name, one.checkpoint, last_use=ASLEEP, busy=False, is_asleep=True
            )
        last_use, busy = await self._use_of(one)
        return LoadedModel(one.name, one.checkpoint, last_use=last_use, busy=busy)

    async def _use_of(self, one: Listed) -> tuple[str | None, bool | None]:
        """Return last use and busy of one that is awake."""
        metrics = await self._ask("/metrics", one.name, USE_S)
        if metrics is not None:
            counters = counters_of(metrics.text)
            return last_use_of(one.port, counters), is_busy_by(counters)
        slots = await self._ask("/slots", one.name, USE_S)
        return None, None if slots is None else is_busy_by_slots(_json_of(slots))

    async def _ask(self, path: str, name: str, limit_s: float) -> httpx.Response | None:
        """Ask the process of a loaded model; None = no good answer. Never makes it be loaded."""
        query = f"?model={quote(name, safe='')}&autoload=0"
        try:
            async with self._asking, self._wire.limit(limit_s):
                response = await self._wire.send("GET", f"{path}{query}")
        except EngineError:
            return None
        return response if response.is_success else None

    def _process(self) -> str | None:
        return listener_name(self._url) if is_loopback(self._url) else None


def _says(response: httpx.Response, messages: frozenset[str]) -> bool:
    return response.status_code in (400, 404) and error_of(response)[0] in messages


def _json_of(response: httpx.Response) -> object:
    try:
        return json_of(response)
    except EngineBadAnswer:
        return None
