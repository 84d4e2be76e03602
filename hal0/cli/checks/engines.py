"""Does every engine answer, and is what it has what the slots say."""

import asyncio
import ipaddress
from collections.abc import Iterator
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import psutil

from hal0.cli.checks.asking import Asked, ask
from hal0.cli.checks.database import reading
from hal0.cli.checks.lemonade import lemonade
from hal0.cli.findings import Finding
from hal0.jobs.reading import Reading
from hal0.jobs.reconcile import may_adopt
from hal0.jobs.survey import Survey, survey
from hal0.registry.roster import EngineRow, all_engines
from hal0.settings import Settings
from hal0.slots.queries import slots_of_engine
from hal0.states import Desired, SlotState

HANDFUL: Final = 8
HALF_CLOSED: Final = frozenset({"CLOSE_WAIT", "FIN_WAIT1", "FIN_WAIT2"})


def engines(settings: Settings) -> Iterator[Finding]:
    """Ask every engine whether it lives, what it has and how it is set up."""
    with reading(settings) as tx:
        known = [(row, slots_of_engine(tx, row.id)) for row in all_engines(tx)]
    for row, slots in known:
        answer = asyncio.run(ask(row, slots))
        if isinstance(answer, Finding):
            yield answer
        else:
            yield from _lists(settings, answer)
            yield from _process(answer)
            yield from _holds(answer)
            if answer.is_lemonade:
                yield from lemonade(settings, answer)
        yield from sockets(row)


def _lists(settings: Settings, asked: Asked) -> Iterator[Finding]:
    """Compare what it has loaded with what the slots say."""
    url, models = asked.row.url, asked.health.models
    if models is None:
        yield Finding(
            asked.name,
            "wrong",
            f"answers at {url} without a list of its models",
            "nothing is concluded from that, so nothing is mended either: see to the server",
        )
        return
    with reading(settings) as tx:
        seen = survey(tx, Reading(asked.row, asked.health, {}))
    missing = [
        pair.slot.name for pair in seen.pairs if pair.slot.is_dispatchable and not pair.is_listed
    ]
    count = "1 model" if len(models) == 1 else f"{len(models)} models"
    if missing:
        detail = f"has {count}, and not those of {', '.join(missing)}"
        yield Finding(asked.name, "note", detail, "the next scan mends it; see `hal0 audit`")
    else:
        yield Finding(asked.name, "ok", f"answers at {url} with {count}")
    yield from _leftovers(asked, seen)
    yield from _untaken(settings, asked, seen)
    yield from _strangers(asked, seen)


def _leftovers(asked: Asked, seen: Survey) -> Iterator[Finding]:
    """Look for models whose slots are in error: no machine does more about them."""
    left = [
        (pair.slot.name, pair.entry.name)
        for pair in seen.pairs
        if pair.slot.state is SlotState.ERROR and pair.entry is not None
    ]
    if left:
        slot, _ = left[0]
        shown = ", ".join(f"{model} ({slot})" for slot, model in left)
        yield Finding(
            f"{asked.name}: leftovers",
            "note",
            f"has loaded models of slots in error: {shown}",
            f"`hal0 slot load {slot}` takes it over, `hal0 slot unload {slot}` unloads it",
        )


def _untaken(settings: Settings, asked: Asked, seen: Survey) -> Iterator[Finding]:
    """Look for models of empty slots that no machine adopts, as it would any other."""
    with reading(settings) as tx:
        left = [
            (pair.slot.name, pair.entry.name)
            for pair in seen.pairs
            if pair.slot.state is SlotState.OFFLINE
            and pair.entry is not None
            and not may_adopt(tx, pair.slot, seen.reading)
        ]
    if left:
        shown = ", ".join(f"{model} ({slot})" for slot, model in left)
        yield Finding(
            f"{asked.name}: untaken",
            "note",
            f"has models that no machine takes over, for a load of them was too slow: {shown}",
            f"`hal0 slot load {left[0][0]}` takes it over",
        )


def _process(asked: Asked) -> Iterator[Finding]:
    """Look whether hal0's workers can tell its process from another one: by pid, start, user."""
    was_seen = asked.row.healthy_boot_id is not None
    if (asked.row.process if was_seen else asked.health.process) is None:
        yield Finding(
            f"{asked.name}: process",
            "note",
            "its process cannot be told, as it is on another machine or of another user: a restart "
            "of it looks as if somebody had unloaded its models",
            "run it as hal0's user, or load after each restart of it what you want loaded",
        )


def _strangers(asked: Asked, seen: Survey) -> Iterator[Finding]:
    if seen.strangers:
        yield Finding(
            f"{asked.name}: strangers",
            "note",
            f"has loaded what belongs to no slot: {', '.join(seen.strangers)}",
            "hal0 leaves it alone; if it takes the room of slots, unload it where it was loaded",
        )


def _holds(asked: Asked) -> Iterator[Finding]:
    """Look whether it holds all that is meant to be loaded."""
    most = asked.health.max_models
    meant = [slot.name for slot in asked.slots if slot.desired is Desired.LOADED]
    if most is not None and most < len(meant):
        yield Finding(
            f"{asked.name}: room",
            "wrong",
            f"holds {most} at once, and {len(meant)} slots are meant to be loaded: "
            f"{', '.join(meant)}. Each load drops another's model",
            "set max_loaded_models of Lemonade to -1 (--models-max 0 of llama.cpp), or unload some",
        )


def sockets(row: EngineRow) -> Iterator[Finding]:
    """Look for connections that one side has closed and the other has not, on this machine."""
    address = urlsplit(row.url)
    if address.port is None or not _is_this_machine(address.hostname or ""):
        return
    half_closed = _half_closed(address.port)
    if half_closed > HANDFUL:
        yield Finding(
            f"engine {row.name}: sockets",
            "note",
            f"{half_closed} connections to port {address.port} are closed on one side alone",
            "the side that does not close hangs: if that is the engine, start it again",
        )


def _half_closed(port: int) -> int:
    """Count connections, each of which this machine shows twice: once for each end."""
    found = set()
    with suppress(psutil.Error, OSError):  # a box that shows nobody its sockets
        for one in psutil.net_connections("tcp"):
            if one.status in HALF_CLOSED and one.laddr and one.raddr:
                found.add(frozenset({one.laddr.port, one.raddr.port}))
    return sum(port in ends for ends in found)


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
