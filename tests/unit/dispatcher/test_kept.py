"""What hal0 takes of a request, no more than it may, and what it keeps of it: nothing."""

import pytest
from starlette.types import Message

from hal0.db import Database
from hal0.errors import TooLarge
from hal0.settings import Settings
from tests.raw_engine import EVENTS, Got, Line, chunk, says
from tests.unit.dispatcher.rig import Rig, rig

pytestmark = pytest.mark.anyio


async def test_a_body_of_no_length_is_refused_as_soon_as_it_is_too_large(
    quick: Settings, db: Database
) -> None:
    given = 0

    async def on_and_on() -> Message:
        nonlocal given
        given += 1
        return {"type": "http.request", "body": b" " * 30, "more_body": given < 20}

    async with rig(quick.model_copy(update={"body_limit_bytes": 100}), db) as at:
        client = at.client()
        client.receive = on_and_on  # type: ignore[method-assign]
        with pytest.raises(TooLarge):
            await at.ask(client)
    assert given == 4


async def test_nothing_of_what_is_asked_and_answered_is_kept(
    at: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    word = b"unheard-of-5a1c"

    async def breaks(got: Got, line: Line) -> None:
        line.write(EVENTS + chunk(b"data: " + word + b"\n\n"))
        await at.until(lambda: client.parts)
        line.transport.abort()

    told = {"messages": [{"role": "user", "content": word.decode()}], "user": word.decode()}
    echo = {"message": word.decode()}
    for answer in (says({"choices": [echo]}), says({"error": echo}, "400 No"), breaks):
        at.engine.answer = answer
        client = at.client(told)
        await at.ask(client)
        assert word in b"".join(client.parts)
        assert word in at.engine.got[-1].body
    await at.is_released()
    files = [path for path in at.db.path.parent.rglob("*") if path.is_file()]
    assert at.db.path in files
    assert [path.name for path in files if word in path.read_bytes()] == []
    assert word.decode() not in caplog.text
