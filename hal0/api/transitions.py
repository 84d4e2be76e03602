"""The audit over HTTP, oldest first: who has read a page asks for what lies behind its last id."""

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hal0.api import exchange, views
from hal0.api.paging import cursor_of, key_of, page
from hal0.api.schemas import TransitionsQuery
from hal0.jobs.filters import audit_filter, narrowed
from hal0.slots.audit import AuditRow, audit_page
from hal0.slots.overview import ids_ever_named


async def list_transitions(request: Request) -> Response:
    """Return a page of the audit; `order=desc` begins with the newest row."""
    query = exchange.query_of(request, TransitionsQuery)
    listed = f"transitions-{query.order}"
    behind = key_of(listed, int, query.cursor)

    def look(tx: Connection) -> list[AuditRow]:
        slot_ids = None if query.slot is None else ids_ever_named(tx, query.slot)
        given = {
            "slot_ids": slot_ids,
            "cause": query.cause,
            "since": query.since,
            "until": query.until,
        }
        return audit_page(
            tx,
            narrowed(audit_filter(tx, query.filter), given),
            limit=query.limit + 1,
            behind=behind,
            newest_first=query.order == "desc",
        )

    rows = await exchange.read(request, look)
    shown = [views.transition_json(row) for row in rows]
    return exchange.answer(page(shown, query.limit, lambda row: cursor_of(listed, row["id"])))


ROUTES = [Route("/api/v1/transitions", list_transitions, methods=["GET"])]
