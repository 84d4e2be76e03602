"""What a change of a slot, and its end, mean for what machines and its engine have of it."""

from typing import Any

import pytest

from hal0.db import Database
from hal0.errors import SlotBusy
from hal0.jobs.ledger.breaker import count_sent
from hal0.jobs.restore import load_again, restore_of
from hal0.jobs.setup import change_slot, delete_slot
from hal0.settings import Settings
from hal0.slots.queries import Slot, slot_named
from hal0.slots.transitions import Act, move
from hal0.states import Cause, SlotState
from tests.fakes.lemond import Lemond
from tests.ledger import make_slots, unfinished
from tests.rows import OPERATOR, ask_load, ask_unload, make_model, options, run_load, slot_now
from tests.worker import Worker, equip, unloads


@pytest.fixture
def noted(db: Database) -> Slot:
    """A slot that is to be loaded again by a machine, as soon as its breaker lets that."""
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    with db.write() as tx:
        was = slot_named(tx, "chat")
        count_sent(tx, was.id)
        move(tx, was, SlotState.OFFLINE, Cause.ENGINE_RESTARTED, Act("reconcile"))
        load_again(tx, was, Cause.ENGINE_RESTARTED, None)
    assert unfinished(db) == []
    return slot_now(db)


def _change(db: Database, **changes: Any) -> Slot:
    with db.write() as tx:
        settings = Settings(home=db.path.parent)
        return change_slot(tx, settings, slot_named(tx, "chat"), changes)


def test_what_a_machine_is_to_load_again_gets_the_options_of_today(
    db: Database, noted: Slot
) -> None:
    before = restore_of(noted)
    assert before is not None
    smaller = options({"ctx_size": 512})
    assert restore_of(_change(db, options=smaller)) == {**before, "options": smaller}


def test_another_model_takes_the_wish_of_a_machine_away(db: Database, noted: Slot) -> None:
    assert noted.restore is not None
    make_model(db, "other")
    changed = _change(db, model="other", options=options({"ctx_size": 512}))
    assert restore_of(changed) is None


def test_what_machines_do_not_load_with_leaves_their_wish_as_it_is(
    db: Database, noted: Slot
) -> None:
    assert restore_of(_change(db, priority=7)) == restore_of(noted)


def test_options_alone_make_no_wish(db: Database) -> None:
    make_slots(db, "chat")
    assert restore_of(_change(db, options=options({"ctx_size": 512}))) is None


@pytest.fixture
def stuck(db: Database, lemond: Lemond, worker: Worker) -> Worker:
    """A slot in error whose model is in the engine still: that refused to unload it."""
    equip(db, "chat")
    ask_load(db)
    worker.work()
    lemond.script(models={"m-chat": {"unload": "fail"}})
    ask_unload(db)
    worker.work()
    lemond.script(models={"m-chat": None})
    assert slot_now(db).state is SlotState.ERROR
    assert lemond.state()["loaded"] == ["m-chat"]
    return worker


def test_a_slot_whose_model_its_engine_may_have_still_is_unloaded_before_it_is_deleted(
    db: Database, lemond: Lemond, stuck: Worker
) -> None:
    """Else nothing of hal0 would ever take it out of there."""
    with pytest.raises(SlotBusy, match=r"m-chat .* unload slot chat first"), db.write() as tx:
        delete_slot(tx, slot_now(db), OPERATOR)
    ask_unload(db)
    stuck.work()
    assert lemond.state()["loaded"] == []
    with db.write() as tx:
        delete_slot(tx, slot_now(db), OPERATOR)


def test_force_deletes_it_and_leaves_the_engine_what_it_has(
    db: Database, lemond: Lemond, stuck: Worker
) -> None:
    """For an engine that never answers again."""
    before = unloads(lemond)
    with db.write() as tx:
        delete_slot(tx, slot_now(db), OPERATOR, force=True)
    assert unloads(lemond) == before
    assert lemond.state()["loaded"] == ["m-chat"]
