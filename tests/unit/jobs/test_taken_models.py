"""A model belongs to one slot of an engine as long as the engine may have it there (D2)."""

import pytest

from hal0.db import Database
from hal0.errors import LoadTimeout, ModelTaken
from hal0.slots.queries import Slot
from tests.fakes.lemond import Lemond
from tests.ledger import fail, free_lane, make_slots
from tests.rows import ask_load, make_model, send_load, slot_now
from tests.tiny_gguf import write_tiny_gguf
from tests.worker import Worker, equip


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
