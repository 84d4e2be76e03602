"""How hal0's wishes are said to Lemonade.

Written against lemond 11.7; the embedded engine speaks the same wire. What this adapter never does:
load without all options, unload without a name (Lemonade then unloads everything), repeat a
request. What the answers mean is in `lemonade_answers`.
"""

import asyncio
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
from hal0.engines.http import Key, Wire, int_of, object_of, our_errors, text_of
from hal0.engines.lemonade_answers import config_of, limits_of, models_of, type_of
from hal0.engines.options import wire_body
from hal0.engines.process import is_loopback, listener_name, process_name
from hal0.errors import EngineBadAnswer, EngineUnreachable

HEALTH_S: Final = 30.0
"""Lemonade holds its router lock through an unload of a busy model: 18 s were measured."""
RESOLVE_S: Final = 30.0


class LemonadeEngine:
    """One Lemonade server, or anything that speaks its wire."""

    unload_stops_load: Final = False

    def __init__(
        self,
        url: str,
        key: Key = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare a client for the server at `url`, without a path; nothing is sent yet."""
        self._wire = Wire(url, key, transport)
        self._url = self._wire.url

    async def is_live(self) -> bool:
        """Tell whether anything but a server error comes back from `/live` within 5 s."""
        status = await self._wire.probe(f"{self._url}/live")
        return status is not None and status < 500

    async def health(self) -> EngineHealth:
        """Read `/v1/health`; a list that is missing or holds nonsense is unknown, not empty."""
        async with self._wire.limit(HEALTH_S):
            body = object_of(await self._wire.send("GET", "/v1/health"))
        return EngineHealth(
            process=await asyncio.to_thread(self._process, body),
            models=models_of(body),
            limits=limits_of(body),
            version=text_of(body.get("version")),
        )

    async def config(self) -> EngineConfig | None:
        """Read `/internal/config`, which may want an admin's key; the embedded engine has none."""
        async with self._wire.limit(RESOLVE_S):
            response = await self._wire.send("GET", "/internal/config")
        if response.status_code in (401, 403, 404):
            return None
        return config_of(object_of(response))

    async def resolve(self, name: str) -> EngineModel | None:
        """Read `/v1/models/{name}`: the public name, which health lists, and the file."""
        async with self._wire.limit(RESOLVE_S):
            response = await self._wire.send(
                "GET", f"/v1/models/{quote(checked_name(name), safe='')}"
            )
        if response.status_code == 404:
            return None
        body = object_of(response)
        public = body.get("id")
        if not is_name(public):
            raise EngineBadAnswer(f"{self._url} describes model {name!r} without an id")
        files = body.get("checkpoints")
        files = files if isinstance(files, dict) else {}
        main = files.get("main")
        return EngineModel(
            name=public,
            checkpoint=text_of(main) or text_of(body.get("checkpoint")),
            downloaded=body.get("downloaded") is True,
            others=tuple(text_of(path) or "" for role, path in files.items() if role != "main"),
            type=type_of(body),
        )

    async def load(
        self, name: str, options: Mapping[str, Any], on_sent: Callable[[], None]
    ) -> None:
        """Send one load with every option and wait for its answer.

        Raises ValueError for a bad name or option before anything is sent. EngineUnreachable
        means: not sent. Whoever calls this owns the clock (ADR-0007); leaving does not stop the
        load in the engine.
        """
        body = wire_body(checked_name(name), options)
        response = await self._wire.send("POST", "/v1/load", body, on_sent)
        object_of(response)

    async def unload(self, name: str, on_sent: Callable[[], None]) -> bool:
        """Unload one model by its public name; False = it was not loaded.

        Raises ValueError, and sends nothing, for a name that Lemonade could take for none. Waits
        for the model's running requests as long as the engine does: the caller owns the clock.
        """
        body = {"model_name": checked_name(name)}
        response = await self._wire.send("POST", "/v1/unload", body, on_sent)
        if response.status_code == 404:
            return False
        object_of(response)
        return True

    async def answers(self, model: LoadedModel) -> bool:
        """Tell whether the model's own server says it is healthy, within 5 s.

        False only when it was asked and did not say so. True is no more than the absence of that
        proof: also when the engine names no address, or one on another machine's loopback.
        """
        if model.backend_url is None:
            return True
        try:
            with our_errors(model.backend_url):
                backend = httpx.URL(model.backend_url.rstrip("/").removesuffix("/v1"))
        except EngineUnreachable:
            return False
        if is_loopback(backend) and not is_loopback(self._url):
            return True
        return await self._wire.probe(f"{backend}/health") == 200

    async def close(self) -> None:
        """Close the client."""
        await self._wire.close()

    def _process(self, body: Mapping[str, Any]) -> str | None:
        if not is_loopback(self._url):
            return None
        pid = int_of(body.get("pid"))
        return listener_name(self._url) if pid is None else process_name(pid)
