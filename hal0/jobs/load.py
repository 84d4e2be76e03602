"""How `load` brings a validated model into the engine: sent once, watched to one end (ADR-0007).

    connect   the engine's health is read first: refused = nothing was sent, the job waits
    mark      lane, warming, deadline and "sent" in one durable commit
    send      one POST; its answer is awaited until the wall-clock limit of the slot
    verify    health lists the model and its backend answers
    adopt     instead of mark and send, when the engine has it already and it answers
    ready     slot, job, lane and whatever the engine dropped meanwhile, in one commit

A load that was sent and failed or timed out is never sent again by a machine. An attempt that finds
its job marked as sent, after a worker's death, sends nothing: it watches the engine's health to the
original deadline. Its ends are in `jobs.load_ends`; what is still on its way at the
deadline is settled by `jobs.settle`.
"""

import concurrent.futures
import contextlib
from functools import partial
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from hal0 import points
from hal0.clock import monotonic_ms
from hal0.engines.base import LLM
from hal0.engines.options import as_held
from hal0.errors import (
    BackendNotAnswering,
    DatabaseError,
    EngineBadAnswer,
    EngineError,
    EngineTimeout,
    EngineUnreachable,
    FileChanged,
    Hal0Error,
    LaneTaken,
)
from hal0.jobs.adoption import Adoption, adopt
from hal0.jobs.context import Body, Context
from hal0.jobs.engine_room import Stopping
from hal0.jobs.engine_wait import Ended, await_answer, defer, has_to_wait
from hal0.jobs.give_way import give_way, is_a_machines
from hal0.jobs.late_answers import watch_late_answer
from hal0.jobs.ledger.claims import check, fail, finish, put_back, renewed
from hal0.jobs.ledger.intake import forget_failed_key
from hal0.jobs.ledger.lane import Sending, mark_load_sent, note_answered, unmark_load
from hal0.jobs.load_ends import LoadUnderWay, validated
from hal0.jobs.losses import forget_held, write_loss
from hal0.jobs.make_place import make_place, spare
from hal0.jobs.reading import QUICK_S, Reading, read_health, try_health, who_answers
from hal0.jobs.settle import is_another
from hal0.registry.files import FileIdentity
from hal0.registry.preload import ensure_unchanged
from hal0.slots.queries import slot_by_id
from hal0.slots.transitions import move
from hal0.states import Cause, Outcome, SlotState

AT_LIMIT: Final = "the engine is at its model limit"
ANOTHER_PROCESS: Final = "the engine is another process"
VERIFY_S: Final = 10.0
"""How long an engine that says "loaded" may take to list the model."""


def run(ctx: Context, body: Body) -> None:
    """Send the load and see it through, or, when it was sent before, watch it."""
    one = _Load(ctx, body)
    if body.held.job.was_sent:
        one.watch()
        return
    points.reach("load.begun")
    try:
        reading = read_health(ctx, one.engine)
    except EngineError as error:
        if not has_to_wait(ctx, body.held, error):
            raise
        defer(ctx, body.held, error)
        return
    if one.slot.holds(body.held.chain.model_id, body.held.chain.options) and ctx.commit(
        partial(one.is_there, reading=reading)
    ):
        return
    if reading.health.models is None and ctx.commit(partial(is_a_machines, held=body.held)):
        defer(ctx, body.held, EngineBadAnswer(f"engine {one.engine.name} does not say what it has"))
    elif not one.is_over_already(reading) and not (
        one.would_evict(reading) and ctx.commit(partial(give_way, held=body.held, because=AT_LIMIT))
    ):
        one.send(reading)


class _Load(LoadUnderWay):
    """The steps up to the end, in their order."""

    # -- nothing to send ----------------------------------------------------------------------

    def is_there(self, tx: Connection, reading: Reading) -> bool:
        """End the load if the engine has the model; else write that it lost it.

        Who waits for it finds an idle slot ready. What the engine does not say is believed of the
        row.
        """
        slot = check(tx, self.held)
        if not slot.is_dispatchable:
            return False
        if reading.health.models is not None and not reading.lists(tx, slot):
            write_loss(tx, slot, reading, self.held.act)
            return False
        if slot.state is SlotState.IDLE and self.is_waited_for(tx):
            move(tx, slot, SlotState.READY, Cause.TOUCHED, self.held.act)
        finish(tx, self.held, Outcome.SKIPPED)
        return True

    def is_over_already(self, reading: Reading) -> bool:
        """Adopt what the engine has loaded as it is wanted; tell whether the attempt has ended so.

        What is listed and does not answer is unloaded: to load it again would change nothing. Not
        while somebody uses it, or may, who would be cut off. A machine takes it with other options
        too, as a scan does: somebody has loaded it so.
        """
        with self.ctx.db.read() as tx:
            slot = slot_by_id(tx, self.slot.id)
        entry = self.listed(reading)
        if slot.is_dispatchable or entry is None:
            return False
        model_id, options = self.held.load_key_args
        if not who_answers(self.ctx, self.engine, [entry]):
            limit_s = self.ctx.settings.drain_timeout_s
            if entry.busy is not False and self.ctx.commit(
                partial(spare, held=self.held, limit_s=limit_s)
            ):
                return True
            return not self.is_place_free(reading, entry.name)
        adoption = Adoption(entry, model_id, as_held(options, entry.options))
        return self.ctx.commit(partial(self.take_over, adoption=adoption, reading=reading))

    def is_place_free(self, reading: Reading, name: str) -> bool:
        """Unload what does not answer; False = the engine is gone, and the job waits for it."""
        try:
            make_place(self.ctx, self.body, reading, name)
        except EngineUnreachable as error:
            defer(self.ctx, self.held, error)
            return False
        return True

    def take_over(self, tx: Connection, adoption: Adoption, reading: Reading) -> bool:
        """End the load with what is there, nothing is sent; False = the load itself reloads it."""
        is_wanted = adoption.options == self.held.load_key_args[1]
        if not is_wanted and not is_a_machines(tx, self.held):
            return False
        slot = adopt(tx, check(tx, self.held), adoption, reading, self.held.act)
        forget_failed_key(tx, slot.id, adoption.model_id, adoption.options)
        finish(tx, self.held, result={"adopted": True})
        return True

    def would_evict(self, reading: Reading) -> bool:
        """Whether the engine is full of others of its type, so that it would drop one for this."""
        with self.ctx.db.read() as tx:
            type_ = validated(tx, self.held).get("type") or LLM
        return reading.health.is_full_of(type_) and self.listed(reading) is None

    # -- mark and send ------------------------------------------------------------------------

    def send(self, reading: Reading) -> None:
        """Look at the files once more, mark, send, wait."""
        with self.ctx.db.read() as tx:
            facts = validated(tx, self.held)
        files = [(Path(f["path"]), FileIdentity.from_json(f["identity"])) for f in facts["files"]]
        ensure_unchanged(files)
        if self.ctx.should_stop(self.body):
            raise Stopping
        name = str(facts["engine_model"])
        sending = Sending(
            engine_model=name,
            process=reading.health.process,
            timeout_s=self.limit_s(),
            settle_s=self.engine.settle_s,
        )
        try:
            self.ctx.commit(lambda tx: mark_load_sent(tx, self.held, sending))
        except LaneTaken:
            self.ctx.commit(lambda tx: put_back(tx, self.held, Outcome.DEFERRED, after_s=0.2))
            return
        points.reach("load.marked")
        with self.ctx.db.read() as tx:
            self.body.held = renewed(tx, self.held)
        try:
            ensure_unchanged(files)  # the commit may have waited long for the database
        except FileChanged as error:
            self.ctx.commit(partial(self.was_refused_in_time, error=error))
            return
        options = self.held.chain.options or {}
        answer = self.ctx.engines.begin(
            self.engine, lambda e: e.load(name, options, lambda: points.reach("load.sent"))
        )
        self.wait(answer)

    def wait(self, answer: "concurrent.futures.Future[None]") -> None:
        """Follow the request to its answer, or to the deadline of the slot (ADR-0007)."""
        assert self.held.job.deadline_ms is not None
        ended = await_answer(self.ctx, self.body, answer, self.held.job.deadline_ms)
        if ended is Ended.ANSWERED:
            points.reach("load.answered")
            self.answered(answer.exception())
            return
        if ended is Ended.STOPPING:
            raise Stopping
        watch_late_answer(self.ctx, self.held, self.engine, answer)
        if ended is Ended.DEADLINE:
            self.time_out()

    def answered(self, error: BaseException | None) -> None:
        """Act on the engine's answer."""
        if not isinstance(error, (EngineBadAnswer, EngineTimeout, EngineUnreachable)):
            self.note_answered()
        if error is None:
            self.verify()
        elif isinstance(error, EngineUnreachable):
            refused = error
            self.ctx.commit(lambda tx: self.was_not_sent(tx, refused))
        elif isinstance(error, (EngineBadAnswer, EngineTimeout)):
            self.watch()  # the connection broke: the engine is gone, or goes on without us
        elif isinstance(error, Hal0Error):
            self.settle_failed(error)
        else:
            raise error

    def note_answered(self) -> None:
        """Write softly that the engine owes nothing more, whatever becomes of this process."""
        job = self.held.job
        with contextlib.suppress(DatabaseError), self.ctx.db.soft() as tx:
            note_answered(tx, self.engine.id, job.id, job.attempt)

    def was_refused_in_time(self, tx: Connection, error: FileChanged) -> None:
        """Another file lies there now: mark and lane go, nothing was sent, the job fails."""
        unmark_load(tx, self.held)
        fail(tx, self.held, error)
        forget_held(tx, self.held.job.slot_id)

    def was_not_sent(self, tx: Connection, error: EngineUnreachable) -> None:
        """Refused after the mark: mark and lane go, the slot is offline, the job waits."""
        slot = check(tx, self.held)
        unmark_load(tx, self.held)
        move(tx, slot, SlotState.OFFLINE, Cause.ENGINE_RESTARTED, self.held.act, error.as_row())
        forget_held(tx, slot.id)
        put_back(tx, self.held, Outcome.DEFERRED, after_s=0.5)

    # -- see it through ------------------------------------------------------------------------

    def verify(self) -> None:
        """Take "success" for what it is worth: health lists the model and its backend answers.

        A health that cannot be read says nothing. One that can, and does not say so for
        `VERIFY_S` or at the deadline, makes the load a failed one. The engine may have become
        another process before it got the request: what counts is what it has.
        """
        doubted_ms: int | None = None
        while True:
            reading = try_health(self.ctx, self.engine, QUICK_S)
            serving = None if reading is None else self.is_serving(reading)
            if reading is not None and serving:
                points.reach("load.verified")
                self.become_ready(reading)
                return
            if reading is not None and self.is_of_another_process(reading):
                self.engine_gone(ANOTHER_PROCESS, reading)
                return
            if reading is not None and reading.health.models is not None:
                doubted_ms = doubted_ms or monotonic_ms()
            is_over = self.is_past_deadline()
            if doubted_ms is not None and (
                is_over or monotonic_ms() - doubted_ms >= VERIFY_S * 1000
            ):
                self.settle_failed(self.doubt(serving))
                return
            if is_over:
                self.time_out()
                return
            self.pause()

    def is_of_another_process(self, reading: Reading) -> bool:
        """Whether the engine is certainly not the one any more that this load was sent to."""
        lane = self.lane()
        return lane is not None and is_another(lane, reading)

    def doubt(self, serving: bool | None) -> EngineError:
        """Say what is wrong with a load that the engine calls a success."""
        if serving is None:
            return EngineBadAnswer(
                f"engine {self.engine.name} says that {self.name} is loaded and lists no such file"
            )
        return BackendNotAnswering(
            f"engine {self.engine.name} lists {self.name}, whose backend does not answer; "
            "the engine's log has more"
        )

    def watch(self) -> None:
        """See a load through that was sent before: nothing is sent again (ADR-0007)."""
        while True:
            lane = self.lane()
            if lane is None:
                self.engine_gone("its request was settled while nobody watched")
                return
            try:
                reading = read_health(self.ctx, self.engine, QUICK_S)
            except EngineError as error:
                if isinstance(error, EngineUnreachable) and error.is_gone:
                    self.engine_gone("the engine is gone")
                    return
            else:
                if is_another(lane, reading):
                    self.engine_gone(ANOTHER_PROCESS, reading)
                    return
                if self.has_arrived(reading):
                    self.become_ready(reading)
                    return
            if self.is_past_deadline():
                self.time_out()
                return
            self.pause()
