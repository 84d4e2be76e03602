"""Which job runs next.

A job may run when it is the first unfinished one of its slot and nothing of the slot runs; a load
besides when its engine's lane is free, no load or unload of that engine runs and the engine has
settled the slot's last unload; a load that restores when no restore that was asked for before it
waits to be sent, for that of the most important slot was, unless that one's model is being
downloaded; an unload when no load of its slot is in the lane, and when no request is left that it
lets end (`drains`), or their time is over; a pull when no other downloads that model. A load that
was sent already may run at once: its attempt only watches.
"""

from typing import Any, Final

from sqlalchemy import Connection

from hal0.clock import boot_id, monotonic_ms

RUNNABLE: Final = """
SELECT j.id FROM jobs j WHERE j.state = 'queued'
  AND (:heavy OR j.kind NOT IN ('pull', 'validate'))
  AND (:fetches OR NOT j.fetches)
  AND (j.run_after_ms IS NULL OR j.run_after_boot <> :boot OR j.run_after_ms <= :now_ms)
  AND NOT EXISTS (SELECT 1 FROM jobs r WHERE r.slot_id = j.slot_id AND r.state = 'running')
  AND NOT EXISTS (SELECT 1 FROM jobs e WHERE e.slot_id = j.slot_id AND e.state = 'queued'
                  AND (e.position, e.step) < (j.position, j.step))
  AND CASE j.kind
    WHEN 'load' THEN j.sent_attempt IS NOT NULL OR (
      NOT EXISTS (SELECT 1 FROM engine_lane l WHERE l.engine_id = j.engine_id)
      AND NOT EXISTS (SELECT 1 FROM jobs u WHERE u.engine_id = j.engine_id
                      AND u.kind IN ('load', 'unload') AND u.state = 'running')
      AND NOT EXISTS (SELECT 1 FROM slots s
                      WHERE s.id = j.slot_id AND s.unload_job_id IS NOT NULL)
      AND NOT EXISTS (
        SELECT 1 FROM chains c JOIN jobs b ON b.state = 'queued' AND b.position < c.position
        JOIN chains d ON d.id = b.chain_id
        WHERE c.id = j.chain_id AND c.origin = 'restore' AND d.origin = 'restore'
        AND b.kind = 'load' AND b.engine_id = j.engine_id
        AND NOT EXISTS (SELECT 1 FROM slots s WHERE s.id = b.slot_id AND s.state = 'pulling')
        AND NOT EXISTS (SELECT 1 FROM jobs p WHERE p.slot_id = b.slot_id AND p.state = 'queued'
                        AND p.position = b.position AND p.fetches)))
    WHEN 'unload' THEN NOT EXISTS (
      SELECT 1 FROM engine_lane l WHERE l.engine_id = j.engine_id AND l.slot_id = j.slot_id)
      AND NOT EXISTS (
        SELECT 1 FROM slots s JOIN chains c ON c.id = j.chain_id
        WHERE s.id = j.slot_id AND s.state = 'serving' AND j.deferred_boot = :boot
        AND :now_ms < j.deferred_ms + c.drain_timeout_s * 1000)
    WHEN 'pull' THEN NOT EXISTS (
      SELECT 1 FROM jobs p WHERE p.model_id = j.model_id
      AND p.kind = 'pull' AND p.state = 'running')
    ELSE 1 END
ORDER BY j.position, j.step LIMIT 1
"""


def moment(*, heavy: bool, fetches: bool) -> dict[str, Any]:
    """Return what RUNNABLE asks for, now; see `claims.claim` for the two flags."""
    return {"heavy": heavy, "fetches": fetches, "boot": boot_id(), "now_ms": monotonic_ms()}


def is_work_waiting(tx: Connection, *, heavy: bool = True, fetches: bool = True) -> bool:
    """Tell whether a claim would find something now; needs no more than a read."""
    asked = tx.connection.cursor()  # past SQLAlchemy: every idle thread asks this each second
    return asked.execute(RUNNABLE, moment(heavy=heavy, fetches=fetches)).fetchone() is not None
