"""The operator's page: whole at `/`, and in the parts that page.js asks for when something changed.

There is one renderer, the server's: what a reader without JavaScript gets is what everyone gets.
"""

from collections.abc import Callable
from typing import Any, Final, Literal

from pydantic import Field
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hal0.api import exchange, page_reading, page_record
from hal0.api.fields import Since
from hal0.api.forms import query_of
from hal0.api.page_answers import page
from hal0.api.page_record import Asked
from hal0.api.page_setup import first_steps
from hal0.api.schemas import Query
from hal0.errors import RouteNotFound
from hal0.jobs.queries import job_detail
from hal0.page.render import assets
from hal0.slots.queries import living_slots, slot_named

FOR_EVER: Final = "public, max-age=31536000, immutable"
LOADS: Final = 20
"""So many loads are shown of a slot."""


class RecordQuery(Query):
    """Which part of the record."""

    tab: Literal["jobs", "audit", "incidents", "models"] = "jobs"
    filter: str = Field("", max_length=1000)
    before: int | None = Field(None, ge=0, le=2**63 - 1)

    @property
    def asked(self) -> Asked:
        """The same, for who reads it."""
        return Asked(self.tab, self.filter.strip(), self.before)


class Stretch(Query):
    """Of what time a strip is drawn; instants."""

    since: Since = Field(None, alias="from")
    until: Since = Field(None, alias="to")


async def show_page(request: Request) -> Response:
    """Return the page."""
    asked, settings = exchange.query_of(request, RecordQuery).asked, exchange.settings_of(request)

    def look(tx: Connection) -> dict[str, Any]:
        incidents, are_more = page_reading.alerts_of(tx)
        return {
            "head": page_reading.head_of(tx),
            "alerts": incidents,
            "are_more_alerts": are_more,
            "cards": page_reading.cards_of(tx, settings, living_slots(tx)),
            "record": page_record.record_of(tx, asked),
        }

    return await _with_cards(request, "page", await exchange.read(request, look))


async def show_head(request: Request) -> Response:
    """Return how hal0 is."""
    exchange.query_of(request, Query)
    return page(request, "head", head=await exchange.read(request, page_reading.head_of))


async def show_alerts(request: Request) -> Response:
    """Return what nobody acknowledged."""
    exchange.query_of(request, Query)
    incidents, are_more = await exchange.read(request, page_reading.alerts_of)
    return page(request, "alerts", alerts=incidents, are_more_alerts=are_more)


async def show_cards(request: Request) -> Response:
    """Return all cards."""
    exchange.query_of(request, Query)
    settings = exchange.settings_of(request)
    cards = await exchange.read(
        request, lambda tx: page_reading.cards_of(tx, settings, living_slots(tx))
    )
    return await _with_cards(request, "cards", {"cards": cards})


async def _with_cards(request: Request, template: str, shown: dict[str, Any]) -> Response:
    """Return what shows all cards, or the first steps where there is none."""
    setup = None if shown["cards"] else await first_steps(request)
    return page(request, template, setup=setup, **shown)


async def show_card(request: Request) -> Response:
    """Return one card."""
    exchange.query_of(request, Query)
    name, settings = request.path_params["slot"], exchange.settings_of(request)
    cards = await exchange.read(
        request, lambda tx: page_reading.cards_of(tx, settings, [slot_named(tx, name)])
    )
    return page(request, "card", card=cards[0])


async def show_record(request: Request) -> Response:
    """Return a tab of the record."""
    asked = exchange.query_of(request, RecordQuery).asked
    record = await exchange.read(request, lambda tx: page_record.record_of(tx, asked))
    return page(request, "record", record=record)


async def show_slot(request: Request) -> Response:
    """Return all of a slot: its strip as near as asked, its loads, its changes."""
    asked = query_of(request, Stretch)
    name, settings = request.path_params["slot"], exchange.settings_of(request)
    stretch = page_reading.stretch_of(_instant(asked.since), _instant(asked.until))

    def look(tx: Connection) -> dict[str, Any]:
        slot = slot_named(tx, name)
        changes = page_record.changes_in(tx, slot, stretch)
        return {
            "card": page_reading.cards_of(tx, settings, [slot], stretch)[0],
            "loads": page_reading.loads_of(tx, slot, LOADS),
            "changes": changes,
            "slot_of_job": page_record.slot_of_jobs(tx, changes),
            "zooms": page_reading.zooms(stretch),
        }

    return page(request, "slot", **await exchange.read(request, look))


async def show_job(request: Request) -> Response:
    """Return all of a job: its attempts with their errors, the phases of its chain."""
    exchange.query_of(request, Query)
    job_id = request.path_params["job_id"]

    def look(tx: Connection) -> dict[str, Any]:
        detail = job_detail(tx, job_id)
        chain = page_reading.chain_of(tx, detail)
        return {"detail": detail, "chain": chain, "phases": page_reading.phases_of_chain(chain)}

    return page(request, "job", **await exchange.read(request, look))


async def show_asset(request: Request) -> Response:
    """Return a file of the page; its name changes with it, so it is kept for ever."""
    found = assets().get(request.scope["path"])
    if found is None:
        raise RouteNotFound("there is no such file; load the page again")
    media_type, content = found
    headers = {"Cache-Control": FOR_EVER, "X-Content-Type-Options": "nosniff"}
    return Response(content, headers=headers, media_type=media_type)


def _instant(given: Any) -> Any:
    """Return a time; a row's id, which `Since` allows too, is none."""
    return None if isinstance(given, int) else given


def _of_people(path: str, handler: Callable[..., Any]) -> Route:
    return Route(path, handler, methods=["GET"], include_in_schema=False)


ROUTES = [
    _of_people("/", show_page),
    _of_people("/assets/{name}", show_asset),
    _of_people("/page/head", show_head),
    _of_people("/page/alerts", show_alerts),
    _of_people("/page/cards", show_cards),
    _of_people("/page/cards/{slot}", show_card),
    _of_people("/page/record", show_record),
    _of_people("/page/slots/{slot}", show_slot),
    _of_people("/page/jobs/{job_id:int}", show_job),
]
