"""How a job waits: for an engine that is not there yet, for an answer, for its own deadline."""

import concurrent.futures
from enum import StrEnum
from functools import partial
from typing import Any, Final

from hal0.clock import boot_id, monotonic_ms
from hal0.errors import EngineTimeout, EngineUnreachable, Hal0Error
from hal0.jobs.context import Body, Context
from hal0.jobs.give_way import is_a_machines
from hal0.jobs.ledger.claims import wait_on
from hal0.jobs.ledger.rows import Claim, Job
from hal0.states import Outcome

SLICE_S: Final = 0.2


class Ended(StrEnum):
    """Why a wait for an engine's answer is over."""

    ANSWERED = "answered"
    DEADLINE = "deadline"
    STOPPING = "stopping"
    LOST = "lost"


def await_answer(
    ctx: Context, body: Body, answer: "concurrent.futures.Future[Any]", deadline_ms: int
) -> Ended:
    """Wait for an answer until `deadline_ms` of the wall-clock limit; never beyond it.

    A server that dribbles bytes does not stretch it: the clock is ours (ADR-0007).
    """
    while True:
        left_s = (deadline_ms - monotonic_ms()) / 1000
        done, _ = concurrent.futures.wait([answer], max(0.0, min(SLICE_S, left_s)))
        if done:
            return Ended.ANSWERED
        if body.lost.is_set():
            return Ended.LOST
        if ctx.stopping.is_set():
            return Ended.STOPPING
        if monotonic_ms() >= deadline_ms:
            return Ended.DEADLINE


def waited_s_of(job: Job) -> float:
    """Return since how many seconds a job is put back, on this boot; 0 = it was not yet."""
    if job.deferred_boot != boot_id() or job.deferred_ms is None:
        return 0.0
    return (monotonic_ms() - job.deferred_ms) / 1000


def has_to_wait(ctx: Context, held: Claim, error: Hal0Error) -> bool:
    """Whether a load waits for its engine after this error, before anything was sent.

    For one that is not there. A machine's also for one that is there and not itself yet, as after
    a start: nobody would come back for it. An operator is told at once. Raises ClaimLost.
    """
    is_away = isinstance(error, (EngineUnreachable, EngineTimeout))
    return is_away or ctx.commit(partial(is_a_machines, held=held))


def defer(ctx: Context, held: Claim, error: Hal0Error) -> None:
    """Put the job back until the engine answers; nothing was sent.

    Raises EngineUnreachable when it has waited longer than `engine_wait_s` since it first tried.
    """
    waited_s = waited_s_of(held.job)
    limit_s = ctx.settings.engine_wait_s
    if waited_s >= limit_s:
        raise EngineUnreachable(
            f"{error.detail}; given up after {limit_s:g} s (HAL0_ENGINE_WAIT_S): start the engine, "
            f"then retry job {held.job.id}",
            evidence=error.evidence,
        ) from error
    after_s = min(max(0.5, waited_s / 2), 10.0, max(0.1, limit_s - waited_s))
    ctx.commit(lambda tx: wait_on(tx, held, Outcome.DEFERRED, after_s))
