"""When the tokens are read from the table, and when what was read is good no longer."""

import threading
import time

import anyio
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from hal0.access import tokens
from hal0.access.roles import Role
from hal0.api.keyring import Keyring
from hal0.db import Database

pytestmark = pytest.mark.anyio


async def test_the_table_is_read_once_a_second_however_many_ask(db: Database) -> None:
    reads: list[str] = []

    @event.listens_for(Engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if "FROM tokens" in statement:
            reads.append(statement)

    keyring = Keyring(db)
    try:
        began = time.monotonic()
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(keyring.tokens)
        assert len(reads) == 1
        while len(reads) == 1 and time.monotonic() < began + 20:
            await keyring.tokens()
            await anyio.sleep(0.01)
        assert time.monotonic() - began > 0.99
        keyring.forget()
        await keyring.tokens()
        assert len(reads) == 3
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def test_what_was_read_before_a_change_of_this_process_is_not_kept(db: Database) -> None:
    """A read that began before the commit may end after it, and must not pass for fresh."""
    keyring = Keyring(db)
    held = threading.Event()
    begun = threading.Event()

    @event.listens_for(Engine, "after_cursor_execute")
    def linger(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if "FROM tokens" in statement and not begun.is_set():
            begun.set()
            held.wait(20)

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(keyring.tokens)
            await anyio.to_thread.run_sync(begun.wait, 20)
            with db.write() as tx:
                tokens.create(tx, "late", Role.WRITER, "local")
            keyring.forget()
            held.set()
    finally:
        event.remove(Engine, "after_cursor_execute", linger)
    assert [row.name for row in (await keyring.tokens()).rows] == ["late"]
