"""A dispatcher over real rows, in front of an engine of raw bytes; spoken to in ASGI."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Message

from hal0.api import openapi_inference
from hal0.api.pulse import Pulse
from hal0.db import Database
from hal0.dispatcher.app import Dispatcher
from hal0.dispatcher.routing import ROUTES
from hal0.errors import Hal0Error
from hal0.registry.roster import add_engine
from hal0.settings import Settings
from hal0.states import SlotState
from tests.raw_engine import RawEngine
from tests.rows import ask_load, make_model, make_slot, run_load, slot_now

LIMIT_S = 20
CHAT = "/v1/chat/completions"


@dataclass
class Client:
    """One request's client: sends a body, keeps what it is sent, and leaves when told to."""

    body: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    fails_at: int = 0
    """At which message, from 1, sending to it fails; 0 = never."""
    _has_sent: bool = False

    async def receive(self) -> Message:
        if not self._has_sent:
            self._has_sent = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.messages.append(message)
        if len(self.messages) == self.fails_at:
            raise OSError("the client cannot be reached")

    @property
    def status(self) -> int | None:
        """What it was answered; None = nothing yet."""
        return self.messages[0]["status"] if self.messages else None

    @property
    def answer_headers(self) -> dict[bytes, bytes]:
        """The headers of its answer."""
        return dict(self.messages[0]["headers"])

    @property
    def parts(self) -> list[bytes]:
        """The pieces of its answer, as they came."""
        return [message["body"] for message in self.messages[1:]]

    @property
    def has_all(self) -> bool:
        """Whether its answer is whole."""
        return len(self.messages) > 1 and not self.messages[-1].get("more_body")


@dataclass
class Rig:
    """A slot `chat` that is ready with the model `tiny`, and who serves it."""

    dispatcher: Dispatcher
    engine: RawEngine
    db: Database

    def client(self, more: dict[str, Any] | None = None, **values: Any) -> Client:
        """Return a client with a request for the slot."""
        body = json.dumps({"model": "chat", "messages": [], **(more or {})}).encode()
        values.setdefault("body", body)
        values.setdefault("headers", [(b"content-type", b"application/json")])
        return Client(**values)

    async def ask(self, client: Client, path: str = CHAT) -> Client:
        """Serve a client's request to its end; raises what the dispatcher raises."""
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "headers": client.headers,
            "query_string": b"autoload=1&api_key=secret",
            "state": {"request_id": "request-1", "actor": "local"},
        }
        try:
            await self.dispatcher(scope, client.receive, client.send)
        except Hal0Error as error:
            if path in ROUTES:
                ensure_told(error, path)
            raise
        return client

    def begin(self, client: Client, path: str = CHAT) -> "asyncio.Task[Client]":
        """Do so in a task of its own."""
        return asyncio.create_task(self.ask(client, path))

    def state(self) -> SlotState:
        """What the row of the slot says."""
        return slot_now(self.db).state

    async def until(self, is_so: Callable[[], object]) -> None:
        """Wait until a condition holds."""
        async with asyncio.timeout(LIMIT_S):
            while not is_so():  # noqa: ASYNC110 - rows ring no bell
                await asyncio.sleep(0.02)

    async def is_released(self) -> None:
        """Wait until nobody serves any more: every request has given its place back."""
        await self.until(lambda: self.state() is SlotState.READY)


def ensure_told(error: Hal0Error, path: str) -> None:
    """Raise AssertionError for a refusal that the OpenAPI document does not tell of."""
    told = openapi_inference.problems(ROUTES[path])
    assert type(error) in told.get(error.status, ()), f"{path} is not told to say {error.code}"


@asynccontextmanager
async def rig(settings: Settings, db: Database, **values: Any) -> AsyncIterator[Rig]:
    """Start engine and dispatcher; a slot is ready. `values` are of the engine's row."""
    pulse = Pulse(settings, db)
    pulse.look()
    pulse.start()
    try:
        async with RawEngine() as engine, Dispatcher(settings, db, pulse.me) as dispatcher:
            row = {"name": "raw", "kind": "lemonade", "url": engine.url, "settle_s": 60}
            with db.write() as tx:
                add_engine(tx, {**row, "key_file": None, **values})
            make_model(db, "tiny")
            make_slot(db, "chat", "tiny", engine="raw")
            ask_load(db)
            run_load(db)
            yield Rig(dispatcher, engine, db)
    finally:
        pulse.end()
