"""Leases go with the state that they are the reason for, in the same commit."""

import pytest
from sqlalchemy import insert

from hal0.clock import utc_now
from hal0.db import Database
from hal0.slots.transitions import Act, move
from hal0.states import EDGES, Cause, SlotState
from hal0.tables import leases
from tests.apis import the_leases
from tests.ledger import make_slots, serve
from tests.rows import ask_load, run_load, slot_now

TAKEN_AWAY = sorted(
    (edge.to, edge.cause)
    for edge in EDGES
    if edge.source is SlotState.SERVING and edge.to not in (SlotState.READY, SlotState.IDLE)
)


@pytest.mark.parametrize(("to", "cause"), TAKEN_AWAY)
def test_whoever_takes_a_serving_slot_away_takes_its_leases_away(
    db: Database, to: SlotState, cause: Cause
) -> None:
    for name in ("chat", "other"):
        make_slots(db, name)
        ask_load(db, name)
        run_load(db)
        serve(db, name, api=name)
    with db.soft() as tx:
        row = {"slot_id": slot_now(db).id, "generation": 0, "owner_id": "api", "in_flight": 1}
        tx.execute(insert(leases).values(**row, at=utc_now()))
    with db.write() as tx:
        move(tx, slot_now(db), to, cause, Act("worker"))
    assert the_leases(db) == {"other": 1}


def test_who_lets_a_slot_serve_no_more_says_itself_whose_lease_ends(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    serve(db, api="api")
    with db.write() as tx:
        move(tx, slot_now(db), SlotState.READY, Cause.REQUESTS_DONE, Act("dispatcher"))
    assert the_leases(db) == {"api": 1}
