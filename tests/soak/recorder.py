"""What reached the engine, and what hal0's rows said at that moment: a proxy that writes it down.

    python -m tests.soak.recorder ENGINE_URL DATABASE LOG

It stands between hal0 and its engine and says its own URL as the first line on stdout. Two lines of
NDJSON a call, `begin` before the engine hears of it, `end` before the last of its answer goes to
hal0: so a call lasted, as hal0 knows it, at least from the one to the other. Only of a call that
hal0 left (`gone`) the recorder hears a moment late.

    {"phase": "begin", "call", "at", "path", "id", "model", "held": [[slot, state, cause,
     generation, leases], ...]}
    {"phase": "end", "call", "at", "how": "whole|gone|broken", "status", "sha256"}

`held` are the slots that hold the model by that name, as committed; null for what is no inference.
"""

import asyncio
import hashlib
import itertools
import json
import os
import sqlite3
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from aiohttp import (
    ClientConnectionResetError,
    ClientError,
    ClientSession,
    ClientTimeout,
    TCPConnector,
    web,
)

from hal0.clock import utc_now

INFERENCE: Final = ("/completions",)
PASSED: Final = ("content-type", "authorization", "accept", "x-request-id")
KEPT_S: Final = 3.0
"""Less than the engine keeps a connection that nobody uses."""
HELD: Final = """
    SELECT name, state, cause, generation,
        (SELECT count(*) FROM leases WHERE slot_id = slots.id AND generation = slots.generation)
    FROM slots WHERE engine_model = ?
"""


class Recorder:
    """Everything that one engine is asked."""

    def __init__(self, session: ClientSession, engine: str, database: Path, log: Path) -> None:
        self._session = session
        self._engine = engine
        self._database = database
        self._numbers = itertools.count(1)
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Pass a call on, and its answer as it comes."""
        body = await request.read()
        said = _json(body)
        model = said.get("model", said.get("model_name"))
        call = next(self._numbers)
        self._note(
            call,
            "begin",
            path=request.path,
            id=request.headers.get("X-Request-ID"),
            model=model,
            held=self._held(model) if request.path.endswith(INFERENCE) else None,
        )
        end: dict[str, Any] = {"how": "gone", "status": None}
        try:
            return await self._pass_on(call, request, body, end)
        except ClientConnectionResetError as exc:  # what aiohttp says of hal0 that has left
            raise asyncio.CancelledError from exc
        except ClientError:
            end["how"] = "broken"
            raise
        finally:
            if end["how"] != "whole":
                self._note(call, "end", **end)

    async def _pass_on(
        self, call: int, request: web.Request, body: bytes, end: dict[str, Any]
    ) -> web.StreamResponse:
        headers = {name: request.headers[name] for name in PASSED if name in request.headers}
        url, digest = self._engine + request.path_qs, hashlib.sha256()
        async with self._session.request(request.method, url, data=body, headers=headers) as answer:
            end["status"] = answer.status
            reply = web.StreamResponse(status=answer.status)
            reply.headers["Content-Type"] = answer.headers["Content-Type"]
            # Chunked whatever the engine did: so the answer is not over before its end is noted.
            await reply.prepare(request)
            async for chunk in answer.content.iter_any():
                digest.update(chunk)
                await reply.write(chunk)
            end["how"] = "whole"
            self._note(call, "end", **end, sha256=digest.hexdigest())
            await reply.write_eof()
            return reply

    def _held(self, model: Any) -> list[Any]:
        return self._rows.execute(HELD, (model,)).fetchall()

    @cached_property
    def _rows(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self._database.as_uri()}?mode=ro", uri=True)

    def _note(self, call: int, phase: str, **fields: Any) -> None:
        line = {"phase": phase, "call": call, "at": utc_now().isoformat(), **fields}
        os.write(self._log, json.dumps(line).encode() + b"\n")


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(body or b"{}")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


async def main(engine: str, database: str, log: str) -> None:
    """Record until the process is ended."""
    connector = TCPConnector(limit=0, keepalive_timeout=KEPT_S)
    async with ClientSession(
        connector=connector, timeout=ClientTimeout(total=None), auto_decompress=False
    ) as session:
        app = web.Application(client_max_size=1 << 26)
        recorder = Recorder(session, engine, Path(database), Path(log))
        app.router.add_route("*", "/{path:.*}", recorder.handle)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        sys.stdout.write(f"http://127.0.0.1:{port}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
