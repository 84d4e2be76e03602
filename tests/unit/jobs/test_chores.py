"""Periodic work: an engine that does not answer holds up neither the others nor a worker's jobs."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huey import Huey
from sqlalchemy import select, update

from hal0.clock import monotonic_ms, utc_now
from hal0.db import Database
from hal0.jobs.ledger.breaker import PARKED_AFTER, count_sent
from hal0.jobs.reading import try_health
from hal0.jobs.rounds import UNWELL_S, Rounds, interval_s
from hal0.registry.roster import (
    EngineRow,
    add_engine,
    engine_named,
    note_failure,
    note_health,
)
from hal0.settings import Settings
from hal0.states import JobKind, SlotState
from hal0.tables import breakers, periodic, slots
from tests.fakes.lemond import Lemond
from tests.ledger import LIMIT_S, eventually, never, the_lanes
from tests.rows import ask_load, slot_now
from tests.unit.jobs.conftest import MakeWorker
from tests.worker import Worker, equip, the_lemond
from workers.tasks import make_huey

SHORT_MS = 1500


def _due(huey: Huey) -> dict[str, threading.Thread]:
    """Return a thread for each periodic task, not begun."""
    tasks = huey.read_periodic(utc_now())
    return {task.name: threading.Thread(target=task.execute, daemon=True) for task in tasks}


def _tick(huey: Huey) -> None:
    """Do what is due, one after the other, as the only thread of a worker that is free would."""
    for task in huey.read_periodic(utc_now()):
        task.execute()


@contextmanager
def _told_to_stop(worker: Worker, thread: threading.Thread) -> Iterator[None]:
    try:
        yield
    finally:
        worker.ctx.stopping.set()
        thread.join(LIMIT_S)


def _engine(db: Database, name: str) -> EngineRow:
    with db.read() as tx:
        return engine_named(tx, name)


@pytest.fixture
def hung(db: Database, settings: Settings, tmp_path: Path) -> Iterator[Lemond]:
    """A second engine, which takes connections and answers nothing."""
    with Lemond(settings.models, call_log=tmp_path / "hung.ndjson") as server:
        row = {"name": "hung", "kind": "lemonade", "url": server.url, "key_file": None}
        with db.write() as tx:
            add_engine(tx, {**row, "settle_s": 60})
        server.script(health="hang", live="hang")
        yield server
        server.script(health="ok", live="ok")


def test_while_one_engine_hangs_the_other_is_looked_at_and_settled_and_no_worker_waits(
    db: Database, settings: Settings, lemond: Lemond, hung: Lemond, make_worker: MakeWorker
) -> None:
    died = Worker(db, settings, load_timeout_s=0.4)
    equip(db, "chat")
    lemond.script(models={"m-chat": {"load": "hang"}})
    ask_load(db)
    died.work()
    died.close()
    assert the_lanes(db), "there is something to settle"
    hueys = [make_huey(make_worker(scan_s=1).ctx) for _ in range(2)]
    seen = len(lemond.calls("/v1/health"))

    def is_so() -> bool:
        for huey in hueys:
            _tick(huey)
        return len(lemond.calls("/v1/health")) > seen + 3 and bool(hung.calls("/v1/health"))

    eventually(is_so)
    lemond.script(models={"m-chat": {"load": "ok"}})
    seen = len(lemond.calls("/v1/health"))
    eventually(lambda: is_so() and not the_lanes(db))
    assert len(hung.calls("/v1/health")) == 1, "a look that is under way is nobody else's turn"


def test_a_settling_that_waits_for_its_engine_lets_scans_pass(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    worker = make_worker(load_timeout_s=0.4)
    equip(db, "chat")
    lemond.script(models={"m-chat": {"load": "hang"}})
    ask_load(db)
    worker.run(worker.work_up_to(JobKind.LOAD))
    assert the_lanes(db), "there is something to settle"
    lemond.script(health="hang")
    seen = len(lemond.calls("/v1/health"))
    huey = make_huey(worker.ctx)
    chores = _due(huey)
    assert sorted(chores) == ["prune", "scan", "settle"]
    chores["settle"].start()
    with _told_to_stop(worker, chores["settle"]):
        eventually(lambda: len(lemond.calls("/v1/health")) > seen)
        begun_ms = monotonic_ms()
        _tick(huey)
        assert monotonic_ms() - begun_ms < SHORT_MS, "a thread waits for the engine too"
        assert chores["settle"].is_alive()
    assert not chores["settle"].is_alive(), "a process that must exit waits for no engine"


def test_a_look_keeps_its_turn_at_each_tick_until_it_has_ended(
    db: Database, hung: Lemond, worker: Worker
) -> None:
    rounds = Rounds(worker.ctx)
    rounds.begin()
    eventually(lambda: hung.calls("/v1/health"))
    turn = periodic.c.name == f"scan:{_engine(db, 'hung').id}"

    def free_from(ms: int) -> None:
        with db.soft() as tx:
            tx.execute(update(periodic).where(turn).values(next_ms=ms))
        rounds.begin()

    def held_ms() -> int:
        with db.read() as tx:
            held = tx.execute(select(periodic.c.next_ms).where(turn)).scalar_one()
        return int(held) - monotonic_ms()

    free_from(monotonic_ms() + 1000)
    assert held_ms() > 1000
    free_from(0)
    never(lambda: len(hung.calls("/v1/health")) > 1)
    hung.script(health="ok", live="ok")
    rounds.wait()
    assert held_ms() <= 0


def test_a_process_that_must_exit_waits_for_no_look(hung: Lemond, worker: Worker) -> None:
    rounds = Rounds(worker.ctx)
    rounds.begin()
    eventually(lambda: hung.calls("/v1/health"))
    worker.ctx.stopping.set()
    ended = threading.Thread(target=rounds.wait, daemon=True)
    ended.start()
    ended.join(LIMIT_S)
    assert not ended.is_alive()


@pytest.mark.parametrize("count", [1, 2])
def test_a_look_that_cannot_be_is_told_and_another_is_taken(
    db: Database, worker: Worker, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    """The same with one engine as with several: it is one thread's, not the tick's."""
    with db.write() as tx:
        for number in range(count):
            row = {"name": f"odd-{number}", "kind": "odd", "url": f"http://127.0.0.1:{number + 1}"}
            add_engine(tx, {**row, "key_file": None, "settle_s": 1})
    worker.look_round()
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    for number in range(count):
        assert any(f"engine odd-{number} is not scanned" in message for message in told)


# -- how often -------------------------------------------------------------------------------------


def _interval_s(db: Database, settings: Settings) -> float:
    with db.read() as tx:
        return interval_s(tx, the_lemond(db), settings)


def test_an_engine_is_looked_at_often_while_it_is_not_well(
    db: Database, lemond: Lemond, settings: Settings
) -> None:
    assert _interval_s(db, settings) == UNWELL_S, "it was never seen"
    with db.soft() as tx:
        note_health(tx, the_lemond(db).id, "1-1")
    assert _interval_s(db, settings) == settings.scan_s
    with db.soft() as tx:
        note_failure(tx, the_lemond(db).id, {"code": "engine.timeout"})
    assert _interval_s(db, settings) == UNWELL_S


def test_an_engine_is_looked_at_often_while_something_may_be_restored_and_no_longer(
    db: Database, lemond: Lemond, settings: Settings
) -> None:
    equip(db, "chat", "other")
    with db.soft() as tx:
        note_health(tx, the_lemond(db).id, "1-1")
        tx.execute(update(slots).where(slots.c.name == "chat").values(restore={}))
    assert _interval_s(db, settings) == UNWELL_S
    with db.write() as tx:
        count_sent(tx, slot_now(db).id)
    assert _interval_s(db, settings) == settings.scan_s, "its breaker refuses"
    with db.write() as tx:
        tx.execute(update(breakers).values(opens_ms=monotonic_ms()))
    assert _interval_s(db, settings) == UNWELL_S, "it has opened"
    with db.write() as tx:
        tx.execute(update(breakers).values(sent=PARKED_AFTER))
    assert _interval_s(db, settings) == settings.scan_s, "only an operator may load it"
    with db.write() as tx:
        tx.execute(update(slots).where(slots.c.name == "other").values(restore={}))
    assert _interval_s(db, settings) == UNWELL_S, "another slot's may be"


def test_what_a_job_sees_of_an_engines_death_is_looked_at_soon(
    db: Database, lemond: Lemond, make_worker: MakeWorker
) -> None:
    """Its turn was over while it was well, and the next an hour away."""
    worker = make_worker(scan_s=3600)
    worker.look_round()
    assert the_lemond(db).is_well
    lemond.kill()
    assert try_health(worker.ctx, the_lemond(db), 1) is None
    lemond.start()

    def is_well() -> bool:
        worker.look_round()
        return the_lemond(db).is_well

    eventually(is_well)


# -- engines that are set up badly -----------------------------------------------------------------


def test_an_engine_with_a_senseless_address_does_not_keep_others_from_being_reconciled(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    with db.write() as tx:
        for name, url in (("aaa", "http://127.0.0.1:99999"), ("aab", "http://xn--a:1")):
            row = {"name": name, "kind": "lemonade", "url": url, "key_file": None, "settle_s": 1}
            add_engine(tx, row)
    equip(db, "chat")
    ask_load(db)
    worker.work()
    lemond.drop("m-chat")

    def is_noticed() -> bool:
        worker.look_round()
        return slot_now(db).state is SlotState.OFFLINE

    eventually(is_noticed)


def test_a_key_file_that_is_a_fifo_holds_up_nobody(
    db: Database, settings: Settings, lemond: Lemond, worker: Worker
) -> None:
    fifo = settings.home / "key"
    os.mkfifo(fifo)
    row = {"name": "aaa", "kind": "lemonade", "url": "http://127.0.0.1:9", "key_file": str(fifo)}
    with db.write() as tx:
        add_engine(tx, {**row, "settle_s": 1})
    equip(db, "chat")
    worker.look_round()
    ask_load(db)
    worker.work()
    assert slot_now(db).state is SlotState.READY
