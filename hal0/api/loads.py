"""How loads of a slot went, over HTTP: the newest ones, and how long they usually take."""

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hal0.api import exchange, slot_answers
from hal0.api.schemas import LoadsQuery
from hal0.api.views import problem_of, when
from hal0.jobs.load_history import PastLoad, past_loads, usual_s
from hal0.slots.queries import slot_named
from hal0.states import JobKind


async def list_loads(request: Request) -> Response:
    """Return the newest loads of a slot, each with its phases, and how long is usual."""
    limit = exchange.query_of(request, LoadsQuery).limit
    name = request.path_params["slot"]

    def look(tx: Connection) -> slot_answers.Loads:
        slot = slot_named(tx, name)
        usual = usual_s(tx, slot)
        return {
            "usual_s": {
                "pull": usual.get(JobKind.PULL),
                "validate": usual.get(JobKind.VALIDATE),
                "load": usual.get(JobKind.LOAD),
            },
            "items": [load_json(load) for load in past_loads(tx, slot, limit)],
            "next_cursor": None,
        }

    return exchange.answer(await exchange.read(request, look))


def load_json(load: PastLoad) -> slot_answers.Load:
    """Show a load; its error is that of the job of its chain that failed."""
    chain, jobs = load.chain.chain, [detail.job for detail in load.chain.jobs]
    failed = next((job for job in jobs if job.error is not None), None)
    spent = {phase.value: round(seconds, 3) for phase, seconds in load.phases.items()}
    return {
        "chain_id": chain.id,
        "job_id": jobs[-1].id,
        "model": load.chain.model,
        "state": load.chain.state,
        "origin": chain.origin,
        "actor": chain.actor,
        "caused_by": chain.caused_by_job_id,
        "asked_at": when(chain.created_at),
        "ended_at": when(load.ended_at),
        "seconds": round(load.seconds, 3),
        "phases": {
            "pull": spent["pull"],
            "validate": spent["validate"],
            "unload": spent["unload"],
            "load": spent["load"],
            "waited": spent["waited"],
            "failed": spent["failed"],
        },
        "error": None if failed is None else problem_of(failed.error),
    }


ROUTES = [Route("/api/v1/slots/{slot}/loads", list_loads, methods=["GET"])]
