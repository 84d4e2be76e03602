"""Every operation in every state of a slot: hal0 does what its reference does, and comes to rest.

The states are the nine of `hal0.states`; the operations are all verbs that hal0 and its reference
have in common. Where a pair cannot be, a sentence says why, and a test sees that it is so.
"""

import inspect
from collections.abc import Callable
from itertools import product

import pytest

from hal0.states import SlotState
from tests.machine.arrivals import ARRIVALS, answer_last, to_serving, to_unloading
from tests.machine.play import Play
from tests.machine.real.world import Real
from tests.machine.reference.world import Reference

SLOT, MODEL = "one", "m-one"
Act = Callable[[Play], object]


class Impossible(Exception):  # noqa: N818  (it is expected of some pairs)
    """There is nothing that this operation could be done to."""


# -- what to do there -------------------------------------------------------------------------


def newest_job(play: Play) -> int:
    return max(play.reference.jobs, default=1)


def a_body(play: Play) -> tuple[int, int]:
    """A body that holds its claim and may be anywhere but about to post."""
    if not play.reference.bodies:
        play.do("validate", SLOT)
        play.do("claim", play.workers[0])
    return next(iter(play.reference.bodies))


def go_on(play: Play) -> None:
    if not play.movable and play.reference.bodies:  # it waits for the engine; another one watches
        play.replace(0, "kill")
        play.do("rescue", play.workers[1])
        play.do("claim", play.workers[1])
    play.do("go_on", *(play.movable or [a_body(play)])[0])


def fetch_fails(play: Play) -> None:
    state = play.state(SLOT)
    if not play.reference.bodies:
        play.do("file_becomes", MODEL, None)
        play.do("pull", SLOT)
        play.bring(SLOT, "fetch")
    key, body = next(iter(play.reference.bodies.items()))
    if (body.at, play.state(SLOT)) != ("fetch", state):
        raise Impossible
    play.do("fetch_fails", *key)


def answer(how: str) -> Act:
    return lambda play: play.do("answer", len(play.reference.engine.requests) - 1, how)


def past_the_deadline(play: Play) -> None:
    play.do("pass_time", 121_000)


def unload_pinned(play: Play) -> None:
    play.do("pin", SLOT, True)
    play.do("unload", SLOT)
    play.do("unload", SLOT, False, True)


def wake_always(play: Play) -> None:
    play.do("set_wake", SLOT, "always")
    play.do("wake", SLOT)
    play.do("unload", SLOT)
    play.do("wake", SLOT)


def wake_never(play: Play) -> None:
    play.do("set_wake", SLOT, "never")
    play.do("wake", SLOT)


def wake_while_it_is_away(play: Play) -> None:
    play.do("engine_dies")
    play.do("scan", play.workers[0])
    play.do("wake", SLOT)


def rescue(play: Play) -> None:
    play.replace(0, "kill")
    play.do("rescue", play.workers[1])


def clear(play: Play) -> None:
    play.do("kill_api", "north")
    play.do("rescue", play.workers[0])


def reconcile(play: Play) -> None:
    play.do("engine_loses", MODEL)
    play.do("read_health")
    play.do("write_reading")


def adopt(play: Play) -> None:
    play.do("engine_loads", MODEL, 512)
    play.do("read_health")
    play.do("write_reading")


def scan_till_unused_for_long(play: Play) -> None:
    for _ in range(5):
        play.do("scan", play.workers[0])
        if play.may_pass(85_000):
            play.do("pass_time", 85_000)


def scan_while_it_is_away(play: Play) -> None:
    play.do("scan", play.workers[0], "hung")
    if play.may_pass(61_000):
        play.do("pass_time", 61_000)
    play.do("scan", play.workers[1], "hung")


def scan_a_restarted_one(play: Play) -> None:
    engine_restarts(play)
    play.do("scan", play.workers[1])


def scan(how: str) -> Act:
    return lambda play: play.do("scan", play.workers[0], how)


def use(how: str) -> Act:
    return lambda play: play.do("used_past_us", MODEL, how)


def load_there(model: str, ctx_size: int) -> Act:
    return lambda play: play.do("engine_loads", model, ctx_size)


def engine_restarts(play: Play) -> None:
    play.do("engine_dies")
    play.do("engine_starts")


OPERATIONS: dict[str, Act] = {
    "create": lambda play: play.do("create", SLOT),
    "assign": lambda play: play.do("assign", SLOT, "m-spare"),
    "set_wake": lambda play: play.do("set_wake", SLOT, "never"),
    "wake": lambda play: play.do("wake", SLOT),
    "wake, whoever unloaded it": wake_always,
    "wake, of what requests may not load": wake_never,
    "wake, while its engine is away": wake_while_it_is_away,
    "pin": lambda play: play.do("pin", SLOT, True),
    "delete": lambda play: play.do("delete", SLOT, False),
    "delete, by force": lambda play: play.do("delete", SLOT, True),
    "load, as set up": lambda play: play.do("load", SLOT, 4096),
    "load, otherwise": lambda play: play.do("load", SLOT, 512),
    "unload": lambda play: play.do("unload", SLOT),
    "unload, by force": lambda play: play.do("unload", SLOT, True),
    "unload, though pinned": unload_pinned,
    "pull": lambda play: play.do("pull", SLOT),
    "validate": lambda play: play.do("validate", SLOT),
    "cancel": lambda play: play.do("cancel", newest_job(play)),
    "retry": lambda play: play.do("retry", newest_job(play)),
    "retry_all": lambda play: play.do("retry_all"),
    "machine_load": lambda play: play.do("machine_load", SLOT),
    "idle_unload": lambda play: play.do("idle_unload", SLOT),
    "admit": lambda play: play.do("admit", SLOT, "north"),
    "admit, by another process": lambda play: play.do("admit", SLOT, "south"),
    "forward": lambda play: play.do("forward", 0),
    "forward, the newest": lambda play: play.do("forward", len(play.reference.asked) - 1),
    "kill_api": lambda play: play.do("kill_api", "north"),
    "rescue, of a dead API's requests": clear,
    "leave": lambda play: play.do("leave", 0),
    "leave, the newest": lambda play: play.do("leave", len(play.reference.asked) - 1),
    "demote": lambda play: play.do("demote", SLOT),
    "claim": lambda play: play.do("claim", play.workers[1]),
    "go_on": go_on,
    "fetch_fails": fetch_fails,
    "answer, ok": answer("ok"),
    "answer, hollow": answer("hollow"),
    "answer, fail": answer("fail"),
    "answer, fail_evicting": answer("fail_evicting"),
    "drop": lambda play: play.do("drop", len(play.reference.engine.requests) - 1),
    "engine_dies": lambda play: play.do("engine_dies"),
    "engine_starts": engine_restarts,
    "engine_loads, as set up": load_there(MODEL, 4096),
    "engine_loads, otherwise": load_there(MODEL, 512),
    "engine_loads, a stranger": load_there("m-spare", 4096),
    "engine_loses": lambda play: play.do("engine_loses", MODEL),
    "backend_dies": lambda play: play.do("backend_dies", MODEL),
    "used_past_us, briefly": use("briefly"),
    "used_past_us, in a long request": use("begins"),
    "file_becomes, nothing": lambda play: play.do("file_becomes", MODEL, None),
    "file_becomes, bad": lambda play: play.do("file_becomes", MODEL, "bad"),
    "pass_time": past_the_deadline,
    "wall_steps": lambda play: play.do("wall_steps", -3600),
    "kill": lambda play: play.replace(0, "kill"),
    "stop": lambda play: play.replace(0, "stop"),
    "rescue": rescue,
    "take": lambda play: play.do("take", *a_body(play)),
    "miss_bodies": lambda play: play.do("miss_bodies", play.workers[0]),
    "settle": lambda play: play.do("settle", play.workers[0]),
    "read_health": lambda play: play.do("read_health"),
    "write_reading, a loss": reconcile,
    "write_reading, an adoption": adopt,
    "scan": scan("well"),
    "scan, no use told": scan("vague"),
    "scan, no list": scan("mute"),
    "scan, slow": scan("slow"),
    "scan, long unused": scan_till_unused_for_long,
    "scan, long away": scan_while_it_is_away,
    "scan, another process": scan_a_restarted_one,
    "reboot": lambda play: play.reboot(),
}
NEEDS_A_REQUEST = ("answer", "drop")
NEEDS_A_USER = ("forward", "leave")

OWN_JOB = "the job that owns this state runs or comes first, and it is no pull"
IMPOSSIBLE: dict[tuple[str, str], str] = {
    ("offline", "fetch_fails"): "a pull that has bytes to fetch shows pulling from its first step",
    ("error", "fetch_fails"): "a pull that has bytes to fetch shows pulling from its first step",
    ("starting", "fetch_fails"): OWN_JOB,
    ("warming", "fetch_fails"): OWN_JOB,
    ("unloading", "fetch_fails"): OWN_JOB,
}


def leave_a_request(play: Play) -> None:
    """Leave an unload at the engine that nobody waits for, of a slot that is offline by now."""
    to_unloading(play, SLOT)
    play.do("drop", 0)
    play.do("engine_loses", MODEL)
    play.work_out()


def leave_a_user(play: Play) -> None:
    """Leave a request of a slot that was emptied by force under it."""
    to_serving(play, SLOT)
    play.do("unload", SLOT, True)
    play.bring(SLOT, "sent")
    answer_last(play, "ok")


@pytest.mark.parametrize(("state", "operation"), list(product(ARRIVALS, OPERATIONS)))
def test_hal0_does_what_its_reference_does_whatever_the_state(
    real: Real, state: str, operation: str
) -> None:
    play = Play(real)
    verb = operation.partition(",")[0]
    if verb in NEEDS_A_REQUEST and state not in ("warming", "unloading"):
        leave_a_request(play)
    if verb in NEEDS_A_USER:
        leave_a_user(play)
    ARRIVALS[state](play, SLOT)
    assert play.state(SLOT) == state
    play.reached.clear()
    if (state, verb) in IMPOSSIBLE:
        with pytest.raises(Impossible):
            OPERATIONS[operation](play)
        return
    OPERATIONS[operation](play)
    assert (state, verb) in play.reached
    play.drain()


def test_the_matrix_has_every_state_and_every_operation() -> None:
    def verbs(of: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(of, inspect.isfunction) if name[0] != "_"}

    assert set(ARRIVALS) == {state.value for state in SlotState}
    assert {operation.partition(",")[0] for operation in OPERATIONS} == verbs(Real) & verbs(
        Reference
    )
