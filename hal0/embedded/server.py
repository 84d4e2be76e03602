"""How the engine begins and ends: its address, its key, its signals, its children."""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, Final

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from hal0 import logs, notify
from hal0.embedded.call_log import CallLog
from hal0.embedded.guard import Guard
from hal0.embedded.residents import Residents
from hal0.embedded.routes import Routes, no_route
from hal0.errors import SettingsError
from hal0.file_modes import keep_others_out
from hal0.settings import Settings, cannot_listen

log = logging.getLogger(__name__)

GRACE_S: Final = 3
"""Seconds that running requests get to end after SIGTERM."""
NOT_KEPT: Final = httpx.Limits(max_connections=None, max_keepalive_connections=0)
"""Connections to children: llama.cpp closes one over which a stream went and says so to nobody, so
that a request which meets that is lost."""


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; the first line on stdout is the URL.

    Returns 2 when the address or the key cannot be used; the reason is on stderr.
    """
    keep_others_out()
    logs.set_up(settings.log_level, "hal0-engine")
    try:
        key = _read_key(settings)
        listener = _listen(settings.engine_bind, key)
    except SettingsError as exc:
        sys.stderr.write(f"hal0 engine: {exc.detail}\n")
        return 2
    with listener:
        asyncio.run(_serve(settings, listener, key))
    return 0


class Server(uvicorn.Server):
    """uvicorn, which ends on a signal without dying of it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop in order on SIGTERM and SIGINT, at once on the second one."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        yield

    async def main_loop(self) -> None:
        """Serve until told to stop; the service manager's watchdog sees a loop that hangs."""
        async with notify.serving("answers", lambda: None):
            await super().main_loop()

    def _stop(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


async def _serve(settings: Settings, listener: socket.socket, key: str | None) -> None:
    residents = Residents()
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    log.info("engine listens on %s, models in %s", url, settings.models)
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()
    try:
        async with httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=5), limits=NOT_KEPT, trust_env=False
        ) as client:
            routes = Routes(settings.models, residents, client)
            app = _application(routes, settings, key)
            await Server(_uvicorn_config(app)).serve(sockets=[listener])
    finally:
        await residents.close()
    log.info("engine stopped")


def _application(routes: Routes, settings: Settings, key: str | None) -> ASGIApp:
    handlers: dict[Any, Any] = {404: no_route, 405: no_route}
    app = Starlette(routes=routes.all(), exception_handlers=handlers)
    return CallLog(Guard(app, key), settings.engine_call_log)


def _uvicorn_config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=GRACE_S,
    )


def _read_key(settings: Settings) -> str | None:
    if settings.engine_key_file is None:
        return None
    try:
        return settings.engine_key_file.read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"HAL0_ENGINE_KEY_FILE cannot be read: {exc}") from exc


def _listen(bind: str, key: str | None) -> socket.socket:
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    if key is None and not _is_loopback(host):
        raise SettingsError(f"{bind} is open to other machines: set HAL0_ENGINE_KEY_FILE first")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, int(port)), family=family, backlog=512)
    except OSError as exc:
        raise cannot_listen("HAL0_ENGINE_BIND", bind, exc) from exc
    # asyncio does not switch Nagle off on a socket made elsewhere: 40 ms an answer.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
