"""The list of what is served below /v1, which clients of OpenAI's API look names up in."""

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hal0.api import answers, exchange
from hal0.api.schemas import Query
from hal0.dispatcher.targets import names_in
from hal0.slots.overview import SlotOverview, overviews
from hal0.slots.queries import living_slots, slot_by_id


async def list_served(request: Request) -> Response:
    """Return the slots, as OpenAI's clients read models."""
    exchange.query_of(request, Query)

    def look(tx: Connection) -> answers.Served:
        seen = overviews(tx, living_slots(tx))
        return {"object": "list", "data": [_served(one) for one in seen]}

    return exchange.answer(await exchange.read(request, look))


async def show_served(request: Request) -> Response:
    """Return the slot that a request with this `model` would mean."""
    exchange.query_of(request, Query)
    name = request.path_params["name"]

    def look(tx: Connection) -> answers.ServedSlot:
        slot = slot_by_id(tx, names_in(tx).find(name).slot_id)
        return _served(overviews(tx, [slot])[0])

    return exchange.answer(await exchange.read(request, look))


def _served(seen: SlotOverview) -> answers.ServedSlot:
    slot = seen.slot
    return {
        "id": slot.name,
        "object": "model",
        "created": int(slot.created_at.timestamp()),
        "owned_by": "hal0",
        "state": slot.state,
        "model": seen.model or seen.wanted_model,
    }


ROUTES = [
    Route("/v1/models", list_served, methods=["GET"]),
    Route("/v1/models/{name}", show_served, methods=["GET"]),
]
