"""The ledger under any sequence of operators' requests and workers' steps.

Two slots of one engine; workers do in the ledger what the bodies of their jobs do, and nothing
else. After every step the invariants of the model hold; when nothing failed, every slot ends as
its last accepted request wanted it.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from hal0.db import Database
from hal0.errors import ClaimLost, JobAlreadySent, JobSuperseded
from hal0.jobs.ledger import claims
from hal0.jobs.ledger.lane import clear_unload_mark, release
from hal0.jobs.ledger.orders import cancel, retry
from hal0.jobs.ledger.rows import Claim, unfinished_jobs
from hal0.slots.queries import Slot, living_slots
from hal0.slots.transitions import move
from hal0.states import EDGES, Cause, Edge, JobKind, Outcome, SlotState
from hal0.tables import jobs, slots, transitions
from tests.ledger import (
    begin_pull,
    begin_validate,
    die,
    fail,
    job,
    make_slots,
    mark_sent,
    slot_of,
    the_lanes,
    try_claim,
)
from tests.rows import OPERATOR, ask_load, ask_unload, options, slot_now

NAMES = ("one", "two")
VARIANTS = (None, options({"ctx_size": 512}))
GOOD = st.one_of(
    st.tuples(st.just("load"), st.sampled_from(NAMES), st.sampled_from([0, 1])),
    st.tuples(st.just("unload"), st.sampled_from(NAMES), st.just(0)),
    *[st.tuples(st.just("work"), st.just(""), st.integers(0, 3)) for _ in range(3)],
    st.tuples(st.just("claim"), st.just(""), st.integers(0, 1)),
    st.tuples(st.just("die"), st.just(""), st.integers(0, 3)),
)
BAD = st.one_of(
    GOOD,
    GOOD,
    st.tuples(st.just("cancel"), st.sampled_from(NAMES), st.integers(0, 4)),
    st.tuples(st.just("retry"), st.sampled_from(NAMES), st.just(0)),
    st.tuples(st.just("fail"), st.just(""), st.integers(0, 3)),
)
Step = tuple[str, str, int]


@contextmanager
def _fresh(template: Path) -> Iterator[Database]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hal0.db"
        shutil.copy(template, path)
        db = Database(path)
        try:
            make_slots(db, *NAMES)
            yield db
        finally:
            db.close()


@dataclass
class World:
    """Workers over one ledger: what they hold, and what operators were promised."""

    db: Database
    held: list[Claim] = field(default_factory=list)
    wanted: dict[str, object] = field(default_factory=dict)

    def do(self, step: Step) -> None:
        verb, slot, number = step
        before = {name: slot_now(self.db, name).desired for name in NAMES}
        act: Callable[[str, int], None] = getattr(self, verb)
        with suppress(ClaimLost, JobAlreadySent, JobSuperseded):
            act(slot, number)
        if verb in ("work", "claim", "die", "fail"):
            after = {name: slot_now(self.db, name).desired for name in NAMES}
            assert after == before, f"{verb} wrote over what an operator wants"

    # -- operators ------------------------------------------------------------------------------

    def load(self, slot: str, variant: int) -> None:
        ask_load(self.db, slot, options=VARIANTS[variant] or options())
        self.wanted[slot] = VARIANTS[variant] or options()

    def unload(self, slot: str, _: int) -> None:
        ask_unload(self.db, slot)
        self.wanted[slot] = None

    def cancel(self, slot: str, number: int) -> None:
        with self.db.write() as tx:
            open_jobs = unfinished_jobs(tx, slot_now(self.db, slot).id)
            if open_jobs:
                cancel(tx, open_jobs[number % len(open_jobs)].id, OPERATOR)

    def retry(self, slot: str, _: int) -> None:
        newest = select(jobs.c.id).where(jobs.c.state == "failed").order_by(jobs.c.id.desc())
        with self.db.write() as tx:
            slot_id = slot_now(self.db, slot).id
            job_id = tx.execute(newest.where(jobs.c.slot_id == slot_id)).scalars().first()
            if job_id is not None:
                retry(tx, job_id, OPERATOR)

    # -- workers --------------------------------------------------------------------------------

    def claim(self, _: str, worker: int) -> None:
        held = try_claim(self.db, f"owner-{worker}")
        if held is not None:
            self.held.append(held)

    def _pick(self, number: int) -> Claim | None:
        return self.held.pop(number % len(self.held)) if self.held else None

    def die(self, _: str, number: int) -> None:
        if (held := self._pick(number)) is not None:
            die(self.db, held, crash_limit=1000)

    def fail(self, _: str, number: int) -> None:
        if (held := self._pick(number)) is not None:
            fail(self.db, held)
            self.settle(held.job.id)

    def work(self, slot: str, number: int) -> None:
        """One step of a claimed job: its begin, or its end."""
        if not self.held:
            self.claim(slot, number % 2)
        held = self._pick(number)
        if held is None:
            return
        body = {"pull": self._pull, "validate": self._validate, "unload": self._unload}
        again = body.get(held.job.kind.value, self._load)(held, slot_of(self.db, held))
        if again is not None:
            self.held.append(again)

    def _end(self, held: Claim, outcome: Outcome = Outcome.DONE) -> None:
        with self.db.write() as tx:
            claims.finish(tx, held, outcome)

    def _pull(self, held: Claim, slot: Slot) -> Claim | None:
        if slot.state in (SlotState.OFFLINE, SlotState.ERROR) and held.job.attempt == 1:
            begin_pull(self.db, held)
            return held
        self._end(held)
        return None

    def _validate(self, held: Claim, slot: Slot) -> Claim | None:
        if slot.state in (SlotState.OFFLINE, SlotState.ERROR, SlotState.PULLING):
            begin_validate(self.db, held)
            return held
        self._end(held)
        return None

    def _unload(self, held: Claim, slot: Slot) -> Claim | None:
        if held.job.was_sent:
            with self.db.write() as tx:
                now = move(tx, claims.check(tx, held), SlotState.OFFLINE, Cause.UNLOADED, held.act)
                tx.execute(update(slots).where(slots.c.id == now.id).values(model_id=None))
                clear_unload_mark(tx, now.id, held.job.id, held.job.attempt)
                claims.finish(tx, held)
        elif slot.state is SlotState.ERROR and held.chain.goal is JobKind.UNLOAD:
            with self.db.write() as tx:
                move(tx, claims.check(tx, held), SlotState.OFFLINE, Cause.CLEARED, held.act)
                claims.finish(tx, held)
        elif not slot.is_dispatchable or (
            held.chain.goal is JobKind.LOAD and slot.holds(held.chain.model_id, held.chain.options)
        ):
            self._end(held, Outcome.SKIPPED)
        else:
            return mark_sent(self.db, held)
        return None

    def _load(self, held: Claim, slot: Slot) -> Claim | None:
        if held.job.was_sent:
            self._become_ready(held)
        elif slot.holds(held.chain.model_id, held.chain.options):
            self._end(held, Outcome.SKIPPED)
        else:
            return mark_sent(self.db, held)
        return None

    def _become_ready(self, held: Claim) -> None:
        model_id, wanted = held.load_key_args
        with self.db.write() as tx:
            slot = claims.check(tx, held)
            values = {"model_id": model_id, "held_options": dict(wanted)}
            tx.execute(update(slots).where(slots.c.id == slot.id).values(**values))
            move(tx, slot, SlotState.READY, Cause.LOADED, held.act)
            release(tx, held.job.engine_id, held.job.id, held.job.sent_attempt or 0)
            claims.finish(tx, held)

    def settle(self, job_id: int) -> None:
        """Let the engine settle what a failed job left behind."""
        for lane in the_lanes(self.db):
            if lane.job_id == job_id:
                with self.db.write() as tx:
                    release(tx, lane.engine_id, lane.job_id, lane.attempt)
        for name in NAMES:
            with self.db.write() as tx:
                slot = slot_now(self.db, name)
                clear_unload_mark(tx, slot.id, job_id, slot.unload_attempt or 0)

    def work_to_the_end(self) -> None:
        for _ in range(400):
            if not self.held and not self._claims_one():
                return
            self.do(("work", "", 0))
        raise AssertionError("it never ends")

    def _claims_one(self) -> bool:
        self.claim("", 0)
        return bool(self.held)


def _check(db: Database) -> None:
    with db.read() as tx:
        for slot in living_slots(tx):
            open_jobs = unfinished_jobs(tx, slot.id)
            running = [one.id for one in open_jobs if one.state == "running"]
            assert running in ([], [one.id for one in open_jobs[:1]]), "the first one runs, alone"
            places = [(one.position, one.step) for one in open_jobs]
            assert places == sorted(set(places))
            if slot.is_transient:
                assert open_jobs, f"{slot.name} is {slot.state} and no job owns it"
            rows = tx.execute(
                select(transitions).where(transitions.c.slot_id == slot.id).order_by("id")
            ).all()
            state = None
            for row in rows:
                assert row.from_state == state
                state = row.to_state
                source = None if row.from_state is None else SlotState(row.from_state)
                assert Edge(source, SlotState(state), Cause(row.cause)) in EDGES
            assert slot.state == state
            assert slot.is_dispatchable <= (slot.model_id is not None)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(steps=st.lists(BAD, max_size=45))
def test_whatever_happens_the_ledger_stays_in_order(migrated_file: Path, steps: list[Step]) -> None:
    with _fresh(migrated_file) as db:
        world = World(db)
        for step in steps:
            world.do(step)
            _check(db)
        for lane in the_lanes(db):
            if not job(db, lane.job_id).is_unfinished:
                world.settle(lane.job_id)
        world.work_to_the_end()
        _check(db)
        for name in NAMES:
            assert not slot_now(db, name).is_transient
            assert not [one for one in world.held if one.job.slot_id == slot_now(db, name).id]
        assert the_lanes(db) == []


@settings(max_examples=60, deadline=None, derandomize=True)
@given(steps=st.lists(GOOD, max_size=45))
def test_when_nothing_fails_a_slot_ends_as_its_last_request_wanted(
    migrated_file: Path, steps: list[Step]
) -> None:
    """supersede, sent_is_waited_for, dedup: load, unload, load ends loaded."""
    with _fresh(migrated_file) as db:
        world = World(db)
        for step in steps:
            world.do(step)
        world.work_to_the_end()
        for name, wanted in world.wanted.items():
            slot = slot_now(db, name)
            if wanted is None:
                assert (slot.state, slot.desired) == ("offline", "unloaded")
            else:
                assert (slot.state, slot.desired) == ("ready", "loaded")
                assert slot.held_options == wanted
