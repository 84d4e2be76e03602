"""In which words an operator reads what a machine has; what nobody knows is said to be unknown."""

from collections.abc import Iterator, Mapping
from typing import Any

from hal0.page.words import gib

UNKNOWN = "unknown"


def lines_of(probe: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Return what a probe found, as `GET /api/v1/probe` tells it: names and what is there."""
    cpu, memory, disk = probe["cpu"], probe["memory"], probe["disk"]
    yield "Processor", cpu["model"] or UNKNOWN
    counts = [f"{cpu[name] or '?'} {name}" for name in ("cores", "threads")]
    yield "", ", ".join([*counts, *cpu["flags"]])
    yield "Memory", f"{sized(memory['available_bytes'])} of {sized(memory['total_bytes'])} free"
    for title, listed in (("GPU", probe["gpus"]), ("NPU", probe["npus"])):
        yield from ((title, _accelerator(one)) for one in listed)
        if not listed:
            yield title, "none seen"
    room = f"room for {sized(disk['room_bytes'])} of models"
    yield "Disk", f"{room}, {sized(disk['reserve_bytes'])} more stay free; {disk['path']}"


def sized(size_bytes: int | None) -> str:
    """Return a size that may be unknown."""
    return UNKNOWN if size_bytes is None else gib(size_bytes)


def _accelerator(one: Mapping[str, Any]) -> str:
    name = one["model"] or " ".join(filter(None, (one["vendor"], one["device"]))) or UNKNOWN
    driver = [f"driver {one['driver']}"] if one["driver"] else []
    own = [f"{gib(one['vram_bytes'])} of its own"] if one["vram_bytes"] else []
    shared = [f"{gib(one['gtt_bytes'])} of main memory"] if one["gtt_bytes"] else []
    return ", ".join([name, *driver, *own, *shared])
