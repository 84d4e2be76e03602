"""Fifty clients that do what clients do: ask, stream, read slowly, leave early, leave midway.

Each writes a line for every request when it is over (`evidence.py`). Which slots are in demand
changes every few seconds, so that slots fall silent and are wanted again. The dice decide what is
asked; the machine decides when.
"""

import asyncio
import hashlib
import json
import os
import random
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector

from hal0.clock import utc_now
from tests.soak.evidence import Asked

LIMIT_S: Final = 90.0
"""Longer than hal0 may let anybody wait by the settings of a soak."""
PADDING: Final = "x" * 4096
"""A field that no engine reads: a body that is kept by mistake is heavy."""
DEMAND_S: Final = 4.0
STRAY: Final = 0.01
"""How many ask for a slot that is not in demand."""
PAUSE_S: Final = (0.1, 1.1)
SLOW_ONE_IN: Final = 8
SLOW_BUFFER: Final = 4096
SLOW_FOR_S: Final = 4.0


@dataclass(frozen=True, slots=True)
class Crowd:
    """Whom the clients ask, and for what; `names` are what each slot may be called by."""

    url: str
    names: Mapping[str, Sequence[str]]
    log: Path
    seed: int
    clients: int = 50

    async def ask_until(self, stop: asyncio.Event, round_: int) -> None:
        """Let all of them ask until they are told to stop, and end what they have begun."""
        clients = [Client(self, number, round_) for number in range(self.clients)]
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.run(stop))

    def in_demand(self) -> list[str]:
        """Return the slots that most clients ask for now."""
        window = int(time.monotonic() / DEMAND_S)
        dice = random.Random(f"{self.seed}/{window}")
        return dice.sample(sorted(self.names), dice.randint(1, len(self.names) - 1))


class Client:
    """One client with connections of its own; each eighth reads slowly."""

    def __init__(self, crowd: Crowd, number: int, round_: int) -> None:
        self._crowd = crowd
        self._me = f"{crowd.seed}-{round_}-{number}"
        self._dice = random.Random(self._me)
        self._is_slow = number % SLOW_ONE_IN == 0
        self._log = os.open(crowd.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        self._count = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Ask again and again."""
        # A slow one has read an answer long after it was sent, and its connection may be over then.
        connector = TCPConnector(
            force_close=self._is_slow or self._dice.random() < 0.1,
            socket_factory=_narrow if self._is_slow else None,
        )
        async with ClientSession(
            connector=connector,
            timeout=ClientTimeout(total=LIMIT_S),
            read_bufsize=SLOW_BUFFER if self._is_slow else 1 << 16,
        ) as session:
            while not stop.is_set():
                await self._ask(session)
                try:
                    async with asyncio.timeout(self._dice.uniform(*PAUSE_S)):
                        await stop.wait()
                except TimeoutError:
                    pass
        os.close(self._log)

    async def _ask(self, session: ClientSession) -> None:
        self._count += 1
        request_id, name = f"soak-{self._me}-{self._count}", self._name()
        path, body = self._body(name)
        sent_at = utc_now()
        patience = self._dice.uniform(0.0, 0.2) if self._dice.random() < 0.1 else None
        told: dict[str, Any] = {"how": "left"}
        with suppress(TimeoutError):
            async with asyncio.timeout(patience) as leaving:
                told = await self._answer(session, path, body, request_id, leaving)
        self._note(Asked(request_id, name, sent_at, utc_now(), **told))

    async def _answer(
        self,
        session: ClientSession,
        path: str,
        body: dict[str, Any],
        request_id: str,
        leaving: asyncio.Timeout,
    ) -> dict[str, Any]:
        headers = {"X-Request-ID": request_id}
        try:
            async with session.post(self._crowd.url + path, json=body, headers=headers) as answer:
                leaving.reschedule(None)  # it stays when there is something to read
                return await self._read(answer)
        except TimeoutError:  # the session's own
            return {"how": "hung"}
        except ClientError:
            return {"how": "cut"}

    def _name(self) -> str:
        crowd, dice = self._crowd, self._dice
        slots = sorted(crowd.names) if dice.random() < STRAY else crowd.in_demand()
        slot = dice.choice(slots)
        return slot if dice.random() < 0.7 else dice.choice(crowd.names[slot])

    def _body(self, name: str) -> tuple[str, dict[str, Any]]:
        dice = self._dice
        body: dict[str, Any] = {
            "model": name,
            "max_tokens": dice.randint(60, 90) if self._is_slow else dice.randint(4, 40),
            "stream": dice.random() < 0.6,
            "temperature": 0,
            "user": PADDING,
        }
        if dice.random() < 0.3:
            return "/v1/completions", body | {"prompt": "hello", "logprobs": 5}
        if self._is_slow:  # fat answers, which no buffer on the way takes whole
            body |= {"logprobs": True, "top_logprobs": 500}
        said = [{"role": "user", "content": f"hello {dice.randint(0, 99)}"}]
        return "/v1/chat/completions", body | {"messages": said}

    async def _read(self, answer: ClientResponse) -> dict[str, Any]:
        dice, content, pieces = self._dice, bytearray(), 0
        leaves_after = dice.randint(1, 8) if dice.random() < 0.12 else None
        slow_until = time.monotonic() + SLOW_FOR_S if self._is_slow else 0.0
        while piece := await answer.content.read(SLOW_BUFFER if self._is_slow else 1 << 16):
            content += piece
            pieces += 1
            if pieces == leaves_after:
                answer.close()
                return {"how": "left", "status": answer.status}
            if time.monotonic() < slow_until:
                await asyncio.sleep(dice.uniform(0.05, 0.2))
        told = {"status": answer.status, "sha256": hashlib.sha256(content).hexdigest()}
        return told | _understood(answer, bytes(content))

    def _note(self, asked: Asked) -> None:
        times = {"sent_at": asked.sent_at.isoformat(), "ended_at": asked.ended_at.isoformat()}
        os.write(self._log, json.dumps(asdict(asked) | times).encode() + b"\n")


def _understood(answer: ClientResponse, content: bytes) -> dict[str, Any]:
    """Return what an answer was that came to its end."""
    is_stream = answer.content_type == "text/event-stream"
    last = content.rstrip().rpartition(b"\n\n")[2].removeprefix(b"data: ") if is_stream else content
    if is_stream and last == b"[DONE]":
        return {"how": "whole"}
    try:
        said = json.loads(last)
    except ValueError:
        return {"how": "torn"}
    if answer.status != 200:
        told = {"code": said.get("code"), "detail": said.get("detail")}
        return {"how": "whole", "retry_after": answer.headers.get("Retry-After"), **told}
    if "error" in said:
        return {"how": "error_event", "code": said["error"]["code"]}
    return {"how": "torn" if is_stream else "whole"}


def _narrow(address: tuple[Any, ...]) -> socket.socket:
    """Return a socket that takes little at once, so that the server feels a slow reader."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER)
    made.setblocking(False)
    return made
