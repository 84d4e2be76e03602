"""hal0: its own enqueue and bell in the client, its own worker; only the body is the bench's."""

import sys

from hal0.db import Database
from hal0.jobs import bell, runner
from hal0.jobs.context import Body, Context
from hal0.jobs.ledger import intake
from hal0.jobs.ledger.claims import finish
from hal0.jobs.ledger.intake import Wish
from hal0.jobs.ledger.rows import By
from hal0.settings import Settings
from hal0.slots.queries import slot_named
from hal0.states import JobKind
from tests.bench.systems.starter import begin, serve
from workers import process as worker


def client() -> None:
    """Enqueue as the API does for `POST /api/v1/slots/chat/validate`."""
    settings = Settings.load()
    db = Database(settings.database, settings.busy_timeout_s)

    def enqueue() -> None:
        with db.write() as tx:
            slot = slot_named(tx, "chat")
            intake.request_check(tx, slot, Wish(JobKind.VALIDATE), By("local"))
        bell.ring(settings.run)

    serve(enqueue)


def run(ctx: Context, body: Body) -> None:
    """Say that the body began, do nothing, and end as every job does."""
    begin()
    ctx.commit(lambda tx: finish(tx, body.held))


if __name__ == "__main__":
    if sys.argv[1] == "client":
        client()
    else:
        runner.BODIES[JobKind.VALIDATE] = run
        sys.exit(worker.main())
