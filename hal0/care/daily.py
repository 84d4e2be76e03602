"""What workers do once a day, in turn: old rows go."""

import logging
from typing import Final

from hal0.care.pruning import Retention, prune
from hal0.jobs.context import Context
from hal0.jobs.engine_room import Stopping
from hal0.jobs.periodic import end_turn, hold_turn, take_turn

log = logging.getLogger(__name__)

DAY_S: Final = 86_400.0
TURN: Final = "prune"


def prune_daily(ctx: Context) -> None:
    """Prune if it is this worker's turn. Raises Stopping between two batches."""
    if not take_turn(ctx.db, TURN, DAY_S):
        return

    def rest(seconds: float) -> None:
        hold_turn(ctx.db, TURN)
        if ctx.stopping.wait(seconds):
            raise Stopping

    try:
        gone = prune(ctx.db, Retention.of(ctx.settings), "worker", rest).rows
    finally:
        end_turn(ctx.db, TURN)
    if gone:
        log.info("old rows are deleted: %s", ", ".join(f"{n} {table}" for table, n in gone.items()))
