"""When a machine's load gives way: no operator wants it, and it would cost somebody something."""

from sqlalchemy import Connection

from hal0.jobs.ledger.claims import check, finish
from hal0.jobs.ledger.rows import Claim, chain_by_id
from hal0.slots.transitions import move
from hal0.states import Cause, Origin, Outcome, SlotState


def is_a_machines(tx: Connection, held: Claim) -> bool:
    """Whether no operator wants this load, who may have taken its chain over. Raises ClaimLost."""
    check(tx, held)
    return chain_by_id(tx, held.chain.id).origin is not Origin.OPERATOR


def give_way(tx: Connection, held: Claim, because: str) -> bool:
    """End a load as skipped if it is a machine's still; tell whether it was. Raises ClaimLost."""
    slot = check(tx, held)
    if not is_a_machines(tx, held):
        return False
    if slot.state is SlotState.STARTING:
        move(tx, slot, SlotState.OFFLINE, Cause.CANCELLED, held.act)
    finish(tx, held, Outcome.SKIPPED, {"because": because})
    return True
