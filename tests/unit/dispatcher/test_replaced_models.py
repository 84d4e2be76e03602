"""A request for a model by its name is never answered by another one that its slot came to hold."""

import pytest
from sqlalchemy import update

from hal0.errors import ModelNotFound, SlotLoading, SlotUnloaded
from hal0.jobs.losses import lose
from hal0.registry.catalog import Model
from hal0.slots.transitions import Act
from hal0.states import Cause
from hal0.tables import slots
from tests.ledger import unfinished
from tests.rows import ask_load, make_model, run_load, slot_now
from tests.unit.dispatcher.rig import Client, Rig

pytestmark = pytest.mark.anyio


def for_model(at: Rig, name: str) -> Client:
    return at.client({"model": name})


def empty(at: Rig) -> None:
    """Take the model of the slot away; no machine is to bring it back."""
    slot = slot_now(at.db)
    with at.db.write() as tx:
        lose(tx, slot, Cause.EVICTED_BY_ENGINE, Act("reconcile"), restores=False)


@pytest.fixture
def other(at: Rig) -> Model:
    return make_model(at.db, "other")


async def test_a_slot_that_holds_another_model_by_now_does_not_answer_for_the_old_one(
    at: Rig, other: Model
) -> None:
    await at.ask(for_model(at, "tiny"))
    await at.is_released()
    empty(at)
    ask_load(at.db, model_id=other.id)
    run_load(at.db)
    with pytest.raises(ModelNotFound, match="'tiny'"):
        await at.ask(for_model(at, "tiny"))
    assert len(at.engine.got) == 1
    assert (await at.ask(for_model(at, "other"))).status == 200
    assert (await at.ask(at.client())).status == 200


async def test_who_waits_for_a_model_is_not_answered_by_the_one_that_came_instead(
    at: Rig, other: Model
) -> None:
    empty(at)
    waiting, by_slot = at.begin(for_model(at, "tiny")), at.begin(at.client())
    await at.until(lambda: unfinished(at.db))
    ask_load(at.db, model_id=other.id)
    run_load(at.db)
    with pytest.raises(ModelNotFound):
        await waiting
    assert (await by_slot).status == 200
    assert len(at.engine.got) == 1


async def test_a_model_that_a_slot_is_only_set_up_for_is_not_what_it_holds(
    at: Rig, other: Model
) -> None:
    with at.db.write() as tx:
        tx.execute(update(slots).values(wanted_model_id=other.id))
    with pytest.raises(SlotUnloaded, match="holds tiny") as caught:
        await at.ask(for_model(at, "other"))
    assert caught.value.retry_after_s is None
    assert at.engine.got == []


async def test_a_model_whose_load_is_under_way_is_waited_for_while_another_is_held(
    at: Rig, other: Model
) -> None:
    ask_load(at.db, model_id=other.id)
    with pytest.raises(SlotLoading, match="holds tiny") as caught:
        await at.ask(for_model(at, "other"))
    assert caught.value.retry_after_s
    assert at.engine.got == []
