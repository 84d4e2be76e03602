"""The stream of events: where it begins, what it tells, when it ends. Spoken to in ASGI."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack

import httpx
import pytest
from sqlalchemy import delete, event, insert, update
from starlette.applications import Starlette

from hal0.access import tokens
from hal0.access.roles import Role
from hal0.api.app import create_app
from hal0.api.feed import MOST_LISTENERS, MOST_UNTAKEN, Feed
from hal0.api.news import PAGE
from hal0.clock import utc_now
from hal0.db import Database
from hal0.settings import Settings
from hal0.slots.queries import slot_named
from hal0.slots.transitions import Act, move
from hal0.states import Cause, SlotState
from hal0.tables import boots, prune_permits, slots, transitions
from tests.apis import MoodyDatabase, until
from tests.ledger import make_slots
from tests.rows import ask_load, make_slot
from tests.streams import Client

pytestmark = pytest.mark.anyio


@pytest.fixture
async def feed(app: Starlette, db: Database) -> AsyncIterator[Feed]:
    with db.write() as tx:
        tx.execute(insert(boots).values(epoch=7, boot_id="of-a-test", first_seen_at=utc_now()))
    feed: Feed = app.state.feed
    feed.look_s = 0.02
    yield feed
    await feed.close()


def move_on(db: Database, name: str = "chat", times: int = 1) -> None:
    """Give a slot so many transitions, two and two: to starting and back."""
    there, back = (SlotState.STARTING, Cause.CHECKED), (SlotState.OFFLINE, Cause.VALIDATED)
    for _ in range(times):
        with db.soft() as tx:
            slot = slot_named(tx, name)
            move(tx, slot, *(there if slot.state is SlotState.OFFLINE else back), Act("test"))


def ids(db: Database) -> list[int]:
    """Return the ids of all rows of the audit."""
    with db.read() as tx:
        return list(tx.execute(transitions.select().order_by(transitions.c.id)).scalars())


async def got(client: Client, count: int) -> None:
    """Wait until a client was told so many rows."""
    await until(lambda: len(client.rows) >= count)


def tasks() -> int:
    """Return how many feeds look."""
    return sum(task.get_name() == "feed" for task in asyncio.all_tasks())


async def test_it_begins_with_a_snapshot_that_says_what_rest_says(
    app: Starlette, feed: Feed, api: httpx.AsyncClient, db: Database
) -> None:
    make_slots(db, "chat", "code")
    ask_load(db)
    async with Client(app) as client:
        snapshot = await client.started()
        assert client.events[0].name == "snapshot"
        assert client.events[0].id == f"7-{ids(db)[-1]}"
        assert snapshot.keys() == {"epoch", "at", "last_id", "slots", "jobs", "incidents"}
        assert (snapshot["epoch"], snapshot["last_id"]) == (7, ids(db)[-1])
        listed = (await api.get("/api/v1/slots")).json()["items"]
        assert snapshot["slots"] == sorted(listed, key=lambda slot: slot["id"])
        jobs = (await api.get("/api/v1/jobs")).json()["items"]
        assert snapshot["jobs"] == jobs[::-1]
        assert client.comments[0] == "retry: 2000"
        assert client.status == 200
        assert client.headers["content-type"] == "text/event-stream"
        assert client.headers["x-accel-buffering"] == "no"
        assert client.headers["cache-control"] == "no-store"


async def test_what_is_committed_then_is_told_as_it_happens(
    app: Starlette, feed: Feed, api: httpx.AsyncClient, db: Database
) -> None:
    make_slots(db, "chat")
    async with Client(app) as client:
        await client.started()
        accepted = ask_load(db)
        await until(lambda: len(client.named("job")) == len(accepted.job_ids))
        move_on(db)
        await until(lambda: client.rows)
        rows = (await api.get("/api/v1/transitions", params={"order": "desc"})).json()["items"]
        assert client.named("transition") == rows[:1]
        assert client.events[-1].name == "slot"
        assert client.events[-1].data == (await api.get("/api/v1/slots/chat")).json()
        assert client.last_event_id == f"7-{rows[0]['id']}"


async def test_who_comes_back_gets_the_rows_behind_its_last_id_then_a_snapshot_then_what_happens(
    app: Starlette, feed: Feed, db: Database
) -> None:
    make_slot(db)
    move_on(db, times=5)
    has = ids(db)[1]
    for client in (Client(app, f"7-{has}"), Client(app, query=f"last_event_id=7-{has}")):
        async with client:
            await client.started()
            before = [row for row in ids(db) if row > has]
            assert [told.name for told in client.events] == ["transition"] * len(before) + [
                "snapshot"
            ]
            move_on(db)
            await got(client, len(before) + 1)
            assert client.rows == [row for row in ids(db) if row > has]


async def test_who_comes_back_and_missed_nothing_gets_the_snapshot_alone(
    app: Starlette, feed: Feed, db: Database
) -> None:
    make_slot(db)
    async with Client(app, f"7-{ids(db)[-1]}") as client:
        await client.started()
        assert [told.name for told in client.events] == ["snapshot"]


@pytest.mark.parametrize(
    ("last_event_id", "why"),
    [
        ("6-1", "6-1 is of another boot; this is 7"),
        ("7-99", "7-99 is not there; the newest is 1"),
        ("chat", "'chat' is no id of an event"),
        ("-1", "'-1' is no id of an event"),
        ("7-" + "9" * 30, f"'7-{'9' * 30}' is no id of an event"),
    ],
)
async def test_an_id_that_does_not_lead_here_is_told_as_a_reset(
    app: Starlette, feed: Feed, db: Database, last_event_id: str, why: str
) -> None:
    make_slot(db)
    async with Client(app, last_event_id) as client:
        await client.started()
        assert [told.name for told in client.events] == ["reset", "snapshot"]
        assert client.named("reset") == [{"why": why}]
        move_on(db)
        await until(lambda: client.rows)
        assert client.rows == ids(db)[1:]


async def test_where_rows_were_pruned_it_is_told_as_a_reset(
    app: Starlette, feed: Feed, db: Database
) -> None:
    make_slot(db)
    move_on(db, times=9)
    gone = ids(db)[4:6]
    with db.write() as tx:
        tx.execute(insert(prune_permits).values(id=1, actor="prune", at=utc_now()))
        tx.execute(delete(transitions).where(transitions.c.id.in_(gone)))
        tx.execute(delete(prune_permits))
    async with Client(app, f"7-{ids(db)[0]}") as client:
        await client.started()
        assert client.rows == ids(db)[1:4]
        assert [told.name for told in client.events[3:]] == ["reset", "snapshot"]
        assert client.named("reset") == [{"why": f"rows behind 7-{gone[0] - 1} were pruned"}]
    async with Client(app, f"7-{gone[-1]}") as client:
        await client.started()
        assert not client.named("reset")
        assert client.rows == [row for row in ids(db) if row > gone[-1]]


async def test_rows_far_behind_come_in_pages_each_once(
    app: Starlette, feed: Feed, db: Database
) -> None:
    make_slot(db)
    move_on(db, times=2 * PAGE + 7)
    async with Client(app, "7-1") as client:
        await client.started()
        assert client.rows == ids(db)[1:]
        parts = [
            message for message in client.messages if b"transition" in message.get("body", b"")
        ]
        assert len(parts) == 3


async def test_whoever_comes_and_goes_is_told_each_row_once_and_in_order(
    app: Starlette, feed: Feed, db: Database
) -> None:
    """A writer that never rests, readers that leave at any moment and come back with their id."""
    make_slots(db, "chat", "code")
    chance, is_over = random.Random(7), threading.Event()

    def write() -> None:
        while not is_over.is_set():
            move_on(db, chance.choice(("chat", "code")), chance.randint(1, 5))
            is_over.wait(chance.random() / 50)

    async def come_and_go(number: int) -> list[int]:
        told, last_event_id, mine = list[int](), None, random.Random(number)
        for _ in range(12):
            async with Client(app, last_event_id) as client:
                await client.started()
                if last_event_id is None:
                    told = [client.named("snapshot")[0]["last_id"]]
                await asyncio.sleep(mine.random() / 3)
                if mine.random() < 0.3:
                    client.is_reading.clear()
                    await asyncio.sleep(mine.random() / 3)
                    client.is_reading.set()
            assert not client.named("reset")
            told += client.rows
            last_event_id = client.last_event_id
        return told

    writer = threading.Thread(target=write)
    writer.start()
    try:
        told = await asyncio.gather(*map(come_and_go, range(8)))
    finally:
        is_over.set()
        writer.join()
    written = ids(db)
    for one in told:
        assert len(one) > 20
        at = written.index(one[0])
        assert one == written[at : at + len(one)]


async def test_who_does_not_read_is_bounded_and_misses_nothing_once_it_does(
    app: Starlette, db: Database, feed: Feed
) -> None:
    make_slot(db)
    async with Client(app) as slow, Client(app) as quick:
        await slow.started()
        await quick.started()
        slow.is_reading.clear()
        for number in range(1, MOST_UNTAKEN + 10):
            move_on(db)
            await got(quick, number)
        kept = [len(listener._untaken) for listener in feed._listeners]
        assert max(kept) <= MOST_UNTAKEN
        slow.is_reading.set()
        await until(lambda: len(slow.rows) == len(quick.rows))
        assert slow.rows == quick.rows == ids(db)[1:]
        assert len(slow.named("snapshot")) == 2
        assert len(quick.named("snapshot")) == 1


async def test_how_many_listen_costs_no_statement(app: Starlette, feed: Feed, db: Database) -> None:
    make_slot(db)
    asked: list[str] = []
    own = app.state.db

    def note(_c: object, _cursor: object, text: str, *_more: object) -> None:
        if "FROM tokens" not in text:
            asked.append(text)

    event.listen(own._readers, "before_cursor_execute", note)

    async def cost(clients: list[Client]) -> tuple[int, int]:
        before = len(asked)
        for client in clients:
            await client.__aenter__()
        for client in clients:
            await client.started()
        joined = len(asked) - before
        for number in range(1, 5):
            move_on(db)
            for client in clients:
                await got(client, number)
        told = len(asked) - before - joined
        for client in clients:
            await client.leave()
        await until(lambda: tasks() == 0)
        return joined, told

    of_one = await cost([Client(app)])
    of_many = await cost([Client(app) for _ in range(500)])
    event.remove(own._readers, "before_cursor_execute", note)
    for one, many in zip(of_one, of_many, strict=True):
        assert 0 < many <= one + 12, "they share a snapshot when they join, and looks from then on"


async def test_the_feed_rests_when_nobody_listens_and_looks_again_when_somebody_does(
    app: Starlette, feed: Feed, db: Database
) -> None:
    make_slot(db)
    assert tasks() == 0
    for _ in range(2):
        async with Client(app) as client:
            await client.started()
            assert (tasks(), feed.listeners) == (1, 1)
        assert feed.listeners == 0
        await until(lambda: tasks() == 0)


async def test_silence_is_broken_by_a_comment(app: Starlette, feed: Feed, db: Database) -> None:
    assert feed.ping_s == 15
    feed.ping_s = 0.05
    async with Client(app) as client:
        await until(lambda: client.comments.count(": ping") > 2)
        assert client.events[0].name == "snapshot"


async def test_beyond_a_limit_nobody_more_listens(
    app: Starlette, feed: Feed, api: httpx.AsyncClient
) -> None:
    with ExitStack() as crowd:
        for _ in range(MOST_LISTENERS):
            crowd.enter_context(feed.listen("local"))
        refused = await api.get("/api/v1/events")
    assert refused.status_code == 503
    assert refused.json()["code"] == "request.too_many_streams"
    assert refused.headers["retry-after"] == "5"


async def test_a_stream_ends_with_the_token_that_let_it_in(
    app: Starlette, feed: Feed, db: Database
) -> None:
    with db.write() as tx:
        _, ours = tokens.create(tx, "ours", Role.READER, "local")
        _, other = tokens.create(tx, "other", Role.READER, "local")
    async with Client(app, token=ours) as client, Client(app, token=other) as stays:
        await client.started()
        await stays.started()
        with db.write() as tx:
            tokens.revoke(tx, "ours", "local")
        await until(lambda: client.has_ended, limit_s=5)
        assert not stays.has_ended


async def test_who_came_in_without_a_token_is_shown_out_by_the_first_one(
    app: Starlette, feed: Feed, db: Database
) -> None:
    async with Client(app) as client:
        await client.started()
        with db.write() as tx:
            tokens.create(tx, "ours", Role.READER, "local")
        await until(lambda: client.has_ended, limit_s=5)


async def test_a_client_has_no_right_to_it(app: Starlette, feed: Feed, db: Database) -> None:
    with db.write() as tx:
        _, text = tokens.create(tx, "ours", Role.CLIENT, "local")
    async with Client(app, token=text) as client:
        await until(lambda: client.status)
    assert client.status == 403


async def test_every_stream_ends_when_the_server_stops(
    app: Starlette, feed: Feed, db: Database
) -> None:
    async with Client(app) as client:
        await client.started()
        feed.end()
        await until(lambda: client.has_ended)
        async with Client(app) as late:
            await until(lambda: late.has_ended)
    await until(lambda: tasks() == 0)


async def test_the_head_of_a_stream_can_be_asked_for(app: Starlette, feed: Feed) -> None:
    async with Client(app, method="HEAD") as client:
        await until(lambda: client.has_ended)
    assert client.status == 200
    assert feed.listeners == 0


async def test_a_database_that_cannot_be_read_for_a_while_costs_no_row(
    settings: Settings, db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    make_slot(db)
    moody = MoodyDatabase(db.path)
    app = create_app(settings, moody)
    app.state.feed.look_s = 0.02
    async with Client(app) as client:
        await client.started()
        move_on(db)
        await until(lambda: client.rows)
        moody.is_away = True
        move_on(db, times=3)
        await until(lambda: "events are not seen" in caplog.text)
        moody.is_away = False
        await until(lambda: client.rows == ids(db)[1:])
        await until(lambda: len(client.named("snapshot")) == 2)
        move_on(db)
        await until(lambda: client.rows == ids(db)[1:])
    assert caplog.text.count("events are not seen") == 1
    await app.state.feed.close()
    moody.close()


async def test_what_no_row_of_the_audit_tells_is_told_too(
    app: Starlette, feed: Feed, db: Database
) -> None:
    make_slot(db)
    async with Client(app) as client:
        await client.started()
        with db.write() as tx:
            tx.execute(update(slots).values(pinned=True))
        await until(lambda: client.named("slot"))
        assert client.named("slot")[0]["pinned"] is True
        assert client.last_event_id == client.events[0].id
        with db.write() as tx:
            tx.execute(update(slots).values(deleted_at=utc_now()))
        await until(lambda: client.named("slot_deleted"))
        assert client.named("slot_deleted") == [{"id": 1, "name": "chat"}]
