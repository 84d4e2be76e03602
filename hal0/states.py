"""Which states there are, and which changes are legal, for slots and for jobs.

Who enters a slot's state, who leaves it, what becomes of a slot that is left in it:

offline     created, unloaded, reconciled, or a lone pull/validate is done. A load leaves it.
pulling     `pull`, when bytes are fetched. Its chain's next job leaves it; failure leads to error.
starting    `validate` when it begins (or `load`, when the slot is not there yet).
warming     `load`, in the commit that marks the request as sent. Left when the engine has settled
            it: ready (idle after a restore), error, or offline when the engine is another one.
ready       `load` and adoption; the last request that left.
serving     the dispatcher, at the first request.
idle        the idle scan. A request leaves it, or an unload.
unloading   `unload`, in the commit that marks the request as sent.
error       a failed job that left the slot without a usable model. An operator leaves it.

A transient state (pulling, starting, warming, unloading) belongs to a queued or running job; one
that no job owns is recovered by an audited row. A job:

queued      enqueue, rescue, operator retry. A claim leaves it; so does cancel.
running     a claim. Its owner finishes it; rescue puts it back to queued when the owner is dead.
succeeded   did its work, or had nothing to do (outcome `skipped`).
failed      an error that no machine repeats; an operator may retry.
cancelled   by an operator, by a newer intent, or because an earlier job of its chain failed.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple


class SlotState(StrEnum):
    """The nine states of a slot."""

    OFFLINE = "offline"
    PULLING = "pulling"
    STARTING = "starting"
    WARMING = "warming"
    READY = "ready"
    SERVING = "serving"
    IDLE = "idle"
    UNLOADING = "unloading"
    ERROR = "error"


class Cause(StrEnum):
    """Why a slot changed its state: the closed list."""

    CREATED = "created"
    FETCH_STARTED = "fetch_started"
    CHECKED = "checked"
    LOAD_SENT = "load_sent"
    LOADED = "loaded"
    ADOPTED = "adopted"
    JOB_FAILED = "job_failed"
    WORKER_LOST = "worker_lost"
    DEADLINE_PASSED = "deadline_passed"
    CANCELLED = "cancelled"
    PULLED = "pulled"
    VALIDATED = "validated"
    HOST_REBOOTED = "host_rebooted"
    ENGINE_RESTARTED = "engine_restarted"
    REQUEST_STARTED = "request_started"
    REQUESTS_DONE = "requests_done"
    LEASES_CLEARED = "leases_cleared"
    DEMOTED = "demoted"
    USED_ELSEWHERE = "used_elsewhere"
    TOUCHED = "touched"
    OPERATOR_UNLOAD = "operator_unload"
    IDLE_UNLOAD = "idle_unload"
    REPLACED = "replaced"
    FORCED = "forced"
    UNLOADED = "unloaded"
    EVICTED_BY_ENGINE = "evicted_by_engine"
    UNLOADED_ELSEWHERE = "unloaded_elsewhere"
    ENGINE_LOST = "engine_lost"
    CLEARED = "cleared"
    ENGINE_RETURNED = "engine_returned"
    UNLOAD_CONFIRMED = "unload_confirmed"


class JobState(StrEnum):
    """The five states of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobKind(StrEnum):
    """The four kinds of job, in the order in which a load's chain runs them."""

    PULL = "pull"
    VALIDATE = "validate"
    UNLOAD = "unload"
    LOAD = "load"

    @property
    def step(self) -> int:
        """Place of this kind in a load's chain, from 0."""
        return list(JobKind).index(self)


class Outcome(StrEnum):
    """How an attempt ended."""

    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    INTERRUPTED = "interrupted"
    """The worker died or was told to stop. Not a failure: the job is queued again."""
    DEFERRED = "deferred"
    """The engine, the lane, a pull's source or a place to download in was not to be had yet.
    Nothing was sent to an engine; queued again."""


class Origin(StrEnum):
    """Who set a chain going. Machines never repeat a failed load and never evict."""

    OPERATOR = "operator"
    RESTORE = "restore"
    """A machine that loads again what was lost, or what is wanted at boot."""
    IDLE = "idle"
    """A machine that unloads what nobody uses, or what should not be there."""
    WAKE = "wake"
    """A request for inference that came to a slot whose model is not loaded."""


class Wake(StrEnum):
    """Whether a request for inference loads the model of a slot that is offline."""

    ALWAYS = "always"
    AUTO = "auto"
    """Unless an operator, or somebody at the engine, unloaded it."""
    NEVER = "never"


class IncidentKind(StrEnum):
    """What happened at an engine: the closed list."""

    LOAD_FAILED = "load_failed"
    """A load failed, and the engine dropped other models with it."""
    LOAD_MADE_ROOM = "load_made_room"
    """A load succeeded, and the engine dropped others to make room: they are not restored."""
    LATE_ARRIVAL = "late_arrival"
    """A model arrived after its load's deadline, and was unloaded."""
    ENGINE_RESTARTED = "engine_restarted"
    """The engine is another process and has not what the one before had."""
    ENGINE_LOST = "engine_lost"
    """The engine could not be reached for longer than its grace."""
    UNLOADED_ELSEWHERE = "unloaded_elsewhere"
    """Several models were unloaded in the engine's own app, or by another client of it."""


class Desired(StrEnum):
    """What is wanted of a slot."""

    LOADED = "loaded"
    UNLOADED = "unloaded"


class DesiredBy(StrEnum):
    """Who said last what is wanted of a slot."""

    NOBODY = "nobody"
    """It was created, and nothing was asked of it."""
    OPERATOR = "operator"
    WAKE = "wake"
    """A request for inference, which had it loaded."""
    IDLE = "idle"
    """A machine, which unloaded what nobody used."""
    ELSEWHERE = "elsewhere"
    """Somebody who unloaded its model in the engine's own app."""


TRANSIENT: Final = frozenset(
    {SlotState.PULLING, SlotState.STARTING, SlotState.WARMING, SlotState.UNLOADING}
)
DISPATCHABLE: Final = frozenset({SlotState.READY, SlotState.SERVING, SlotState.IDLE})
OF_REQUESTS: Final = frozenset({Cause.REQUEST_STARTED, Cause.REQUESTS_DONE, Cause.LEASES_CLEARED})
"""Causes of changes that leave what a slot holds where it is, and nobody decided."""
FINISHED: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


class Edge(NamedTuple):
    """One legal change; `source` None = the slot comes into being."""

    source: SlotState | None
    to: SlotState
    cause: Cause


_TABLE = """
> offline: created
offline error > pulling: fetch_started
offline pulling error > starting: checked
starting > warming: load_sent
warming > ready: loaded adopted
warming > idle: loaded
pulling starting warming unloading > error: job_failed worker_lost deadline_passed
pulling starting > offline: cancelled pulled validated host_rebooted
warming > offline: engine_restarted host_rebooted
ready idle > serving: request_started
serving > ready: requests_done leases_cleared
serving > idle: leases_cleared
ready > idle: demoted
idle > ready: used_elsewhere touched
ready idle > unloading: operator_unload idle_unload replaced
serving > unloading: forced
unloading > offline: unloaded engine_restarted host_rebooted
ready serving idle > offline: evicted_by_engine unloaded_elsewhere engine_restarted host_rebooted
ready serving idle > error: engine_lost
error > offline: cleared engine_returned unload_confirmed
"""


def _read(table: str) -> Iterator[Edge]:
    for line in table.strip().splitlines():
        ends, causes = line.split(":")
        sources, to = ends.split(">")
        froms: list[SlotState | None] = [SlotState(source) for source in sources.split()]
        for source in froms or [None]:
            for cause in causes.split():
                yield Edge(source, SlotState(to.strip()), Cause(cause))


EDGES: Final = frozenset(_read(_TABLE))
