"""What is logged while a job runs says which slot, job, attempt and request it is about."""

import logging

from sqlalchemy import update

from hal0.db import Database
from hal0.jobs.ledger.rows import By
from hal0.states import JobKind
from hal0.tables import slots
from tests.fakes.lemond import Lemond
from tests.ledger import eventually
from tests.records import kept_records, subject_of
from tests.rows import ask_load
from tests.worker import Worker, equip

BY = By("local", request_id="of-the-operator")


def test_all_that_a_body_logs_names_its_job(worker: Worker, db: Database, lemond: Lemond) -> None:
    equip(db, "chat")
    lemond.script(models={"m-chat": {"load_fail": "llama-server failed to start"}})
    ask_load(db, "chat", BY)
    held = worker.work_up_to(JobKind.LOAD)
    with kept_records() as records:
        worker.run(held)
    records = [record for record in records if record.name.startswith("hal0.")]
    said = {record.getMessage().partition(":")[0] for record in records}
    assert {"load begins", "load fails"} <= said
    expected = {"slot": "chat", "job_id": held.job.id, "attempt": 1, "request_id": BY.request_id}
    assert [subject_of(record) for record in records] == [expected] * len(records)
    with kept_records() as records:
        logging.getLogger("hal0.jobs").warning("after it")
    assert subject_of(records[0]) == {}


def test_a_late_answer_names_the_job_that_it_is_an_answer_to(
    worker: Worker, db: Database, lemond: Lemond
) -> None:
    equip(db, "chat")
    with db.write() as tx:
        tx.execute(update(slots).values(load_timeout_s=0.4))
    lemond.script(models={"m-chat": {"load": "hang"}})
    ask_load(db, "chat", BY)
    held = worker.work_up_to(JobKind.LOAD)
    with kept_records() as records:
        worker.run(held)
        lemond.script(models={"m-chat": {"load": "ok"}})
        eventually(lambda: [one for one in records if "late answer" in one.getMessage()])
    (late,) = [one for one in records if "late answer" in one.getMessage()]
    expected = {"slot": "chat", "job_id": held.job.id, "attempt": 1, "request_id": BY.request_id}
    assert subject_of(late) == expected
