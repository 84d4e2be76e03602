"""A load past its limit at an engine that can give it up: its process is killed, the lane goes."""

from collections.abc import Iterator

import pytest

from hal0.db import Database
from hal0.jobs import settle
from hal0.jobs.owners import note_end
from hal0.registry.roster import add_engine
from hal0.settings import Settings
from hal0.states import JobKind, SlotState
from tests.fakes.router import Router
from tests.ledger import eventually, history, the_lanes
from tests.rows import ask_load, make_model, make_slot, slot_now
from tests.tiny_gguf import write_tiny_gguf
from tests.unit.jobs.conftest import MakeWorker


@pytest.fixture
def router(db: Database, settings: Settings) -> Iterator[Router]:
    """A router over the models folder, the engine `router`, with one slot: `chat`."""
    write_tiny_gguf(settings.models / "m-chat.gguf")
    with Router(settings.models) as router:
        row = {"name": "router", "kind": "llamacpp", "url": router.url, "settle_s": 600}
        with db.write() as tx:
            add_engine(tx, {**row, "key_file": None})
        make_model(db, "m-chat")
        make_slot(db, "chat", "m-chat", engine="router", options={})
        yield router


def test_a_load_past_its_limit_is_given_up_and_can_be_asked_for_again(
    db: Database, router: Router, make_worker: MakeWorker
) -> None:
    worker = make_worker(load_timeout_s=0.5)
    router.hangs = True
    ask_load(db)
    worker.work()
    assert (slot_now(db).error or {})["code"] == "preload.load_timeout"

    def is_settled() -> bool:
        settle.settle_all(worker.ctx)
        return not the_lanes(db)

    eventually(is_settled)
    assert router.posted == ["load m-chat", "unload m-chat"], "long before its settle time"
    assert slot_now(db).state is SlotState.ERROR
    assert history(db)[-1] == "warming>error deadline_passed", "cut short is no second failure"
    router.hangs = False
    ask_load(db)
    worker.work()
    assert slot_now(db).state is SlotState.READY


def test_a_load_whose_worker_died_past_its_limit_is_given_up_by_another(
    db: Database, router: Router, make_worker: MakeWorker
) -> None:
    first = make_worker(load_timeout_s=0.5)
    router.hangs = True
    ask_load(db)
    held = first.work_up_to(JobKind.LOAD)
    with first.running(held):
        eventually(lambda: router.posted)
        first.ctx.stopping.set()
    with db.write() as tx:
        note_end(tx, first.id)
    second = make_worker()
    eventually(lambda: second.work() or slot_now(db).state is SlotState.ERROR)

    def is_settled() -> bool:
        settle.settle_all(second.ctx)
        return not the_lanes(db)

    eventually(is_settled)
    assert router.posted == ["load m-chat", "unload m-chat"]
