"""What a writer does on the page: the same orders as over REST, sent as forms.

What takes something away, or takes many at once, is asked about first, on a page of its own that
page.js shows as a dialog. What is confirmed is what was counted there: the form carries the jobs.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, Literal
from urllib.parse import quote

from pydantic import Field
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hal0.api import exchange
from hal0.api.forms import form_of, query_of
from hal0.api.idempotency import Reply
from hal0.api.page_answers import done, page
from hal0.api.schemas import Query
from hal0.api.slots import options_of
from hal0.declare.fields import ModelName
from hal0.errors import NotAsCounted, RouteNotFound
from hal0.jobs.bulk import BulkFilter, cancel_all, newest_failures, open_jobs, retry_all
from hal0.jobs.filters import bulk_filter
from hal0.jobs.incident_queries import incident_detail
from hal0.jobs.incidents import acknowledge
from hal0.jobs.ledger import intake, orders
from hal0.jobs.ledger.intake import Accepted, Wish
from hal0.jobs.ledger.rows import By
from hal0.jobs.queries import job_detail
from hal0.jobs.setup import change_slot
from hal0.registry.catalog import model_named
from hal0.registry.roster import engine_by_id
from hal0.settings import Settings
from hal0.slots.queries import Slot, slot_named
from hal0.states import JobKind, JobState

ASKED_ABOUT: Final = frozenset({"unload"})


class SlotForm(Query):
    """Which model to load, or how to unload; for all else it is empty."""

    model: ModelName | None = None
    force: bool = False
    even_if_pinned: bool = False


class BulkForm(Query):
    """Which jobs: those of a filter, or those that were chosen one by one."""

    MOST: ClassVar[int] = 1000
    """So many jobs a form carries."""

    tab: Literal["jobs"] = "jobs"
    filter: str = Field("", max_length=1000)
    job: list[int] = Field(default=[], max_length=MOST)

    def wanted(self, state: JobState | None) -> BulkFilter:
        """Return the filter; chosen jobs are taken whatever it says. Raises InvalidRequest."""
        if self.job:
            return BulkFilter(job_ids=frozenset(self.job))
        return bulk_filter(self.filter, state)


class ConfirmedForm(BulkForm):
    """What was counted: the jobs themselves, or of more than a form carries how many."""

    counted: int = Field(0, ge=0)

    def compare(self, count: int) -> None:
        """Raise NotAsCounted when as many jobs are not what was confirmed."""
        if not self.job and count != self.counted:
            raise NotAsCounted(
                f"nothing was done: {self.counted} were counted, it would be {count} now; "
                "look again"
            )


Order = Callable[[Connection, Settings, Slot, By, SlotForm], Accepted | None]


def _load(
    tx: Connection, settings: Settings, slot: Slot, by: By, form: SlotForm
) -> Accepted | None:
    options = options_of(engine_by_id(tx, slot.engine_id), {}, slot.options)
    model_id = None if form.model is None else model_named(tx, form.model).id
    wish = Wish(JobKind.LOAD, model_id, options, drain_timeout_s=settings.drain_timeout_s)
    return intake.request_load(tx, slot, wish, by)


def _unload(
    tx: Connection, settings: Settings, slot: Slot, by: By, form: SlotForm
) -> Accepted | None:
    wish = Wish(JobKind.UNLOAD, force=form.force, drain_timeout_s=settings.drain_timeout_s)
    return intake.request_unload(tx, slot, wish, by, even_if_pinned=form.even_if_pinned)


def _pull(
    tx: Connection, settings: Settings, slot: Slot, by: By, form: SlotForm
) -> Accepted | None:
    return intake.request_check(tx, slot, Wish(JobKind.PULL, force=True), by)


def _pinned(is_pinned: bool) -> Order:
    def pin(
        tx: Connection, settings: Settings, slot: Slot, by: By, form: SlotForm
    ) -> Accepted | None:
        change_slot(tx, settings, slot, {"pinned": is_pinned})
        return None

    return pin


ORDERS: Final[dict[str, Order]] = {
    "load": _load,
    "unload": _unload,
    "pull": _pull,
    "pin": _pinned(True),
    "unpin": _pinned(False),
}


async def order_slot(request: Request) -> Response:
    """Do to a slot what its card offers."""
    form = await form_of(request, SlotForm)
    name, action, by = request.path_params["slot"], _action(request), exchange.by(request)
    settings = exchange.settings_of(request)

    def do(tx: Connection) -> Reply:
        accepted = ORDERS[action](tx, settings, slot_named(tx, name), by, form)
        return Reply({"said": f"{name}: {_said(action, accepted)}"})

    reply = await exchange.enqueue(request, do)
    return done(request, (reply.body or {})["said"], f"/#slot-{name}")


async def ask_slot(request: Request) -> Response:
    """Ask whether to unload, and how."""
    exchange.query_of(request, Query)
    action = _action(request)
    if action not in ASKED_ABOUT:
        raise RouteNotFound(f"nobody is asked about {action}")
    name = request.path_params["slot"]
    slot = await exchange.read(request, lambda tx: slot_named(tx, name))
    return page(request, "ask_unload", slot=slot)


async def retry_job(request: Request) -> Response:
    """Queue a failed job, and all of its chain that must follow, again."""
    return await _to_job(request, "queued again", orders.retry)


async def cancel_job(request: Request) -> Response:
    """Cancel a job and the rest of its chain."""
    return await _to_job(request, "cancelled", orders.cancel)


async def _to_job(
    request: Request, said: str, do: Callable[[Connection, int, By], Sequence[Any]]
) -> Response:
    await form_of(request, Query)
    job_id, by = request.path_params["job_id"], exchange.by(request)

    def change(tx: Connection) -> Reply:
        detail = job_detail(tx, job_id)
        do(tx, job_id, by)
        return Reply({"said": f"{detail.slot}: job {job_id} {said}"})

    reply = await exchange.enqueue(request, change)
    return done(request, (reply.body or {})["said"], f"/page/jobs/{job_id}")


async def ask_retry(request: Request) -> Response:
    """Count what a retry of many would take, and ask."""
    form = query_of(request, BulkForm)
    found = await exchange.read(
        request, lambda tx: newest_failures(tx, form.wanted(JobState.FAILED))
    )
    return page(request, "ask_many", what="retry", form=form, found=found)


async def ask_cancel(request: Request) -> Response:
    """Count what a cancel of many would take, and ask."""
    form = query_of(request, BulkForm)
    found = await exchange.read(request, lambda tx: open_jobs(tx, form.wanted(None)))
    return page(request, "ask_many", what="cancel", form=form, found=found)


async def retry_jobs(request: Request) -> Response:
    """Retry what was counted and still is the newest chain of its slot."""
    form, by = await form_of(request, ConfirmedForm), exchange.by(request)
    wanted = form.wanted(JobState.FAILED)
    return await _to_many(
        request, form, "queued again", lambda tx: retry_all(tx, wanted, by, dry_run=False)
    )


async def cancel_jobs(request: Request) -> Response:
    """Cancel of what was counted every chain that is not done."""
    form, by = await form_of(request, ConfirmedForm), exchange.by(request)
    wanted = form.wanted(None)
    return await _to_many(request, form, "cancelled", lambda tx: cancel_all(tx, wanted, by))


async def _to_many(
    request: Request, form: ConfirmedForm, said: str, do: Callable[[Connection], Sequence[Any]]
) -> Response:
    def change(tx: Connection) -> Reply:
        results = do(tx)
        form.compare(len(results))
        refused = [
            f"{one.slot}: {one.refusal.detail}" for one in results if one.refusal is not None
        ]
        count = len(results) - len(refused)
        told = f"{count} of {len(results)} {said}" if refused else f"{count} {said}"
        return Reply({"said": "; ".join([told, *refused])})

    reply = await exchange.enqueue(request, change)
    to = f"/?tab=jobs&filter={quote(form.filter, safe='')}"
    return done(request, (reply.body or {})["said"], to)


async def acknowledge_incident(request: Request) -> Response:
    """Say that an incident was seen."""
    await form_of(request, Query)
    incident_id, actor = request.path_params["incident_id"], request.state.actor

    def do(tx: Connection) -> Reply:
        acknowledge(tx, incident_detail(tx, incident_id).id, actor)
        return Reply({})

    await exchange.change(request, do)
    return done(request, f"incident {incident_id} acknowledged", "/")


def _action(request: Request) -> str:
    action: str = request.path_params["action"]
    if action not in ORDERS:
        raise RouteNotFound(f"a slot takes {', '.join(ORDERS)}, not {action:.60}")
    return action


def _said(action: str, accepted: Accepted | None) -> str:
    if accepted is None:
        return f"{action}ned"
    if accepted.already:
        return f"{action}ed already"
    return f"{action} asked for, job {accepted.job_ids[-1]}"


def _of_people(method: str, path: str, handler: Callable[..., Any]) -> Route:
    return Route(path, handler, methods=[method], include_in_schema=False)


ROUTES = [
    _of_people("GET", "/page/slots/{slot}/ask/{action}", ask_slot),
    _of_people("POST", "/page/slots/{slot}/{action}", order_slot),
    _of_people("POST", "/page/jobs/{job_id:int}/retry", retry_job),
    _of_people("POST", "/page/jobs/{job_id:int}/cancel", cancel_job),
    _of_people("GET", "/page/ask/retry", ask_retry),
    _of_people("GET", "/page/ask/cancel", ask_cancel),
    _of_people("POST", "/page/retry", retry_jobs),
    _of_people("POST", "/page/cancel", cancel_jobs),
    _of_people("POST", "/page/incidents/{incident_id:int}/ack", acknowledge_incident),
]
