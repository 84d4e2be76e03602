"""`python -m tests.fakes.lemond --models DIR`: the first line on stdout is the server's URL."""

import argparse
import asyncio
import hashlib
import json
import logging
import os
import socket
import sys
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from hal0.embedded.call_log import CallLog
from hal0.registry.files import FileIdentity
from tests.fakes.lemond.app import make_app
from tests.fakes.lemond.auto_evict import watch
from tests.fakes.lemond.catalog import Catalog
from tests.fakes.lemond.downloads import Downloads
from tests.fakes.lemond.guard import Guard
from tests.fakes.lemond.router import Router
from tests.fakes.lemond.script import Script, Told


def main() -> int:
    """Serve until SIGTERM."""
    given = arguments()
    logging.getLogger("uvicorn.error").addHandler(logging.NullHandler())
    script = json.loads(given.script.read_text()) if given.script else {}
    told = Told(Script(**({"max_loaded_models": given.max_loaded_models} | script)))
    listener = socket.create_server(("127.0.0.1", given.port))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else 40 ms an answer
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    catalog = Catalog(given.models, given.models.parent / "lemond-cache", told)
    downloads = Downloads(catalog, told)
    router = Router(
        catalog, told, downloads.for_load, lambda name, path: log_opened(logged, name, path)
    )
    app = make_app(router, downloads, lambda: url)
    keys = os.environ.get("LEMONADE_API_KEY"), os.environ.get("LEMONADE_ADMIN_API_KEY")
    logged = CallLog(Guard(app, *keys), given.call_log)

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        is_control = scope.get("path", "").startswith("/_")
        await (app if is_control else logged)(scope, receive, send)

    asyncio.run(serve(route, router, listener, url))
    return 0


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="tests.fakes.lemond")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--call-log", type=Path)
    parser.add_argument("--script", type=Path)
    parser.add_argument("--max-loaded-models", type=int, default=1)
    return parser.parse_args()


async def serve(app: ASGIApp, router: Router, listener: socket.socket, url: str) -> None:
    """Answer, and unload what is idle, until a signal comes."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()
    idle = asyncio.create_task(watch(router))
    await uvicorn.Server(config).serve(sockets=[listener])
    idle.cancel()


def log_opened(log: CallLog, name: str, path: Path) -> None:
    """Note which bytes a backend opens: `{"phase": "opened", "model", "path", "sha256", …}`."""
    with path.open("rb") as file:
        identity = FileIdentity.from_stat(os.fstat(file.fileno())).as_json()
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    log.note(
        {"phase": "opened", "model": name, "path": str(path), "sha256": sha256}
        | {"identity": identity}
    )


if __name__ == "__main__":
    sys.exit(main())
