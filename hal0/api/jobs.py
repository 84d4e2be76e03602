"""What can be seen of jobs and chains, and done to them, over HTTP."""

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hal0.api import exchange, views
from hal0.api.idempotency import Reply
from hal0.api.paging import cursor_of, key_of, page
from hal0.api.schemas import BulkCancel, BulkRetry, FailedQuery, JobsQuery, Nothing, Query
from hal0.api.waiting import order
from hal0.errors import JobNotFound
from hal0.jobs.bulk import cancel_all, newest_failures, retry_all
from hal0.jobs.filters import bulk_filter, job_filter, narrowed
from hal0.jobs.ledger import orders
from hal0.jobs.ledger.intake import Accepted
from hal0.jobs.queries import MAX_ID, JobDetail, chain_detail, details, job_detail, job_page
from hal0.states import JobKind, JobState


async def list_jobs(request: Request) -> Response:
    """Return a page of jobs, newest first."""
    query = exchange.query_of(request, JobsQuery)
    before = key_of("jobs", int, query.cursor)
    given = {"slot": query.slot, "state": query.state, "kind": query.kind}
    wanted = narrowed(job_filter(query.filter), given)
    rows = await exchange.read(
        request, lambda tx: job_page(tx, wanted, limit=query.limit + 1, before=before)
    )
    shown = [views.job_json(row) for row in rows]
    return exchange.answer(page(shown, query.limit, lambda job: cursor_of("jobs", job["id"])))


async def show_job(request: Request) -> Response:
    """Return one job."""
    exchange.query_of(request, Query)
    job_id = request.path_params["job_id"]
    return exchange.answer(
        views.job_json(await exchange.read(request, lambda tx: job_detail(tx, job_id)))
    )


async def list_failed(request: Request) -> Response:
    """Return of every slot the job that failed in its newest chain: what a bulk retry takes."""
    wanted = bulk_filter(exchange.query_of(request, FailedQuery).filter, JobState.FAILED)

    def look(tx: Connection) -> list[JobDetail]:
        return details(tx, [job for _, job in newest_failures(tx, wanted)])

    shown = [views.job_json(row) for row in await exchange.read(request, look)]
    return exchange.answer({"items": shown, "next_cursor": None})


async def show_chain(request: Request) -> Response:
    """Return a chain with its jobs."""
    exchange.query_of(request, Query)
    chain_id = request.path_params["chain_id"]
    return exchange.answer(
        views.chain_json(await exchange.read(request, lambda tx: chain_detail(tx, chain_id)))
    )


async def retry_job(request: Request) -> Response:
    """Queue a failed job, and all of its chain that must follow, again."""
    await exchange.body_of(request, Nothing)
    job_id, by = _job_id(request), exchange.by(request)

    def do(tx: Connection) -> Accepted:
        queued = orders.retry(tx, job_id, by)
        return Accepted(queued[0].chain_id, tuple(job.id for job in queued))

    return await order(request, do)


async def cancel_job(request: Request) -> Response:
    """Cancel a job and the rest of its chain."""
    await exchange.body_of(request, Nothing)
    job_id, by = _job_id(request), exchange.by(request)

    def do(tx: Connection) -> Reply:
        cancelled = orders.cancel(tx, job_id, by)
        return Reply({"chain_id": cancelled[0].chain_id, "jobs": [job.id for job in cancelled]})

    return exchange.respond(await exchange.enqueue(request, do))


async def retry_jobs(request: Request) -> Response:
    """Retry the newest chain of every slot that fits, or say what that would do."""
    body = await exchange.body_of(request, BulkRetry)
    by = exchange.by(request)
    kind = None if body.filter.kind is None else JobKind(body.filter.kind)
    given = {"slot": body.filter.slot, "kind": kind, "code": body.filter.code}
    wanted = narrowed(bulk_filter(body.filter.text, JobState.FAILED), given)

    def do(tx: Connection) -> Reply:
        done = retry_all(tx, wanted, by, dry_run=body.dry_run)
        items = [views.retried_json(retried) for retried in done]
        return Reply({"dry_run": body.dry_run, "items": items, "next_cursor": None})

    write = exchange.change if body.dry_run else exchange.enqueue
    return exchange.respond(await write(request, do))


async def cancel_jobs(request: Request) -> Response:
    """Cancel every unfinished job that fits with its chain, or say what that would do."""
    body = await exchange.body_of(request, BulkCancel)
    by = exchange.by(request)
    kind = None if body.filter.kind is None else JobKind(body.filter.kind)
    wanted = narrowed(bulk_filter(body.filter.text, None), {"slot": body.filter.slot, "kind": kind})

    def do(tx: Connection) -> Reply:
        done = cancel_all(tx, wanted, by, dry_run=body.dry_run)
        items = [views.cancelled_json(cancelled) for cancelled in done]
        return Reply({"dry_run": body.dry_run, "items": items, "next_cursor": None})

    write = exchange.change if body.dry_run else exchange.enqueue
    return exchange.respond(await write(request, do))


def _job_id(request: Request) -> int:
    job_id: int = request.path_params["job_id"]
    if job_id > MAX_ID:
        raise JobNotFound(
            f"there is no job {job_id}; `hal0 job list` shows them", evidence={"job_id": job_id}
        )
    return job_id


ROUTES = [
    Route("/api/v1/jobs", list_jobs, methods=["GET"]),
    Route("/api/v1/jobs/failed", list_failed, methods=["GET"]),
    Route("/api/v1/jobs/retry", retry_jobs, methods=["POST"]),
    Route("/api/v1/jobs/cancel", cancel_jobs, methods=["POST"]),
    Route("/api/v1/jobs/{job_id:int}", show_job, methods=["GET"]),
    Route("/api/v1/jobs/{job_id:int}/retry", retry_job, methods=["POST"]),
    Route("/api/v1/jobs/{job_id:int}/cancel", cancel_job, methods=["POST"]),
    Route("/api/v1/chains/{chain_id:int}", show_chain, methods=["GET"]),
]
