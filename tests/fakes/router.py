"""A router of llama.cpp in a thread of this process, whose loads hang when told to.

    with Router(settings.models) as router:
        router.hangs = True
        ... router.url ... router.posted ...

As much of the wire as `engines/llamacpp.py` speaks; the real router is in `tests/integration`.
"""

import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route


@dataclass
class Router:
    """The models of a folder, each `unloaded`, `loading` or `loaded`."""

    models: Path
    hangs: bool = False
    posted: list[str] = field(default_factory=list)
    """Every load and unload that it got, as `load m-chat`."""
    _status: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        routes = [
            Route("/health", self._health),
            Route("/props", self._props),
            Route("/models", self._list),
            Route("/metrics", self._metrics),
            Route("/models/load", self._load, methods=["POST"]),
            Route("/models/unload", self._unload, methods=["POST"]),
        ]
        config = uvicorn.Config(Starlette(routes=routes), log_config=None, lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    def go_on(self) -> None:
        """Let the loads that hang end well."""
        self.hangs = False
        for status in self._status.values():
            if status["value"] == "loading":
                status["value"] = "loaded"

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _props(self, request: Request) -> Response:
        return JSONResponse({"role": "router", "max_instances": 0, "build_info": "b10434"})

    async def _metrics(self, request: Request) -> Response:
        counters = "llamacpp:n_decode_total 1\nllamacpp:requests_processing 0\n"
        return PlainTextResponse(counters + "llamacpp:requests_deferred 0\n")

    async def _list(self, request: Request) -> Response:
        data = [
            {
                "id": path.stem,
                "status": {"args": ["-m", str(path)], **self._of(path.stem)},
            }
            for path in sorted(self.models.glob("*.gguf"))
        ]
        return JSONResponse({"object": "list", "data": data})

    async def _load(self, request: Request) -> Response:
        name = (await request.json())["model"]
        self.posted.append(f"load {name}")
        self._status[name] = {"value": "loading" if self.hangs else "loaded"}
        return JSONResponse({"success": True})

    async def _unload(self, request: Request) -> Response:
        name = (await request.json())["model"]
        self.posted.append(f"unload {name}")
        if self._of(name)["value"] == "unloaded":
            return JSONResponse({"error": {"message": "model is not running"}}, 400)
        was_loading = self._of(name)["value"] == "loading"
        self._status[name] = {"value": "unloaded"}
        if was_loading:  # killed: the same look as a load that failed
            self._status[name] |= {"failed": True, "exit_code": 9}
        return JSONResponse({"success": True})

    def _of(self, name: str) -> dict[str, Any]:
        return self._status.setdefault(name, {"value": "unloaded"})
