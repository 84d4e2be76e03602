"""A request whose engine has lost the model: looked at once, woken once, sent again once or not."""

import asyncio
from dataclasses import dataclass

import pytest

from hal0.clock import monotonic_ms
from hal0.db import Database
from hal0.dispatcher.admission import RECHECK_S
from hal0.errors import EngineBadAnswer, EngineUnreachable, SlotLoading
from hal0.jobs.losses import lose
from hal0.jobs.periodic import end_turn, take_turn
from hal0.registry.roster import engine_named, note_scan
from hal0.slots.transitions import Act
from hal0.states import Cause
from tests.ledger import unfinished
from tests.raw_engine import EVENTS, OK, Got, Line, chunk, says
from tests.rows import run_load, slot_now
from tests.unit.dispatcher.rig import LIMIT_S, Rig

pytestmark = pytest.mark.anyio


async def reset(got: Got, line: Line) -> None:
    line.transport.abort()


async def test_a_stream_to_an_engine_without_the_model_is_not_sent_again(at: Rig) -> None:
    lacks = says({"error": {"code": "model_not_loaded", "message": "no"}}, "404 No")

    async def answer(got: Got, line: Line) -> None:
        take_the_model(at)
        await lacks(got, line)

    at.engine.answer = answer
    with pytest.raises(SlotLoading, match="does not have the model of slot chat") as caught:
        await at.ask(at.client({"stream": True}))
    assert caught.value.retry_after_s
    assert len(at.engine.got) == 1


def take_the_model(at: Rig) -> None:
    """Write what a worker does that finds the model gone, to be loaded again."""
    slot = slot_now(at.db)
    with at.db.write() as tx:
        lose(tx, slot, Cause.EVICTED_BY_ENGINE, Act("reconcile"), restores=True)


@pytest.mark.parametrize("refuses", [True, False])
async def test_a_request_is_sent_again_once_when_its_slot_was_found_empty_and_woken(
    at: Rig, refuses: bool
) -> None:
    lacks = says({"error": {"code": 400, "message": "model is not loaded"}}, "400 No")

    async def answer(got: Got, line: Line) -> None:
        if len(at.engine.got) > 1:
            await says({"choices": [1]})(got, line)
            return
        take_the_model(at)
        await (lacks if refuses else reset)(got, line)

    at.engine.answer = answer
    client = at.client()
    asked = at.begin(client)
    await at.until(lambda: unfinished(at.db))
    run_load(at.db)
    await asked
    assert (client.status, b"".join(client.parts)) == (200, b'{"choices": [1]}')
    assert [got.json()["model"] for got in at.engine.got] == ["tiny", "tiny"]
    await at.is_released()


async def test_it_is_not_sent_a_third_time(at: Rig) -> None:
    async def answer(got: Got, line: Line) -> None:
        take_the_model(at)
        line.transport.abort()

    at.engine.answer = answer
    asked = at.begin(at.client())
    await at.until(lambda: unfinished(at.db))
    run_load(at.db)
    with pytest.raises(EngineBadAnswer):
        await asked
    assert len(at.engine.got) == 2


async def test_nothing_is_sent_again_when_the_client_has_seen_some_of_an_answer(at: Rig) -> None:
    async def breaks(got: Got, line: Line) -> None:
        line.write(OK + b"Content-Length: 100\r\n\r\nhalf")
        await at.until(lambda: client.parts)
        take_the_model(at)
        line.transport.abort()

    at.engine.answer = breaks
    client = at.client()
    await asyncio.wait_for(at.ask(client), LIMIT_S)
    assert (client.parts, client.has_all) == ([b"half"], False)
    assert len(at.engine.got) == 1


@dataclass(frozen=True)
class Looks:
    """Looks at the engine, as a worker takes them in turns."""

    db: Database
    turn: str

    def has_begun(self) -> bool:
        """Begin one if it is due; else it would be so in an hour."""
        return take_turn(self.db, self.turn, 3600)

    def end(self, began_ms: int) -> None:
        """End it: the list was the engine's when it began, and the model was in it."""
        with self.db.write() as tx:
            note_scan(tx, engine_named(tx, "raw"), {}, began_ms)
        end_turn(self.db, self.turn)


@pytest.fixture
def looks(at: Rig) -> Looks:
    with at.db.read() as tx:
        looks = Looks(at.db, f"scan:{engine_named(tx, 'raw').id}")
    assert looks.has_begun()
    return looks


async def test_the_engine_is_looked_at_at_once_and_nothing_is_sent_again_if_the_model_is_there(
    at: Rig, looks: Looks
) -> None:
    looks.end(monotonic_ms())
    at.engine.answer = reset
    asked = at.begin(at.client())
    await at.until(looks.has_begun)
    looks.end(monotonic_ms())
    with pytest.raises(EngineBadAnswer):
        await asked
    assert len(at.engine.got) == 1


async def test_the_engine_is_looked_at_at_once_when_an_answer_breaks_off(
    at: Rig, looks: Looks
) -> None:
    looks.end(monotonic_ms())

    async def breaks(got: Got, line: Line) -> None:
        line.write(EVENTS + chunk(b"data: 1\n\n"))
        await at.until(lambda: client.parts)
        line.transport.abort()

    at.engine.answer = breaks
    client = at.client()
    await at.ask(client)
    await at.until(looks.has_begun)
    assert len(at.engine.got) == 1


async def test_whose_engine_is_not_there_is_told_at_once_and_waits_for_no_look(
    at: Rig, looks: Looks
) -> None:
    looks.end(monotonic_ms())
    await at.engine.__aexit__(None, None, None)
    with pytest.raises(EngineUnreachable):
        await asyncio.wait_for(at.ask(at.client()), 0.8 * RECHECK_S)
    await at.until(looks.has_begun)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_look_that_had_begun_before_says_nothing_of_it(
    at: Rig, looks: Looks, is_stream: bool
) -> None:
    began_ms = monotonic_ms()
    at.engine.answer = reset
    asked = at.begin(at.client({"stream": is_stream}))
    await at.until(lambda: asked.done() if is_stream else at.engine.got)
    looks.end(began_ms)
    await at.until(looks.has_begun)
    assert asked.done() == is_stream
    looks.end(monotonic_ms())
    with pytest.raises(EngineBadAnswer):
        await asked


async def test_each_request_that_is_refused_has_the_engine_looked_at_after_it(
    at: Rig, looks: Looks
) -> None:
    """Also one that is refused while another one still waits to be told."""
    looks.end(monotonic_ms())
    at.engine.answer = reset
    asked = [at.begin(at.client())]
    await at.until(looks.has_begun)
    began_ms = monotonic_ms()
    asked.append(at.begin(at.client()))
    await at.until(lambda: len(at.engine.got) == 2)
    looks.end(began_ms)
    await at.until(looks.has_begun)
    looks.end(monotonic_ms())
    for one in asked:
        with pytest.raises(EngineBadAnswer):
            await one
