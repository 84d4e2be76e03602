"""A process that stands still forwards nothing by what it knew before: SIGSTOP, swap, a suspend."""

import asyncio
import socket
import threading
import time
from contextlib import suppress

import pytest
from sqlalchemy import update

from hal0.db import Database
from hal0.errors import Hal0Error
from hal0.jobs.context import CUT_S
from hal0.settings import Settings
from hal0.slots.transitions import Act, move
from hal0.states import Cause, SlotState
from hal0.tables import engines
from tests.rows import slot_now
from tests.unit.dispatcher.rig import rig

pytestmark = pytest.mark.anyio


class ThreadEngine(threading.Thread):
    """Notes when bytes of a request come; in a thread, so that it goes on while the loop stands."""

    def __init__(self) -> None:
        super().__init__()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.got_at: list[float] = []

    def run(self) -> None:
        while True:
            try:
                line, _ = self.listener.accept()
            except OSError:
                return
            with line:
                if line.recv(65536):
                    self.got_at.append(time.monotonic())
                    line.sendall(
                        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
                    )

    def end(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.join()


async def test_no_request_reaches_an_engine_after_its_unload_was_sent(
    settings: Settings, db: Database, anyio_backend: str
) -> None:
    engine = ThreadEngine()
    engine.start()
    sent_at: list[float] = []

    def unload_by_force() -> None:
        time.sleep(0.3)
        with db.write() as tx:
            move(tx, slot_now(db), SlotState.UNLOADING, Cause.FORCED, Act("local"))
        time.sleep(CUT_S)
        sent_at.append(time.monotonic())

    async with rig(settings.model_copy(update={"wake_timeout_s": 1.0}), db) as at:
        with db.write() as tx:
            tx.execute(update(engines).values(url=engine.url))
        await at.ask(at.client())  # the slot serves, and lingers
        assert engine.got_at
        engine.got_at.clear()
        worker = threading.Thread(target=unload_by_force)
        worker.start()
        asked = at.begin(at.client())
        asyncio.get_running_loop().call_soon(time.sleep, 2 * CUT_S)  # while it connects
        with suppress(Hal0Error):
            await asked
        worker.join()
    engine.end()
    assert not [at_s for at_s in engine.got_at if at_s > sent_at[0]]
