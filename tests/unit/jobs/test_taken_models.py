"""A model belongs to one slot of an engine as long as the engine may have it there (D2)."""

from dataclasses import replace

import pytest
from sqlalchemy import update

from hal0.db import Database
from hal0.errors import LoadTimeout, ModelTaken
from hal0.jobs.ledger.orders import retry
from hal0.jobs.restore import load_again
from hal0.jobs.setup import change_slot, create_slot
from hal0.registry.catalog import model_named
from hal0.settings import Settings
from hal0.slots.queries import Slot, slot_named
from hal0.slots.transitions import Act
from hal0.states import Cause, Desired
from hal0.tables import slots
from tests.fakes.lemond import Lemond
from tests.ledger import add_far_engine, fail, free_lane, make_slots, unfinished
from tests.rows import (
    OPERATOR,
    ask_load,
    claim_next,
    make_model,
    make_slot,
    options,
    send_load,
    slot_now,
)
from tests.tiny_gguf import write_tiny_gguf
from tests.worker import Worker, equip


def _model_id(db: Database, name: str) -> int:
    with db.read() as tx:
        return model_named(tx, name).id


def _set_model(db: Database, slot: str, model: str | None) -> None:
    with db.write() as tx:
        change_slot(tx, Settings(home=db.path.parent), slot_named(tx, slot), {"model": model})


def _wants_another(db: Database, slot: str) -> Slot:
    """Let a slot want model `other` from now on; return it as it was before."""
    before = slot_now(db, slot)
    ask_load(db, slot, model_id=make_model(db, "other").id)
    return before


def test_what_the_engine_may_still_have_for_one_slot_is_no_other_slots(db: Database) -> None:
    """Its load timed out, the lane went; a late model would be the other slot's by its name."""
    first, _ = make_slots(db, "one", "two")
    ask_load(db, "one")
    held = send_load(db)
    fail(db, held, LoadTimeout("too late"))
    assert free_lane(db, held)
    assert slot_now(db, "one").engine_model_id == first.wanted_model_id
    _wants_another(db, "one")
    with pytest.raises(ModelTaken):
        ask_load(db, "two", model_id=first.wanted_model_id)


def test_what_the_engine_does_not_list_after_a_failure_is_free_for_another_slot(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    equip(db, "one", "two")
    write_tiny_gguf(db.path.parent / "models" / "other.gguf", seed=7)
    lemond.script(models={"m-one": {"load_fail": "llama-server failed to start"}})
    ask_load(db, "one")
    worker.work()
    failed = slot_now(db, "one")
    assert (failed.state, failed.engine_model, failed.engine_model_id) == ("error", None, None)
    _wants_another(db, "one")
    assert ask_load(db, "two", model_id=failed.wanted_model_id).job_ids


def test_what_the_engine_still_lists_after_a_failure_stays_the_slots(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    """It could not be unloaded either."""
    equip(db, "one", "two", load_timeout_s=2)
    lemond.script(models={"m-one": {"backend": "refuse", "unload": "fail"}})
    ask_load(db, "one")
    worker.work()
    failed = slot_now(db, "one")
    assert (failed.state, failed.engine_model) == ("error", "m-one")
    assert lemond.state()["loaded"] == ["m-one"]
    _wants_another(db, "one")
    with pytest.raises(ModelTaken):
        ask_load(db, "two", model_id=failed.wanted_model_id)


def _twins(db: Database) -> None:
    """Register one file under two names, for two slots; only slot `one` is set up for it."""
    make_slots(db, "one")
    make_model(db, "twin", db.path.parent / "models" / "m-one.gguf")
    make_slot(db, "two")


def test_one_file_under_two_names_belongs_to_one_slot(db: Database) -> None:
    """The engine has it once: either slot's unload would empty the other too."""
    _twins(db)
    with pytest.raises(ModelTaken, match="model twin is the file of model m-one, which belongs"):
        _set_model(db, "two", "twin")
    with pytest.raises(ModelTaken):
        ask_load(db, "two", model_id=_model_id(db, "twin"))
    setup = {"engine": "default", "model": "twin", "pinned": False, "priority": 0}
    with pytest.raises(ModelTaken), db.write() as tx:
        create_slot(
            tx,
            Settings(home=db.path.parent),
            "three",
            {**setup, "options": options()},
            Act("local"),
        )


def test_a_machine_does_not_restore_a_file_that_another_slot_has_under_another_name(
    db: Database,
) -> None:
    _twins(db)
    with db.write() as tx:
        was = replace(
            slot_named(tx, "two"),
            desired=Desired.LOADED,
            wanted_model_id=_model_id(db, "twin"),
        )
        tx.execute(update(slots).where(slots.c.id == was.id).values(desired=Desired.LOADED))
        load_again(tx, was, Cause.ENGINE_RESTARTED, None)
    assert unfinished(db, "two") == []
    assert slot_now(db, "two").restore is None


def test_a_load_of_a_file_that_another_slot_took_meanwhile_is_not_tried_again(
    db: Database,
) -> None:
    _twins(db)
    _set_model(db, "one", None)
    failed = ask_load(db, "two", model_id=_model_id(db, "twin"))
    fail(db, claim_next(db))
    with db.write() as tx:
        for name, model_id in (("two", None), ("one", _model_id(db, "m-one"))):
            change = update(slots).where(slots.c.name == name)
            tx.execute(change.values(wanted_model_id=model_id))
    with pytest.raises(ModelTaken), db.write() as tx:
        retry(tx, failed.job_ids[0], OPERATOR)


def test_a_file_is_free_for_a_slot_of_another_engine(db: Database) -> None:
    _twins(db)
    add_far_engine(db)
    make_slot(db, "away", engine="far")
    _set_model(db, "away", "twin")
    assert slot_now(db, "away").wanted_model_id == _model_id(db, "twin")


def test_a_slot_may_want_its_own_file_under_its_other_name(db: Database) -> None:
    _twins(db)
    _set_model(db, "one", "twin")
    assert slot_now(db, "one").wanted_model_id == _model_id(db, "twin")
