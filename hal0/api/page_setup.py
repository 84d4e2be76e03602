"""The first steps on the page: from a machine that nobody looked at to a slot that answers.

Each step is an order like any other, sent as a form, and leaves behind rows alone: whoever stops
midway goes on where they were, here or with `hal0 setup`. What a hub says of a file is shown before
anything of it is fetched, and what was shown is what is registered.
"""

import itertools
from collections.abc import Callable, Set
from typing import Any, Final

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from hal0.access.roles import LOCAL
from hal0.api import exchange, firstrun, page_reading
from hal0.api.engines import values_of
from hal0.api.fields import HttpOrigin, TokenName
from hal0.api.forms import form_of
from hal0.api.idempotency import Reply
from hal0.api.models import placed
from hal0.api.page_answers import page
from hal0.api.schemas import EngineCreate, ModelCreate, Query, SlotCreate, TokenCreate
from hal0.api.session import remember
from hal0.api.slots import options_of
from hal0.api.tokens import made
from hal0.declare.fields import Bytes, EngineName, ModelName, Sha256, SlotName, Source
from hal0.errors import Hal0Error, ProbeNotFound
from hal0.firstrun import record
from hal0.jobs.ledger import intake
from hal0.jobs.ledger.intake import Wish
from hal0.jobs.setup import create_slot
from hal0.registry.catalog import register, registered_among
from hal0.registry.roster import add_engine, all_engines, engine_named
from hal0.settings import EngineKind
from hal0.slots.queries import living_slots, slot_named
from hal0.states import JobKind

HOME: Final = "/page/setup"
FIRST_SLOT: Final = "chat"


class SetupQuery(Query):
    """Which slot is on its way; none yet."""

    slot: SlotName | None = None


class EngineForm(Query):
    """An engine that is to be used."""

    name: EngineName
    kind: EngineKind
    url: HttpOrigin


class LookForm(Query):
    """Which model somebody thinks of."""

    starter: ModelName


class BeginForm(Query):
    """What somebody agreed to, and where it is to be loaded."""

    model: ModelName
    source: Source
    size_bytes: Bytes | None = None
    sha256: Sha256 | None = None
    allow_copy: bool = False
    slot: SlotName
    engine: EngineName

    @property
    def registration(self) -> ModelCreate:
        """The model, as it would be asked for over REST."""
        taken = self.model_dump(include={"source", "size_bytes", "sha256", "allow_copy"})
        return ModelCreate(name=self.model, **taken)


class TokenForm(Query):
    """Who shall be let in."""

    name: TokenName


async def first_steps(request: Request) -> dict[str, Any]:
    """Return what the first steps show: the machine, its engines, what one may begin with."""

    def look(tx: Connection) -> dict[str, Any]:
        try:
            probe = firstrun.probe_json(record.newest(tx))
        except ProbeNotFound:
            probe = None
        return {"probe": probe, "engines": all_engines(tx)}

    shown, problem = await exchange.read(request, look), None
    try:
        offers = await firstrun.offered(request)
    except Hal0Error as error:  # the page of a hal0 whose list of starters is broken is shown
        offers, problem = [], error.detail
    return {**shown, "offers": offers, "problem": problem}


async def show_setup(request: Request) -> Response:
    """Return the first steps, or with a slot the last ones."""
    name = exchange.query_of(request, SetupQuery).slot
    if name is None:
        return page(request, "setup", setup=await first_steps(request))
    settings = exchange.settings_of(request)
    cards = await exchange.read(
        request, lambda tx: page_reading.cards_of(tx, settings, [slot_named(tx, name)])
    )
    return page(
        request,
        "setup_slot",
        card=cards[0],
        origin=f"{request.url.scheme}://{request.url.netloc}",
        is_open=request.state.actor == LOCAL,
    )


async def probe_machine(request: Request) -> Response:
    """Look at what this machine has, and keep it."""
    await form_of(request, Query)
    facts = await firstrun.found_now(request)
    await exchange.change(request, lambda tx: Reply({"probe_id": record.keep(tx, facts).id}))
    return _on(HOME)


async def use_engine(request: Request) -> Response:
    """Make an engine known; then look again, for what it says of itself."""
    form, settings = await form_of(request, EngineForm), exchange.settings_of(request)
    values = values_of(settings, EngineCreate(**form.model_dump()))
    await exchange.change(request, lambda tx: Reply({"engine": add_engine(tx, values).name}))
    facts = await firstrun.found_now(request)
    await exchange.change(request, lambda tx: Reply({"probe_id": record.keep(tx, facts).id}))
    return _on(HOME)


async def look_at_starter(request: Request) -> Response:
    """Show what a model weighs, and whether it fits, before anything is fetched."""
    form = await form_of(request, LookForm)
    look = await firstrun.looked_at(request, form.starter)

    def known(tx: Connection) -> dict[str, Any]:
        return {
            "engines": all_engines(tx),
            "is_registered": bool(registered_among(tx, [look["name"]])),
            "free_slot": _free_name({slot.name for slot in living_slots(tx)}),
        }

    return page(request, "setup_model", look=look, **await exchange.read(request, known))


async def begin(request: Request) -> Response:
    """Register what was agreed to, make a slot for it, and have it loaded: all of it or nothing."""
    form, settings = await form_of(request, BeginForm), exchange.settings_of(request)
    by, act, model = exchange.by(request), exchange.act(request), form.registration
    files = placed(settings, model.name, model.in_order)

    def do(tx: Connection) -> Reply:
        if not registered_among(tx, [model.name]):
            register(tx, model.name, model.format, files, allow_copy=model.allow_copy)
        options = options_of(engine_named(tx, form.engine), {}, {})
        setup = SlotCreate(name=form.slot, engine=form.engine, model=form.model).setup
        slot = create_slot(tx, settings, form.slot, {**setup, "options": options}, act)
        wish = Wish(JobKind.LOAD, None, options, drain_timeout_s=settings.drain_timeout_s)
        intake.request_load(tx, slot, wish, by)
        return Reply({"slot": slot.name})

    reply = await exchange.enqueue(request, do)
    return _on(f"{HOME}?slot={(reply.body or {})['slot']}")


async def make_token(request: Request) -> Response:
    """Make a token and show its text, this once; an open page goes on with it."""
    form, was_open = await form_of(request, TokenForm), request.state.actor == LOCAL
    token = await made(request, TokenCreate(name=form.name, role="writer"))
    answer = page(request, "setup_token", token=token)
    if was_open:
        remember(answer, request, token["token"], None)
    return answer


def _free_name(taken: Set[str]) -> str:
    names = (f"{FIRST_SLOT}-{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain([FIRST_SLOT], names) if name not in taken)


def _on(path: str) -> Response:
    return RedirectResponse(path, 303, {"Cache-Control": "no-store"})


def _of_people(method: str, path: str, handler: Callable[..., Any]) -> Route:
    return Route(path, handler, methods=[method], include_in_schema=False)


ROUTES = [
    _of_people("GET", HOME, show_setup),
    _of_people("POST", f"{HOME}/probe", probe_machine),
    _of_people("POST", f"{HOME}/engine", use_engine),
    _of_people("POST", f"{HOME}/look", look_at_starter),
    _of_people("POST", f"{HOME}/begin", begin),
    _of_people("POST", f"{HOME}/token", make_token),
]
