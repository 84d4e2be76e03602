"""How any job is carried through: its body runs, and whatever happens becomes one written end."""

import logging

from hal0 import logs, points
from hal0.errors import (
    ClaimLost,
    DatabaseFull,
    DatabaseLocked,
    DatabaseUnwritable,
    Hal0Error,
    InternalFault,
)
from hal0.jobs import load, pull, unload, validate
from hal0.jobs.context import Body, Context
from hal0.jobs.engine_room import Stopping
from hal0.jobs.ledger.claims import fail, put_back
from hal0.jobs.ledger.rows import Claim
from hal0.registry.checksum import Interrupted
from hal0.states import JobKind, Outcome

log = logging.getLogger(__name__)

BUSY = (DatabaseLocked, DatabaseFull, DatabaseUnwritable)

BODIES = {
    JobKind.PULL: pull.run,
    JobKind.VALIDATE: validate.run,
    JobKind.UNLOAD: unload.run,
    JobKind.LOAD: load.run,
}


def run(ctx: Context, held: Claim) -> None:
    """Run the body of a claimed job to its written end; raises nothing."""
    with ctx.body(held) as body, logs.about(**ctx.subject_of(held)):
        try:
            log.info("%s begins", held.job.kind)
            _carry_through(ctx, body)
            log.info("%s ends", held.job.kind)
        except ClaimLost:
            log.info("%s: the claim is another's now; nothing written", held.job.kind)
        except BUSY as error:
            log.error("%s: not written, left to rescue: %s", held.job.kind, error)
        except Exception:  # a job must end, and this thread must go on
            log.exception("%s: its end could not be written", held.job.kind)
    ctx.ring()


def _carry_through(ctx: Context, body: Body) -> None:
    held = body.held
    try:
        BODIES[held.job.kind](ctx, body)
    except ClaimLost:
        raise
    except (Interrupted, Stopping):
        if body.lost.is_set():
            raise ClaimLost(f"job {held.job.id} stopped: it was cancelled, or taken") from None
        ctx.commit(lambda tx: put_back(tx, held, Outcome.INTERRUPTED))
    except BUSY as error:
        log.warning("%s put back: %s", held.job.kind, error.detail)
        ctx.commit(lambda tx: put_back(tx, held, Outcome.DEFERRED, after_s=1.0))
    except Hal0Error as error:
        failure = error
        ctx.commit(lambda tx: fail(tx, held, failure))
    except Exception as error:  # a bug must end its job, not leave it running
        log.exception("%s met a bug", held.job.kind)
        fault = InternalFault(
            f"{held.job.kind} job {held.job.id} met {type(error).__name__}; see the worker's log"
        )
        ctx.commit(lambda tx: fail(tx, held, fault))
    points.reach(f"{held.job.kind}.done")
