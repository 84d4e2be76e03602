"""Whatever happens in whichever order: counts, leases and edges agree, and nothing is left behind.

Two API processes ask several slots at once, which others unload, lose, demote and call unleased; a
process stops beating, and finds the database refused.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select

from hal0.clock import monotonic_ms
from hal0.db import Database
from hal0.dispatcher.edges import NotDispatchable
from hal0.dispatcher.places import Lease
from hal0.dispatcher.serving import ALIVE_MS
from hal0.errors import DatabaseError, DatabaseFull, SlotFull
from hal0.jobs.losses import forget_held, lose
from hal0.settings import Settings
from hal0.slots.leases import is_held
from hal0.slots.queries import living_slots, slot_named
from hal0.slots.transitions import Act, move
from hal0.states import Cause, SlotState
from hal0.tables import leases
from tests.apis import Api, the_leases, until
from tests.ledger import make_slots
from tests.rows import ask_load, run_load, slot_now

SLOTS: Final = ("one", "two", "three", "four")
WORKER: Final = Act("worker")
FULL: Final = DatabaseFull("no room", retry_after_s=5)

apis = st.integers(0, 1)
picks = st.integers(0, 3)
steps = st.one_of(
    st.tuples(st.just("acquire"), apis),
    st.tuples(st.just("acquire"), apis),
    st.tuples(st.just("release"), picks),
    st.tuples(st.just("release"), picks),
    st.tuples(st.just("cancel"), picks),
    st.tuples(st.just("pause"), st.sampled_from((0, 1, 3, 20))),
    st.tuples(st.just("pause"), st.sampled_from((0, 1, 3, 20))),
    st.tuples(st.just("force"), apis),
    st.tuples(st.just("evict"), apis),
    st.tuples(st.just("demote"), apis),
    st.tuples(st.just("call_dead"), apis),
    st.tuples(st.just("stand_still"), apis),
    st.tuples(st.just("refuse"), apis),
    st.tuples(st.just("recover"), apis),
)
Script = Sequence[tuple[str, int]]


class Player:
    """Does to one slot what a script says, with requests of two processes."""

    def __init__(self, db: Database, slot: str, processes: Sequence[Api]) -> None:
        self.db = db
        self.slot = slot
        self.apis = processes
        self.tasks: list[tuple[Api, asyncio.Task[Lease]]] = []
        self.held: list[tuple[Api, Lease]] = []

    async def play(self, script: Script) -> None:
        for verb, number in script:
            await getattr(self, verb)(number)
            self.collect()
            check(self.db)

    def collect(self) -> None:
        """Sort the requests that wait no more: into those that run, and those that were refused."""
        for api, task in [pair for pair in self.tasks if pair[1].done()]:
            self.tasks.remove((api, task))
            if task.cancelled():
                continue
            if task.exception() is None:
                self.held.append((api, task.result()))
            else:
                assert isinstance(task.exception(), (NotDispatchable, SlotFull, DatabaseError))

    async def acquire(self, number: int) -> None:
        api = self.apis[number]
        self.tasks.append((api, asyncio.create_task(api.acquire(self.slot))))

    async def release(self, number: int) -> None:
        if self.held:
            api, lease = self.held.pop(number % len(self.held))
            api.release(lease, lease)

    async def cancel(self, number: int) -> None:
        if self.tasks:
            self.tasks[number % len(self.tasks)][1].cancel()

    async def pause(self, number: int) -> None:
        await asyncio.sleep(number / 1000)

    async def force(self, _number: int) -> None:
        with self.db.write() as tx:
            slot = slot_named(tx, self.slot)
            if slot.state is not SlotState.SERVING:
                return
            slot = move(tx, slot, SlotState.UNLOADING, Cause.FORCED, WORKER)
            move(tx, slot, SlotState.OFFLINE, Cause.UNLOADED, WORKER)
            forget_held(tx, slot.id)
        self.load()

    async def evict(self, _number: int) -> None:
        with self.db.write() as tx:
            slot = slot_named(tx, self.slot)
            lose(tx, slot, Cause.EVICTED_BY_ENGINE, WORKER, restores=False)
        self.load()

    def load(self) -> None:
        ask_load(self.db, self.slot)
        run_load(self.db)

    async def demote(self, _number: int) -> None:
        with self.db.write() as tx:
            slot = slot_named(tx, self.slot)
            if slot.state is SlotState.READY:
                move(tx, slot, SlotState.IDLE, Cause.DEMOTED, Act("scan"))

    async def call_dead(self, number: int) -> None:
        """As `jobs.leases` does with a dead one's, though it lives."""
        with self.db.write() as tx:
            slot = slot_named(tx, self.slot)
            is_its = (leases.c.slot_id == slot.id) & (leases.c.owner_id == self.apis[number].name)
            tx.execute(delete(leases).where(is_its))
            if slot.state is SlotState.SERVING and not is_held(tx, slot.id, slot.generation):
                move(tx, slot, SlotState.READY, Cause.LEASES_CLEARED, WORKER)

    async def stand_still(self, number: int) -> None:
        self.apis[number].last_beat_ms = monotonic_ms() - ALIVE_MS

    async def refuse(self, number: int) -> None:
        self.apis[number].db.refusal = FULL

    async def recover(self, number: int) -> None:
        self.apis[number].last_beat_ms = None
        self.apis[number].db.refusal = None

    async def agree(self) -> None:
        """Wait until rows and memory agree of what still runs."""
        self.collect()
        for api in self.apis:
            await until(partial(self.is_agreed, api))

    def is_agreed(self, api: Api) -> bool:
        row = leases.c.slot_id == slot_now(self.db, self.slot).id, leases.c.owner_id == api.name
        with self.db.read() as tx:
            written = tx.execute(select(leases.c.in_flight).where(*row)).scalar()
        return (written or 0) == api.in_flight(self.slot)

    async def end(self) -> None:
        """Let every request end, those that waited for a place too."""
        while self.held or self.tasks:
            for api, lease in self.held:
                api.release(lease)
            self.held.clear()
            await asyncio.sleep(0.005)
            self.collect()


def check(db: Database) -> None:
    """At each commit: a slot serves if, and only if, somebody has a lease on what it holds."""

    with db.read() as tx:
        for slot in living_slots(tx):
            is_serving = slot.state is SlotState.SERVING
            assert is_serving == is_held(tx, slot.id, slot.generation), slot


async def play_all(
    db: Database, configured: Settings, linger_s: float, scripts: Sequence[Script]
) -> None:
    limits = {"serving_linger_s": linger_s, "max_in_flight": 2, "max_waiting": 2, "look_s": 0.01}
    names = [f"api-{monotonic_ms()}-{number}" for number in (1, 2)]
    async with (
        Api(db, configured, names[0], **limits) as one,
        Api(db, configured, names[1], **limits) as two,
    ):
        players = [Player(db, slot, (one, two)) for slot in SLOTS]
        pairs = zip(players, scripts, strict=True)
        await asyncio.gather(*(player.play(script) for player, script in pairs))
        await asyncio.gather(*(players[0].recover(number) for number in (0, 1)))
        await asyncio.gather(*(player.agree() for player in players))
        check(db)
        await asyncio.gather(*(player.end() for player in players))
        await until(lambda: not the_leases(db))
        check(db)
        for slot in SLOTS:
            assert (one.in_flight(slot), two.in_flight(slot)) == (0, 0)
            assert slot_now(db, slot).state in (SlotState.READY, SlotState.IDLE)


@pytest.fixture
def several(db: Database) -> Database:
    make_slots(db, *SLOTS)
    for slot in SLOTS:
        ask_load(db, slot)
        run_load(db)
    return db


@given(
    linger_s=st.sampled_from((0.0, 0.02)),
    scripts=st.tuples(*(st.lists(steps, min_size=15, max_size=60) for _ in SLOTS)),
)
@settings(
    max_examples=4,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_counts_leases_and_edges_agree_whatever_happens(
    several: Database, linger_s: float, scripts: list[Script]
) -> None:
    configured = Settings(home=several.path.parent)
    asyncio.run(play_all(several, configured, linger_s, scripts))
