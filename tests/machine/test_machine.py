"""Any sequence of requests, workers' steps and faults: hal0 does what its reference does.

After every step, all rows and the answer are the reference's; at the end of each run everything
comes to its end, and what was accepted last holds where nothing failed. A run is the same every
time; `MACHINE_EXAMPLES=2000` looks further, with a new seed each time.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.machine.arrivals import ARRIVALS
from tests.machine.play import Play
from tests.machine.real.home import APIS, MODELS, SLOTS
from tests.machine.real.world import Real
from tests.machine.reference.rows import UNFINISHED
from tests.machine.reference.world import Reference

T = TypeVar("T")
EXAMPLES: Final = int(os.environ.get("MACHINE_EXAMPLES", "0"))
AT_REST: Final = ("offline", "ready", "idle", "serving", "error")
"""States in which another slot can come to any state."""
RARE: Final = (
    *("pull", "validate", "create", "assign", "pin", "set_wake", "delete"),
    *("retry_all", "file_becomes", "wall_steps", "reboot"),
)
ELSEWHERE: Final = (
    *("engine_loads", "engine_loads", "engine_loses", "backend_dies"),
    *("begins", "ends", "briefly"),
)
USABLE: Final = ("ready", "serving", "idle")
SLOT = st.sampled_from(SLOTS)
WORKER = st.integers(0, 1)
WHICH = st.integers(0, 3)
"""One of several, counted around."""


def where(is_so: Callable[[Reference], object]) -> Callable[[Any], Any]:
    """Leave a rule out where it would find nothing to do: those pairs are the matrix's."""
    return precondition(lambda machine: bool(is_so(machine.play.reference)))


def cancellable(reference: Reference) -> list[int]:
    return [job.id for job in reference.jobs.values() if job.state in UNFINISHED]


def failed(reference: Reference) -> list[int]:
    return [job.id for job in reference.jobs.values() if job.state == "failed"]


def takeable(reference: Reference) -> list[tuple[int, int]]:
    """Not where a request is about to be posted: its owner is killed first."""
    return [
        key
        for key, body in sorted(reference.bodies.items())
        if body.at != "post" and reference.holds_claim(body)
    ]


class Machine(RuleBasedStateMachine):
    """One run."""

    def __init__(self, real: Real) -> None:
        super().__init__()
        self.play = Play(real)

    def teardown(self) -> None:
        if not self.play.is_over:
            self.play.drain()

    def _do(self, verb: str, *given: object) -> None:
        self.play.do(verb, *given)

    def _pick(self, among: Sequence[T], which: int) -> T:
        return among[which % len(among)]

    @initialize(
        is_small=st.integers(0, 3).map(lambda number: number == 3),
        one=st.sampled_from(sorted(ARRIVALS)),
        two=st.sampled_from(AT_REST),
    )
    def begin(self, is_small: bool, one: str, two: str) -> None:
        if is_small:
            self.play = Play(self.play.real, max_models=1)
        ARRIVALS[two](self.play, "two")
        ARRIVALS[one](self.play, "one")

    # -- orders -------------------------------------------------------------------------------

    @rule(slot=SLOT, ctx_size=st.sampled_from([4096, 4096, 512]), and_work=st.booleans())
    def load(self, slot: str, ctx_size: int, and_work: bool) -> None:
        self._do("load", slot, ctx_size)
        if and_work:
            self.play.work_out()

    @rule(slot=SLOT, force=st.booleans(), even_if_pinned=st.booleans())
    def unload(self, slot: str, force: bool, even_if_pinned: bool) -> None:
        self._do("unload", slot, force, even_if_pinned)

    @where(lambda reference: cancellable(reference) or failed(reference))
    @rule(which=WHICH)
    def change_a_job(self, which: int) -> None:
        jobs = cancellable(self.play.reference) + failed(self.play.reference)
        job_id = self._pick(jobs[::-1], which)
        self._do("retry" if job_id in failed(self.play.reference) else "cancel", job_id)

    @rule(slot=SLOT, verb=st.sampled_from(["machine_load", "idle_unload"]))
    def machines_want(self, slot: str, verb: str) -> None:
        self._do(verb, slot)

    @rule(slot=SLOT, and_work=st.booleans())
    def wake(self, slot: str, and_work: bool) -> None:
        """A request comes for a slot, whatever it holds."""
        self._do("wake", slot)
        if and_work:
            self.play.work_out()

    @where(lambda reference: reference.asked)
    @rule(which=WHICH, verb=st.sampled_from(["forward", "leave", "leave", "kill_api"]))
    def request_goes_on(self, which: int, verb: str) -> None:
        if verb == "kill_api":
            self._do(verb, APIS[which % 2])
        else:
            self._do(verb, which % len(self.play.reference.asked))

    @rule(slot=SLOT, verb=st.sampled_from(RARE), is_so=st.booleans())
    def ask_besides(self, slot: str, verb: str, is_so: bool) -> None:
        given: dict[str, tuple[object, ...]] = {
            "assign": (slot, "m-spare" if is_so else f"m-{slot}"),
            "pin": (slot, is_so),
            "set_wake": (slot, "always" if is_so else "auto"),
            "delete": (slot, is_so),
            "retry_all": (),
            "file_becomes": (f"m-{slot}", "bad" if is_so else None),
            "wall_steps": (3600 if is_so else -3600,),
        }
        if verb == "reboot":
            self.play.reboot()
        else:
            self._do(verb, *given.get(verb, (slot,)))

    @where(lambda reference: any(slot.state in USABLE for slot in reference.slots))
    @rule(which=WHICH)
    def use(self, which: int) -> None:
        usable = [slot for slot in self.play.reference.slots if slot.state in USABLE]
        slot = self._pick(usable, which)
        if slot.state == "ready" and not which % 2:
            self._do("demote", slot.name)
        else:
            self._do("admit", slot.name, APIS[which // 2])

    # -- workers ------------------------------------------------------------------------------

    @rule(steps=st.sampled_from([1, 2, 3, 5, 99]))
    def work(self, steps: int) -> None:
        for _ in range(steps):
            if not self.play.work():
                return

    @rule(worker=WORKER, which=WHICH)
    def claim_or_go_on(self, worker: int, which: int) -> None:
        if self.play.movable and which:
            self._do("go_on", *self._pick(self.play.movable, which))
        else:
            self._do("claim", self.play.workers[worker])

    @rule(worker=WORKER, verb=st.sampled_from(["kill", "kill", "stop"]), is_rescued=st.booleans())
    def worker_ends(self, worker: int, verb: str, is_rescued: bool) -> None:
        self.play.replace(worker, verb)
        if is_rescued:
            self._do("rescue", self.play.workers[worker])

    @where(takeable)
    @rule(which=WHICH)
    def take(self, which: int) -> None:
        """A claim is lost to another hand; a body that never began is missed, a fetch fails."""
        key = self._pick(takeable(self.play.reference), which)
        body = self.play.reference.bodies[key]
        if body.at == "claimed" and self.play.may_pass(6_000):
            self._do("miss_bodies", body.worker)
        elif body.at == "fetch":
            self._do("fetch_fails", *key)
        else:
            self._do("take", *key)

    # -- the engine, and time -------------------------------------------------------------------

    @where(lambda reference: reference.engine.requests)
    @rule(which=WHICH, how=st.sampled_from(["ok", "ok", "hollow", "fail", "fail_evicting", "late"]))
    def answer(self, which: int, how: str) -> None:
        if how == "late" and self.play.may_pass(121_000):
            self._do("pass_time", 121_000)
        self._do("answer", self._pick(self.play.answerable, which), how.replace("late", "ok"))

    @rule(which=WHICH, verb=st.sampled_from(["drop", "die", "lose"]))
    def trouble(self, which: int, verb: str) -> None:
        engine = self.play.reference.engine
        if verb == "lose" and engine.loaded:
            self._do("engine_loses", self._pick(sorted(engine.loaded), which))
        elif verb == "drop" and engine.requests:
            self._do("drop", which % len(engine.requests))
        else:
            self._do("engine_dies" if engine.is_up else "engine_starts")

    @rule(model=st.sampled_from(MODELS), verb=st.sampled_from(ELSEWHERE), is_so=st.booleans())
    def elsewhere(self, model: str, verb: str, is_so: bool) -> None:
        """Another client of the engine does something, or a backend dies."""
        if verb == "engine_loads":
            self._do(verb, model, 4096 if is_so else 512)
        elif verb in ("begins", "ends", "briefly"):
            self._do("used_past_us", model, verb)
        else:
            self._do(verb, model)

    @rule(ms=st.sampled_from([31_000, 61_000, 121_000, 301_000, 601_000]))
    def pass_time(self, ms: int) -> None:
        if self.play.may_pass(ms):
            self._do("pass_time", ms)

    @where(lambda reference: reference.lane or any(slot.mark for slot in reference.slots))
    @rule(worker=WORKER)
    def settle(self, worker: int) -> None:
        self._do("settle", self.play.workers[worker])

    @rule(worker=WORKER, how=st.sampled_from(["well", "well", "vague", "mute", "slow", "hung"]))
    def scan(self, worker: int, how: str) -> None:
        self._do("scan", self.play.workers[worker], how)

    @rule(worker=WORKER, times=st.integers(2, 6), how=st.sampled_from(["well", "well", "hung"]))
    def scan_for_a_while(self, worker: int, times: int, how: str) -> None:
        """Until nobody has used what is loaded, or has been there, for long."""
        for _ in range(times):
            self._do("scan", self.play.workers[worker], how)
            if self.play.may_pass(85_000):
                self._do("pass_time", 85_000)

    @rule()
    def reconcile(self) -> None:
        self._do("write_reading" if self.play.reference.reading else "read_health")


@pytest.mark.timeout(900)  # it counts the time that other tests take from it too
def test_whatever_happens_hal0_does_what_its_reference_does(real: Real) -> None:
    run_state_machine_as_test(
        lambda: Machine(real),  # type: ignore[arg-type]  # any factory will do, its docstring says
        settings=settings(
            max_examples=EXAMPLES or 30,
            stateful_step_count=40,
            deadline=None,
            derandomize=not EXAMPLES,
            suppress_health_check=list(HealthCheck),
        ),
    )
