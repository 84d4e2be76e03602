"""What is wanted of a slot, and who said so: the only writer of either.

Who said so decides what a request for inference may do with it: what a person wants unloaded stays
unloaded, what a machine unloaded is loaded again (`Slot.is_to_stay_unloaded`).
"""

from typing import Any

from sqlalchemy import Connection, update

from hal0.states import Desired, DesiredBy
from hal0.tables import slots


def want(tx: Connection, slot_id: int, desired: Desired, by: DesiredBy, **besides: Any) -> None:
    """Write a wish, and in the same statement the columns of the slot that follow from it.

    Needs a write transaction.
    """
    tx.execute(
        update(slots).where(slots.c.id == slot_id).values(desired=desired, desired_by=by, **besides)
    )
