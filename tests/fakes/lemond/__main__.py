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
from starlette.types import Receive, Scope, Send

from hal0.embedded.call_log import CallLog
from hal0.registry.files import FileIdentity
from tests.fakes.lemond.app import make_app
from tests.fakes.lemond.router import Router
from tests.fakes.lemond.script import Script


def main() -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="tests.fakes.lemond")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--call-log", type=Path)
    parser.add_argument("--script", type=Path)
    given = parser.parse_args()
    logging.getLogger("uvicorn.error").addHandler(logging.NullHandler())
    script = json.loads(given.script.read_text()) if given.script else {}
    listener = socket.create_server(("127.0.0.1", given.port))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else 40 ms an answer
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    router = Router(
        given.models, Script(**script), lambda name, path: log_opened(logged, name, path)
    )
    app = make_app(router, os.environ.get("LEMONADE_API_KEY"), lambda: url)
    logged = CallLog(app, given.call_log)

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        is_control = scope.get("path", "").startswith("/_")
        await (app if is_control else logged)(scope, receive, send)

    config = uvicorn.Config(
        route,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))
    return 0


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
