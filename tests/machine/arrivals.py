"""How a slot comes to each of the nine states, and to where its job is to be met."""

from collections.abc import Callable

from tests.machine.play import Play
from tests.machine.real.home import BodyKey

Arrive = Callable[[Play, str], object]


def to_pulling(play: Play, slot: str) -> BodyKey:
    play.do("file_becomes", f"m-{slot}", None)
    play.do("load", slot, 4096)
    return play.bring(slot, "fetch")


def to_starting(play: Play, slot: str) -> BodyKey:
    play.do("load", slot, 4096)
    return play.bring(slot, "resolve")


def to_warming(play: Play, slot: str) -> BodyKey:
    play.do("load", slot, 4096)
    return play.bring(slot, "sent")


def to_ready(play: Play, slot: str) -> None:
    to_warming(play, slot)
    answer_last(play, "ok")


def to_serving(play: Play, slot: str) -> None:
    to_ready(play, slot)
    play.do("admit", slot, "north")


def to_idle(play: Play, slot: str) -> None:
    to_ready(play, slot)
    play.do("demote", slot)


def to_unloading(play: Play, slot: str) -> BodyKey:
    to_ready(play, slot)
    play.do("unload", slot)
    return play.bring(slot, "sent")


def to_error(play: Play, slot: str) -> None:
    to_warming(play, slot)
    answer_last(play, "fail")


def answer_last(play: Play, how: str) -> None:
    """Answer the request that the engine got last."""
    play.do("answer", len(play.reference.engine.requests) - 1, how)


ARRIVALS: dict[str, Arrive] = {
    "offline": lambda play, slot: None,
    "pulling": to_pulling,
    "starting": to_starting,
    "warming": to_warming,
    "ready": to_ready,
    "serving": to_serving,
    "idle": to_idle,
    "unloading": to_unloading,
    "error": to_error,
}
