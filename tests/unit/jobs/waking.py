"""A request for a slot that is offline, as it comes to the ledger, and how slots come to be so."""

from typing import Any

import pytest
from sqlalchemy import func, select, update

from hal0.db import Database
from hal0.errors import Hal0Error
from hal0.jobs.ledger.claims import finish
from hal0.jobs.ledger.intake import Accepted, machine_unload
from hal0.jobs.ledger.rows import By, Chain, chain_by_id
from hal0.jobs.losses import forget_held
from hal0.jobs.wakes import request_wake
from hal0.slots.queries import Slot
from hal0.slots.transitions import Act, move
from hal0.slots.wishes import want
from hal0.states import Cause, Desired, DesiredBy, Origin, SlotState
from hal0.tables import chains, slots
from tests.ledger import IDLE
from tests.rows import ask_load, claim_next, run_load, slot_now

WAKE = By("somebody", "request-7", Origin.WAKE)


def wake_up(db: Database, slot: str = "chat") -> Accepted | None:
    """Ask for a slot's load as the request that came first does."""
    with db.write() as tx:
        return request_wake(tx, slot_now(db, slot), WAKE)


def chain_of(db: Database, accepted: Accepted | None) -> Chain:
    """Read the chain that was asked for."""
    assert accepted is not None
    assert accepted.chain_id is not None
    with db.read() as tx:
        return chain_by_id(tx, accepted.chain_id)


def count_chains(db: Database) -> int:
    """Count what was ever asked for."""
    with db.read() as tx:
        return tx.execute(select(func.count()).select_from(chains)).scalar_one()


def refusal(db: Database, slot: str = "chat") -> Hal0Error:
    """Return why the slot is not woken, which writes nothing."""
    was, before = slot_now(db, slot), count_chains(db)
    with pytest.raises(Hal0Error) as refused, db.write() as tx:
        request_wake(tx, was, WAKE)
    assert (slot_now(db, slot), count_chains(db)) == (was, before)
    return refused.value


def set_up(db: Database, slot: str = "chat", **values: Any) -> None:
    """Write columns of a slot."""
    with db.write() as tx:
        tx.execute(update(slots).where(slots.c.name == slot).values(**values))


def load(db: Database) -> None:
    """Load slot `chat` as an operator."""
    ask_load(db)
    run_load(db)


def run_unload(db: Database) -> None:
    """Run the unload that was asked for last, as its body does."""
    held = claim_next(db)
    is_idle = held.chain.origin is Origin.IDLE
    with db.write() as tx:
        cause = Cause.IDLE_UNLOAD if is_idle else Cause.OPERATOR_UNLOAD
        slot = move(tx, slot_now(db), SlotState.UNLOADING, cause, held.act)
        move(tx, slot, SlotState.OFFLINE, Cause.UNLOADED, held.act)
        if is_idle:
            want(tx, slot.id, Desired.UNLOADED, DesiredBy.IDLE)
        forget_held(tx, slot.id)
        finish(tx, held)


def idle_unload(db: Database) -> None:
    """Let a machine unload what nobody uses."""
    with db.write() as tx:
        machine_unload(tx, slot_now(db), IDLE)
    run_unload(db)


def lose(db: Database, cause: Cause) -> Slot:
    """Let the engine lose what slot `chat` holds; return the slot as it was before."""
    with db.write() as tx:
        was = slot_now(db)
        move(tx, was, SlotState.OFFLINE, cause, Act("reconcile"))
        forget_held(tx, was.id)
        return was


def unload_elsewhere(db: Database) -> None:
    """Let somebody unload it in the engine's own app, as a second look believes."""
    was = lose(db, Cause.UNLOADED_ELSEWHERE)
    with db.write() as tx:
        want(tx, was.id, Desired.UNLOADED, DesiredBy.ELSEWHERE)
