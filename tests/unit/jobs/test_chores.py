"""Periodic work: an engine that does not answer holds up one thread of a worker, not all."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from huey import Huey

from hal0.clock import monotonic_ms, utc_now
from hal0.db import Database
from hal0.jobs.scan import scan_if_due
from hal0.registry.roster import add_engine
from hal0.settings import Settings
from hal0.states import JobKind, SlotState
from tests.fakes.lemond import Lemond
from tests.ledger import LIMIT_S, eventually, the_lanes
from tests.rows import ask_load, slot_now
from tests.worker import Worker, equip
from workers.tasks import make_huey

MakeWorker = Callable[..., Worker]
SHORT_MS = 1500


def _due(huey: Huey) -> dict[str, threading.Thread]:
    """Return a thread for each periodic task, not begun."""
    tasks = huey.read_periodic(utc_now())
    return {task.name: threading.Thread(target=task.execute, daemon=True) for task in tasks}


@contextmanager
def _told_to_stop(worker: Worker, thread: threading.Thread) -> Iterator[None]:
    try:
        yield
    finally:
        worker.ctx.stopping.set()
        thread.join(LIMIT_S)


def test_a_health_that_hangs_holds_up_one_chore_and_the_next_passes(
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
    chores = _due(make_huey(worker.ctx))
    assert sorted(chores) == ["scan", "settle"]
    chores["settle"].start()
    with _told_to_stop(worker, chores["settle"]):
        eventually(lambda: len(lemond.calls("/v1/health")) > seen)
        begun_ms = monotonic_ms()
        chores["scan"].start()
        chores["scan"].join(SHORT_MS / 1000)
        assert monotonic_ms() - begun_ms < SHORT_MS, "it waits for the engine too"
        assert chores["settle"].is_alive()
    assert not chores["settle"].is_alive(), "a process that must exit waits for no engine"


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
        scan_if_due(worker.ctx)
        return slot_now(db).state is SlotState.OFFLINE

    eventually(is_noticed)


def test_a_key_file_that_is_a_fifo_holds_up_nobody(
    db: Database, settings: Settings, lemond: Lemond, worker: Worker
) -> None:
    fifo = settings.home / "key"
    os.mkfifo(fifo)
    row = {"name": "aaa", "kind": "lemonade", "url": lemond.url, "key_file": str(fifo)}
    with db.write() as tx:
        add_engine(tx, {**row, "settle_s": 1})
    equip(db, "chat")
    scan_if_due(worker.ctx)
    ask_load(db)
    worker.work()
    assert slot_now(db).state is SlotState.READY
