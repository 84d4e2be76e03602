"""Which slot a name means: a slot's own name first, then a model that one slot alone has."""

import pytest

from hal0.db import Database
from hal0.dispatcher.targets import Names, Seat, Target, names_in
from hal0.errors import ModelAmbiguous, ModelNotFound
from hal0.slots.transitions import Act, move
from hal0.states import Cause, SlotState
from tests.ledger import add_far_engine
from tests.rows import ask_load, make_model, make_slot, run_load, slot_now


def seat(slot_id: int, name: str, held: str | None = None, wanted: str | None = None) -> Seat:
    """Return a slot at which nobody works; models are numbered by the length of their names."""
    held_id, wanted_id = (None if one is None else len(one) for one in (held, wanted))
    return Seat(slot_id, name, held_id, held, wanted_id, wanted, is_at_work=False)


def test_a_slot_s_name_wins_over_a_model_of_that_name() -> None:
    names = Names([seat(1, "other", held="chat"), seat(2, "chat", held="tiny")])
    assert names.target("chat") == Target(2, None)


def test_a_model_means_the_one_slot_that_holds_it_whoever_else_wants_it() -> None:
    wanting = [seat(1, "a", wanted="tiny"), seat(3, "c", held="other", wanted="tiny")]
    names = Names([*wanting, seat(2, "b", held="tiny", wanted="other")])
    assert names.target("tiny") == Target(2, len("tiny"))


def test_a_model_that_nobody_holds_means_the_one_slot_that_wants_it() -> None:
    names = Names([seat(1, "a", held="other"), seat(2, "b", wanted="tiny")])
    assert names.target("tiny") == Target(2, len("tiny"))


@pytest.mark.parametrize("how", ["held", "wanted"])
def test_a_model_that_two_slots_have_means_none_of_them(how: str) -> None:
    names = Names([seat(1, "b", **{how: "tiny"}), seat(2, "a", **{how: "tiny"}), seat(3, "c")])
    with pytest.raises(ModelAmbiguous, match="a, b have the model 'tiny'") as told:
        names.target("tiny")
    assert told.value.status == 409


def test_what_is_neither_a_slot_nor_a_model_of_one_is_not_found() -> None:
    names = Names([seat(1, "chat", held="tiny")])
    for name in ("tin", "CHAT", "extra.tiny", "chat ", ""):
        with pytest.raises(ModelNotFound) as told:
            names.target(name)
        assert told.value.status == 404


def test_a_model_that_is_being_unloaded_is_held_no_longer(db: Database) -> None:
    make_model(db, "tiny")
    add_far_engine(db)
    make_slot(db, "chat", "tiny")
    make_slot(db, "other", "tiny", engine="far")
    ask_load(db)
    run_load(db)
    with db.read() as tx:
        assert names_in(tx).find("tiny").name == "chat"
    with db.write() as tx:
        move(tx, slot_now(db), SlotState.UNLOADING, Cause.OPERATOR_UNLOAD, Act("worker"))
    with db.read() as tx, pytest.raises(ModelAmbiguous):
        names_in(tx).find("tiny")
