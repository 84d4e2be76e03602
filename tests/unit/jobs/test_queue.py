"""The ledger as Huey's queue: one claim a message, and the next thread woken only for work."""

from hal0.db import Database
from hal0.jobs.ledger import intake
from hal0.jobs.ledger.intake import Wish
from hal0.states import JobKind
from tests.ledger import make_slots
from tests.rows import OPERATOR
from tests.worker import Worker
from workers.tasks import make_huey


def ask_checks(db: Database, *names: str) -> None:
    """Want several slots checked, in one commit: there would be one ring."""
    slots = make_slots(db, *names)
    with db.write() as tx:
        for slot in slots:
            intake.request_check(tx, slot, Wish(JobKind.VALIDATE), OPERATOR)


def test_who_claims_a_job_wakes_another_thread_while_there_is_more(
    db: Database, worker: Worker
) -> None:
    ask_checks(db, "one", "two")
    storage = make_huey(worker.ctx).storage
    assert storage.dequeue() is not None
    assert worker.ctx.bell.wait(0)
    assert storage.dequeue() is not None
    assert not worker.ctx.bell.wait(0)


def test_nobody_is_woken_for_what_may_not_run_yet(db: Database, worker: Worker) -> None:
    ask_checks(db, "one", "two", "three")
    storage = make_huey(worker.ctx).storage
    assert storage.dequeue() is not None
    assert worker.ctx.bell.wait(0)
    assert storage.dequeue() is not None  # half of the threads take no pulls and validations
    assert not worker.ctx.bell.wait(0)
