"""What `slot show` says of the wish that a slot is under, and of whose it is."""

import json

import pytest
from sqlalchemy import update

from hal0.cli.slot import WISHERS
from hal0.db import Database
from hal0.states import DesiredBy
from hal0.tables import slots
from tests.rows import make_model, make_slot
from tests.unit.cli.conftest import Run

pytestmark = pytest.mark.usefixtures("api_url")


def _wish(run: Run) -> str:
    lines = run("slot", "show", "chat").out.splitlines()
    (line,) = (line for line in lines if line.startswith("desired"))
    return line.split(maxsplit=1)[1]


def test_whose_wish_it_is_is_said_in_a_line(run: Run, db: Database) -> None:
    make_model(db)
    make_slot(db, "chat", "tiny")
    assert _wish(run) == "unloaded, for nobody has asked for it"
    assert run("slot", "unload", "chat").code == 0
    assert _wish(run) == "unloaded, by an operator"
    shown = json.loads(run("slot", "show", "chat", "--json").out)
    assert (shown["desired"], shown["desired_by"]) == ("unloaded", "operator")


def test_there_are_words_for_everybody_who_may_want_something(run: Run, db: Database) -> None:
    make_slot(db)
    for by in DesiredBy:
        with db.write() as tx:
            tx.execute(update(slots).values(desired_by=by))
        assert WISHERS[by] in _wish(run)
