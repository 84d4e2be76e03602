"""Who leaves before an answer is over: the place is given back once, the engine hears of it."""

import asyncio

import pytest

from hal0.dispatcher.interrupts import LOOK_S
from hal0.dispatcher.lost import MAX_BYTES
from hal0.slots.queries import slot_named
from hal0.slots.transitions import Act, move
from hal0.states import Cause, SlotState
from tests.garbage import left_behind
from tests.raw_engine import EVENTS, Got, Line, chunk
from tests.unit.dispatcher.rig import LIMIT_S, Rig

pytestmark = pytest.mark.anyio


async def test_a_client_that_leaves_before_the_first_byte_takes_its_request_along(at: Rig) -> None:
    async def hang(got: Got, line: Line) -> None:
        await got.gone.wait()
        line.close()

    at.engine.answer = hang
    client = at.client()
    asked = at.begin(client)
    await at.until(lambda: at.engine.got)
    assert at.state() is SlotState.SERVING
    client.left.set()
    await asked
    assert client.messages == []
    async with asyncio.timeout(LIMIT_S):
        await at.engine.got[0].gone.wait()
    await at.is_released()


async def endless(got: Got, line: Line) -> None:
    line.write(EVENTS)
    while not got.gone.is_set():
        line.write(chunk(b"data: more\n\n"))
        await line.drain()
        await asyncio.sleep(0.01)
    line.close()


async def test_a_client_that_leaves_midway_ends_the_generation(at: Rig) -> None:
    at.engine.answer = endless
    client = at.client({"stream": True})
    asked = at.begin(client)
    await at.until(lambda: len(client.parts) > 3)
    client.left.set()
    await asked
    assert not client.has_all
    async with asyncio.timeout(LIMIT_S):
        await at.engine.got[0].gone.wait()
    await at.is_released()


@pytest.mark.parametrize("fails_at", [1, 2, 3])
async def test_a_client_that_cannot_be_sent_to_ends_the_generation(at: Rig, fails_at: int) -> None:
    at.engine.answer = endless
    with pytest.raises(OSError, match="cannot be reached"):
        await at.ask(at.client({"stream": True}, fails_at=fails_at))
    async with asyncio.timeout(LIMIT_S):
        await at.engine.got[0].gone.wait()
    await at.is_released()


@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_task_that_is_cancelled_ends_the_generation(at: Rig, has_begun: bool) -> None:
    async def hang(got: Got, line: Line) -> None:
        await got.gone.wait()
        line.close()

    at.engine.answer = endless if has_begun else hang
    client = at.client({"stream": True})
    asked = at.begin(client)
    await at.until(lambda: client.messages if has_begun else at.engine.got)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    async with asyncio.timeout(LIMIT_S):
        await at.engine.got[0].gone.wait()
    await at.is_released()


async def test_one_request_that_ends_badly_takes_no_other_s_place(at: Rig) -> None:
    """Given back twice, the place of the other would be gone: it would not serve any more."""
    at.engine.answer = endless
    stays, leaves = at.client({"stream": True}), at.client({"stream": True}, fails_at=3)
    staying = at.begin(stays)
    await at.until(lambda: len(stays.parts) > 1)
    with pytest.raises(OSError, match="cannot be reached"):
        await at.ask(leaves)
    seen = len(stays.parts)
    await at.until(lambda: len(stays.parts) > seen + 30)
    assert at.state() is SlotState.SERVING
    stays.left.set()
    await staying
    await at.is_released()


async def test_a_client_that_reads_slowly_holds_the_engine_up_and_nothing_in_memory(
    at: Rig,
) -> None:
    sent = 0

    async def much(got: Got, line: Line) -> None:
        nonlocal sent
        line.write(EVENTS)
        for _ in range(1000):
            line.write(chunk(b"x" * 65_536))
            await line.drain()
            sent += 65_536
        line.write(chunk(b""))

    at.engine.answer = much
    client = at.client({"stream": True})
    may_read = asyncio.Event()
    send = client.send

    async def send_slowly(message: dict[str, object]) -> None:
        await send(message)
        if len(client.messages) == 2:
            await may_read.wait()

    client.send = send_slowly  # type: ignore[method-assign,assignment]
    asked = at.begin(client)
    await at.until(lambda: len(client.messages) == 2)
    before = -1
    while before != sent:  # until the engine is held up
        before = sent
        await asyncio.sleep(0.3)
    assert sent < 20_000_000, "all of it was taken from the engine"
    may_read.set()
    await asked
    assert sum(map(len, client.parts)) == 65_536_000


@pytest.mark.parametrize(
    ("status", "begins", "slow_at"),
    [("200 OK", chunk(b"x"), 2), ("500 No", chunk(b"x" * MAX_BYTES), 2), ("200 OK", b"", 1)],
    ids=["answer", "refusal", "head"],
)
async def test_a_client_that_still_reads_when_the_engine_has_ended_is_sent_the_end(
    at: Rig, status: str, begins: bytes, slow_at: int
) -> None:
    is_slow, has_end = asyncio.Event(), asyncio.Event()
    head = f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"

    async def answer(got: Got, line: Line) -> None:
        line.write(head.encode() + begins)
        await is_slow.wait()
        line.write(chunk(b""))
        await got.gone.wait()  # hal0 closes when it has the end
        has_end.set()
        line.close()

    at.engine.answer = answer
    client = at.client()
    send = client.send

    async def send_slowly(message: dict[str, object]) -> None:
        await send(message)
        if len(client.messages) == slow_at:
            is_slow.set()
            await has_end.wait()

    client.send = send_slowly  # type: ignore[method-assign,assignment]
    async with asyncio.timeout(LIMIT_S):
        await at.ask(client)
    assert client.has_all


async def test_a_forced_unload_ends_each_stream_with_an_event_that_says_so(at: Rig) -> None:
    at.engine.answer = endless
    client = at.client({"stream": True})
    asked = at.begin(client)
    await at.until(lambda: len(client.parts) > 3)
    with at.db.write() as tx:
        move(tx, slot_named(tx, "chat"), SlotState.UNLOADING, Cause.FORCED, Act("worker"))
    await asked
    assert '"code": "slot.unloaded"' in client.parts[-1].decode()
    assert client.has_all
    async with asyncio.timeout(LIMIT_S):
        await at.engine.got[0].gone.wait()


@pytest.mark.parametrize("is_stream", [False, True])
async def test_an_answer_leaves_nothing_to_a_search_for_garbage(at: Rig, is_stream: bool) -> None:
    async def slow(got: Got, line: Line) -> None:
        line.write(EVENTS)
        await asyncio.sleep(3 * LOOK_S)  # until its client is listened to
        line.write(chunk(b"data: [DONE]\n\n") + chunk(b""))

    async def ask() -> None:
        clients = [at.client({"stream": is_stream}) for _ in range(10)]
        await asyncio.gather(*(at.ask(client) for client in clients))
        assert all(client.has_all for client in clients)

    at.engine.answer = slow
    await ask()
    with left_behind() as found:
        await ask()
    assert found["Interrupts"] == found["Answer"] == 0, found
