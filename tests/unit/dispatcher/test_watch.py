"""The watch: what it tells of slots, to whom, and when it rests."""

import asyncio

import pytest
from sqlalchemy import update

from hal0.clock import utc_now
from hal0.db import Database
from hal0.dispatcher.watch import Look, Watch
from hal0.slots.transitions import Act, move
from hal0.states import Cause, SlotState
from hal0.tables import slots
from tests.apis import LIMIT_S, until
from tests.ledger import end, make_slots
from tests.rows import ask_load, ask_unload, claim_next, slot_now

pytestmark = pytest.mark.anyio


async def test_the_first_look_tells_how_the_slot_is(chat: Database) -> None:
    """Who read it before, and then began to watch, misses nothing that happened between."""
    with Watch(chat).slot(slot_now(chat).id) as changes:
        assert await changes.next(LIMIT_S) == slot_now(chat)


async def test_who_watches_is_told_of_the_next_change_of_the_row(chat: Database) -> None:
    with Watch(chat).slot(slot_now(chat).id) as changes:
        await changes.next(LIMIT_S)
        with chat.write() as tx:
            move(tx, slot_now(chat), SlotState.IDLE, Cause.DEMOTED, Act("scan"))
        slot = await changes.next(LIMIT_S)
        assert slot is not None
        assert slot.state is SlotState.IDLE


async def test_who_watches_is_told_of_each_change_of_the_jobs(db: Database) -> None:
    make_slots(db, "chat")
    with Watch(db).slot(slot_now(db).id) as changes:
        await changes.next(LIMIT_S)
        ask_load(db)
        assert await changes.next(LIMIT_S) is not None
        held = claim_next(db)
        assert await changes.next(LIMIT_S) is not None
        end(db, held)
        assert await changes.next(LIMIT_S) is not None


async def test_nothing_new_is_no_news_and_neither_is_a_use(chat: Database) -> None:
    with Watch(chat, 0.01).slot(slot_now(chat).id) as changes:
        await changes.next(LIMIT_S)
        with chat.soft() as tx:
            tx.execute(update(slots).values(last_used_at=utc_now()))
        assert await changes.next(0.3) is None


async def test_a_change_between_two_waits_is_told_at_the_next(chat: Database) -> None:
    watch = Watch(chat, 0.01)
    with watch.slot(slot_now(chat).id) as changes:
        await changes.next(LIMIT_S)
        with chat.write() as tx:
            move(tx, slot_now(chat), SlotState.IDLE, Cause.DEMOTED, Act("scan"))
        looked_ms = watch.looked_ms
        await until(lambda: watch.looked_ms > looked_ms + 50)
        assert await changes.next(0) is not None


async def test_slots_are_told_apart_and_one_look_serves_all(db: Database) -> None:
    one, two = make_slots(db, "one", "two")
    watch, began = Watch(db), set()

    def note(look: Look) -> None:
        began.add(look.began_ms)

    with watch.slot(one.id) as first, watch.slot(two.id) as second:
        stop = [watch.tell(slot.id, note) for slot in (one, two, one)]
        told = await asyncio.gather(first.next(LIMIT_S), second.next(LIMIT_S))
        assert [slot.name for slot in told if slot is not None] == ["one", "two"]
        assert len(began) == 1
        for end_it in stop:
            end_it()


async def test_the_watch_rests_when_nobody_looks_and_looks_again_when_somebody_does(
    chat: Database,
) -> None:
    watch = Watch(chat, 0.01)

    def tasks() -> int:
        return sum(task.get_name() == "watch" for task in asyncio.all_tasks())

    assert tasks() == 0
    for _ in range(2):
        with watch.slot(slot_now(chat).id) as changes, watch.slot(slot_now(chat).id):
            await changes.next(LIMIT_S)
            assert tasks() == 1
        await until(lambda: tasks() == 0)


async def test_a_look_tells_whether_the_slot_drains_and_who_holds_it(chat: Database) -> None:
    looks: list[Look] = []
    stop = Watch(chat, 0.01).tell(slot_now(chat).id, looks.append)
    await until(lambda: looks)
    assert (looks[-1].is_draining, looks[-1].jobs, looks[-1].leases) == (False, (), ())
    asked = ask_unload(chat)
    await until(lambda: looks[-1].is_draining)
    assert [job.id for job in looks[-1].jobs] == list(asked.job_ids)
    stop()


async def test_the_watch_goes_on_when_one_whom_it_tells_fails(
    chat: Database, caplog: pytest.LogCaptureFixture
) -> None:
    watch, looks = Watch(chat, 0.01), list[Look]()

    def fail(_look: Look) -> None:
        raise LookupError("a fault of a test")

    stop = [watch.tell(slot_now(chat).id, call) for call in (fail, looks.append)]
    await until(lambda: len(looks) > 2)
    assert "slot chat was seen, and who asked failed" in caplog.text
    for end_it in stop:
        end_it()


async def test_the_watch_goes_on_when_the_database_is_away_for_a_while(
    chat: Database, caplog: pytest.LogCaptureFixture
) -> None:
    watch = Watch(chat, 0.01)
    with watch.slot(slot_now(chat).id) as changes:
        await changes.next(LIMIT_S)
        away = chat.path.with_suffix(".away")
        chat.close()
        chat.path.rename(away)
        await until(lambda: "slots in use are not seen" in caplog.text)
        away.rename(chat.path)
        seen_ms = watch.looked_ms
        await until(lambda: watch.looked_ms > seen_ms)
        with chat.write() as tx:
            move(tx, slot_now(chat), SlotState.IDLE, Cause.DEMOTED, Act("scan"))
        assert await changes.next(LIMIT_S) is not None
    assert caplog.text.count("slots in use are not seen") == 1
