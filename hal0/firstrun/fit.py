"""Whether a model fits this machine: its disk and its main memory, as they are now.

    disk     there is room for the file beside what pulls leave free (HAL0_DISK_RESERVE_BYTES); one
             of this machine that can be linked into the models folder needs none
    memory   what was measured, else estimated from the file's size: a quarter more than the file,
             and 512 MiB for the context of 4096 tokens and the process

The memory of GPUs is left out: what of a model lies there is the engine's to say, and a model that
fits into main memory runs anyway. What nobody knows speaks against no model.
"""

from typing import Annotated, Final

from pydantic import Field
from typing_extensions import TypedDict

FIXED_BYTES: Final = 512 * 2**20


class Need(TypedDict, closed=True):
    """How much of something there must be, and is."""

    needed_bytes: int | None
    available_bytes: int | None


class Fit(TypedDict, closed=True):
    """Whether a model fits."""

    fits: bool
    why: str
    disk: Need
    memory: Need
    measured: Annotated[bool, Field(description="the memory; else it is estimated by the size")]


def fit(disk: Need, memory: Need, *, measured: bool) -> Fit:
    """Judge whether a model fits."""
    needs = {"disk": disk, "memory": memory}
    short = [
        f"{_gib(need['needed_bytes'])} of {what} needed, {_gib(need['available_bytes'])} left"
        for what, need in needs.items()
        if _is_short(need)
    ]
    unknown = [what for what, need in needs.items() if None in need.values()]
    doubt = [f"not known of {' and '.join(unknown)}"] if unknown else []
    return {
        "fits": not short,
        "why": "; ".join([*(short or ["it fits"]), *doubt]),
        "disk": disk,
        "memory": memory,
        "measured": measured,
    }


def estimated_memory(size_bytes: int | None) -> int | None:
    """Return how much memory a model of this size takes when loaded, rather too much."""
    return None if size_bytes is None else size_bytes + size_bytes // 4 + FIXED_BYTES


def _is_short(need: Need) -> bool:
    needed, available = need["needed_bytes"], need["available_bytes"]
    return needed is not None and available is not None and needed > available


def _gib(count: int | None) -> str:
    return "?" if count is None else f"{count / 2**30:.2f} GiB"
