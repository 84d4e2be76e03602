"""The first run over HTTP: look at this machine, and at the models that one may begin with.

This is the one place where the API asks engines anything by itself, and for a second at most; and
the one where it asks a hub. Files are read in threads, and nothing is held while anybody is asked.
"""

import asyncio
from typing import Any, Final

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hal0.api import exchange
from hal0.api.firstrun_answers import Look, Offer
from hal0.api.idempotency import Reply
from hal0.api.schemas import Nothing, Query
from hal0.api.views import when
from hal0.firstrun import record
from hal0.firstrun.finding import find_engines
from hal0.firstrun.offers import look_at, offers
from hal0.firstrun.probe import disk_of, machine_at
from hal0.firstrun.starters import read_starters
from hal0.registry.catalog import registered_among
from hal0.registry.roster import all_engines
from hal0.settings import Settings

LOOKERS: Final = 4
"""So many threads at most ask a hub at once."""


def probe_json(probe: record.Probe) -> dict[str, Any]:
    """Show a look at the machine, as a `firstrun_answers.Probe`."""
    return {"id": probe.id, "at": when(probe.at), **probe.facts}


async def show_probe(request: Request) -> Response:
    """Return what was found of this machine last."""
    exchange.query_of(request, Query)
    return exchange.answer(probe_json(await exchange.read(request, record.newest)))


async def probe_machine(request: Request) -> Response:
    """Look at what this machine has, and which engines answer; it is kept."""
    await exchange.body_of(request, Nothing)
    facts = await found_now(request)
    reply = await exchange.change(request, lambda tx: Reply(probe_json(record.keep(tx, facts))))
    return exchange.respond(reply)


async def list_starters(request: Request) -> Response:
    """Return the models that one may begin with, best first, with what is known of them."""
    exchange.query_of(request, Query)
    return exchange.answer({"items": await offered(request), "next_cursor": None})


async def look_at_starter(request: Request) -> Response:
    """Ask what one of them weighs, and whether it fits; nothing is downloaded or registered."""
    await exchange.body_of(request, Nothing)
    return exchange.answer(await looked_at(request, request.path_params["starter"]))


async def found_now(request: Request) -> dict[str, Any]:
    """Return the facts of a probe; it takes a second at most."""
    registered = await exchange.read(request, all_engines)
    facts, engines = await asyncio.gather(
        run_in_threadpool(_facts, exchange.settings_of(request)), find_engines(registered)
    )
    return {**facts, "engines": engines}


async def offered(request: Request) -> list[Offer]:
    """Return the starters in their order; raises SettingsError."""
    settings = exchange.settings_of(request)
    starters = await run_in_threadpool(read_starters, settings)
    names = [starter.name for starter in starters]
    registered = await exchange.read(request, lambda tx: registered_among(tx, names))
    return await run_in_threadpool(offers, settings, starters, registered)


async def looked_at(request: Request, name: str) -> Look:
    """Return a starter with its size, and whether it fits; raises as `offers.look_at`.

    A few look at once and the rest wait: a hub that says nothing holds a thread for seconds, and
    every other route needs those of the pool.
    """
    settings, lookers = exchange.settings_of(request), request.app.state.lookers
    return await anyio.to_thread.run_sync(look_at, settings, name, limiter=lookers)


def _facts(settings: Settings) -> dict[str, Any]:
    return {
        **machine_at(),
        "disk": disk_of(settings.models, settings.disk_reserve_bytes),
    }


ROUTES = [
    Route("/api/v1/probe", show_probe, methods=["GET"]),
    Route("/api/v1/probe", probe_machine, methods=["POST"]),
    Route("/api/v1/starters", list_starters, methods=["GET"]),
    Route("/api/v1/starters/{starter}/look", look_at_starter, methods=["POST"]),
]
