"""hal0 and its reference in step: after every operation, answers and rows are the same."""

from typing import Any, Final

from tests.machine.invariants import Invariants
from tests.machine.real.home import MODELS, SLOTS, BodyKey
from tests.machine.real.world import Real
from tests.machine.reference.rows import SETTLE_MS, Key, Slot
from tests.machine.reference.world import Reference
from tests.machine.rest import not_at_rest
from tests.machine.rows_of import of_real, of_reference

MANY: Final = 600
LOSSES: Final = (
    "evicted_by_engine",
    "unloaded_elsewhere",
    "engine_restarted",
    "host_rebooted",
    "idle_unload",
    "engine_lost",
)


def _difference(ours: Any, expected: Any) -> str:
    if (
        not isinstance(expected, dict)
        or not isinstance(ours, dict)
        or ours.keys() != expected.keys()
    ):
        return f"{ours}, not {expected}"
    parts = [key for key in expected if ours[key] != expected[key]]
    return "; ".join(f"{key}: {_difference(ours[key], expected[key])}" for key in parts)


class Play:
    """Does each operation twice, and compares."""

    def __init__(self, real: Real, max_models: int | None = None) -> None:
        self.real = real
        self.script: list[str] = []
        self.is_over = False
        """Something differed: what comes after says nothing."""
        self.reached: set[tuple[str, str]] = set()
        """Each state of slot `one` with the operations that met it."""
        self.workers = ["a1", "b1"]
        self.reference = Reference(self.workers, max_models)
        self.reference.now = real.clock.ms
        for name in SLOTS:
            self.reference.create(name)
        for model in MODELS:
            self.reference.put_file(model, "good")
        self._wanted: dict[Slot, tuple[Key | None, int]] = {}
        """What was accepted last, and the tail of the queue then; as long as nothing went wrong."""
        real.reset(self.workers, max_models)
        self._compare()
        self._invariants = Invariants(real.auditor.execute)

    # -- one operation ------------------------------------------------------------------------

    def do(self, verb: str, *given: Any) -> Any:
        """Do an operation of the reference and of hal0; return what both answer."""
        self.script.append(f"{verb}{given}")
        self.real.clock.tick()  # no two acts happen at one instant
        self.reference.tick(1)
        told = {slot: len(slot.history) for slot in self.reference.slots}
        failed = self._failures()
        tail = self.reference.tail()
        self.reached.add((self.state(SLOTS[0]), verb))
        self.is_over = True
        expected = getattr(self.reference, verb)(*given)
        if verb == "go_on":
            self.real.go_on(*given, to_its_end=expected == "ended")
        else:
            answered = getattr(self.real, verb)(*given)
            assert answered == expected, self._told(f"hal0 answered {answered}, not {expected}")
        self._compare()
        broken = self._invariants.violations(verb, self._asked(verb, given, expected))
        broken += self.real.untrue_waits()
        assert not broken, self._told("; ".join(broken))
        self.is_over = False
        self._note_wish(verb, given, expected, tail)
        self._note_trouble(told, failed)
        return expected

    def _asked(self, verb: str, given: tuple[Any, ...], said: Any) -> list[int]:
        """The loads that an operator's request is about, also one that is there already."""
        if verb == "load" and said.how == "already":
            slot = self.reference.slot(given[0])
            jobs = self.reference.jobs.values()
            return [
                job.id for job in jobs if slot and (job.slot, job.chain.key) == (slot, slot.wants)
            ]
        return list(said.jobs) if verb in ("load", "retry", "retry_all") else []

    def _compare(self) -> None:
        ours, theirs = of_reference(self.reference), of_real(self.real)
        for what, expected in ours.items():
            assert theirs[what] == expected, self._told(
                f"hal0 has other {what}: {_difference(theirs[what], expected)}"
            )

    def _told(self, what: str) -> str:
        return f"{what}, after\n    " + "\n    ".join(self.script)

    def now(self, slot: str) -> dict[str, Any]:
        """What the database says of a slot."""
        said: dict[str, Any] = of_real(self.real)["slots"][slot]
        return said

    def sql(self, query: str, *given: object) -> list[tuple[Any, ...]]:
        """Read hal0's database in plain `sqlite3`."""
        return [tuple(row) for row in self.real.auditor.execute(query, given)]

    def loads(self, slot: str) -> list[tuple[Any, ...]]:
        """State, outcome and number of attempts of a slot's loads, oldest first."""
        return self.sql(
            "SELECT jobs.state, outcome, attempt FROM jobs JOIN slots ON slots.id = slot_id "
            "WHERE kind = 'load' AND slots.name = ? ORDER BY jobs.id",
            slot,
        )

    def served(self, slot: str) -> None:
        """Let every request of a slot end."""
        asked = self.reference.asked
        for number in reversed(range(len(asked))):
            if asked[number].slot.name == slot:
                self.do("leave", number)

    # -- what was wanted last -------------------------------------------------------------------

    def _note_wish(self, verb: str, given: tuple[Any, ...], said: Any, tail: int) -> None:
        if verb in ("load", "unload") and said.status in (200, 202):
            slot = self.reference.slot(given[0])
            assert slot
            if self._is_known_wrongly(slot):  # answered from the rows, which a scan will put right
                self._wanted.pop(slot, None)
                return
            if said.how == "deduplicated":
                tail = self.reference.jobs[said.jobs[0]].chain.position
            self._wanted[slot] = (slot.wants if verb == "load" else None), tail
        elif verb == "wake" and said.status == 202 and said.how != "joined":
            self._wanted.pop(self.reference.jobs[said.jobs[0]].slot, None)
        elif verb in ("retry", "cancel") and said.status < 300:
            job = self.reference.jobs[given[0]]
            self._wanted.pop(job.slot, None)
            if verb == "retry" and job.chain.goal == "load":
                self._wanted[job.slot] = job.chain.key, tail
        elif verb in ("delete", "assign", "retry_all", "reboot", "engine_loads"):
            self._wanted.clear()

    def _is_known_wrongly(self, slot: Slot) -> bool:
        """Whether the engine has something else than the rows say."""
        loaded, held = self.reference.engine.loaded, slot.held
        return slot.listed(loaded) != slot.told or (
            held is not None and loaded.get(held.model) != held.ctx_size
        )

    def _failures(self) -> set[int]:
        return {job.id for job in self.reference.jobs.values() if job.state == "failed"}

    def _note_trouble(self, told: dict[Slot, int], failed: set[int]) -> None:
        for job_id in self._failures() - failed:
            job = self.reference.jobs[job_id]
            if job.slot in self._wanted and job.chain.position >= self._wanted[job.slot][1]:
                del self._wanted[job.slot]
        for slot, length in told.items():
            if any(line.split()[1] in LOSSES for line in slot.history[length:]):
                self._wanted.pop(slot, None)

    # -- what can be done now -------------------------------------------------------------------

    def state(self, name: str) -> str:
        """The state of a slot, or `deleted`."""
        slot = self.reference.slot(name)
        return slot.state if slot else "deleted"

    @property
    def movable(self) -> list[BodyKey]:
        """The bodies that can go on; one whose look would say nothing looks again in vain."""
        reference = self.reference
        return [
            key
            for key, body in sorted(reference.bodies.items())
            if body.at != "sent" and not reference.looks_in_vain(body)
        ]

    @property
    def answerable(self) -> list[int]:
        """The requests that the engine may answer: those of one model in their order."""
        models = [request.key.model for request in self.reference.engine.requests]
        return [number for number, model in enumerate(models) if model not in models[:number]]

    def may_pass(self, ms: int) -> bool:
        """Whether the engine is honest though so much time passes: it answers in its time."""
        until = self.reference.now + ms
        return all(one.since + SETTLE_MS > until for one in self.reference.engine.requests)

    def work(self) -> bool:
        """Do one thing that workers do by themselves; tell whether there was one."""
        if self.movable:
            self.do("go_on", *self.movable[0])
            return True
        return any(self.do("claim", worker) for worker in self.workers[:1])

    def bring(self, slot: str, place: str) -> BodyKey:
        """Let a slot's jobs go on until a body of its stands there; return which."""
        for _ in range(MANY):
            for key, body in self.reference.bodies.items():
                if body.job.slot.name == slot and self.reference.holds_claim(body):
                    if body.at == place:
                        return key
                    self.do("go_on", *key)
                    break
            else:
                assert self.do("claim", self.workers[0]), self._told(f"{slot} is not at {place}")
        raise AssertionError(self._told(f"{slot} never comes to {place}"))

    def work_out(self) -> None:
        """Let workers work until they wait for the engine, or have nothing to do."""
        while self.work():
            pass

    def replace(self, number: int, verb: str) -> None:
        """Let a worker die (`kill`) or be told to stop (`stop`); another takes its place."""
        old = self.workers[number]
        self.workers[number] = f"{old[0]}{int(old[1:]) + 1}"
        self.do(verb, old, self.workers[number])

    def reboot(self) -> None:
        """Let the host go down and come up again."""
        self.workers = [f"{old[0]}{int(old[1:]) + 1}" for old in self.workers]
        self.do("reboot", *self.workers)

    # -- to the end ---------------------------------------------------------------------------

    def drain(self) -> None:
        """Let everything come to its end, fairly and without another fault."""
        self._users_leave()
        for _ in range(MANY):
            if not (self._engine_works() or self.work() or self._others_look()):
                break
        else:
            raise AssertionError(self._told("it never ends"))
        wrong = not_at_rest(self.reference, self._wanted)
        assert not wrong, self._told(wrong)

    def _users_leave(self) -> None:
        for model in sorted(self.reference.engine.busy):
            self.do("used_past_us", model, "ends")
        while self.reference.asked:
            self.do("leave", 0)

    def _engine_works(self) -> bool:
        engine = self.reference.engine
        if not engine.is_up:
            self.do("engine_starts")
        elif engine.requests:
            self.do("answer", 0, "ok")
        else:
            return False
        return True

    def _others_look(self) -> bool:
        """Rescue, settling, a scan; then time. Tell whether that changed anything."""
        before = of_reference(self.reference)
        for worker in self.workers:
            self.do("rescue", worker)
            self.do("settle", worker)
        self.do("scan", self.workers[0])
        if of_reference(self.reference) != before:
            return True
        is_waiting = self.reference.lane is not None or any(map(self._is_waiting, self.slots))
        if is_waiting:
            self.do("pass_time", 20_000)
        return is_waiting

    @property
    def slots(self) -> list[Slot]:
        """The slots, as the reference has them."""
        return self.reference.slots

    def _is_waiting(self, slot: Slot) -> bool:
        reference = self.reference
        is_to_come_back = slot.note is not None and not reference.is_parked(slot)
        return bool(reference.open_chains(slot)) or slot.mark is not None or is_to_come_back
