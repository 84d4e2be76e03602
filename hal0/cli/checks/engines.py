"""Does every engine answer, and is it set up so that hal0 can rely on it."""

import asyncio
import ipaddress
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import psutil

from hal0.cli.checks.database import reading
from hal0.cli.findings import Finding
from hal0.engines.base import Engine, EngineConfig, EngineHealth
from hal0.engines.connect import connect, read_key
from hal0.errors import (
    EngineError,
    EngineTimeout,
    EngineUnauthorized,
    EngineUnreachable,
    Hal0Error,
)
from hal0.jobs.reading import Reading
from hal0.jobs.survey import Survey, survey
from hal0.registry.roster import EngineRow, all_engines
from hal0.settings import Settings
from hal0.slots.queries import Slot, slots_of_engine
from hal0.slots.times import times_of
from hal0.states import Desired, SlotState

ENGINE_S: Final = 5.0
KNOWN_LEMONADE: Final = (11, 0)
"""What the adapter was written against; the wire of older versions was never seen."""
HANDFUL: Final = 8
HALF_CLOSED: Final = frozenset({"CLOSE_WAIT", "FIN_WAIT1", "FIN_WAIT2"})


@dataclass(frozen=True, slots=True)
class _Asked:
    """An engine that answered, what it says, and the slots that are its."""

    row: EngineRow
    slots: Sequence[Slot]
    health: EngineHealth
    config: EngineConfig | None

    @property
    def name(self) -> str:
        return f"engine {self.row.name}"

    @property
    def is_lemonade(self) -> bool:
        """Whether it is Lemonade's own server, not the embedded engine, which speaks as it does."""
        return self.row.kind == "lemonade"


def engines(settings: Settings) -> Iterator[Finding]:
    """Ask every engine whether it lives, what it has and how it is set up."""
    with reading(settings) as tx:
        known = [(row, slots_of_engine(tx, row.id)) for row in all_engines(tx)]
    for row, slots in known:
        answer = asyncio.run(_ask(row, slots))
        if isinstance(answer, Finding):
            yield answer
        else:
            yield from _lists(settings, answer)
            yield from _process(answer)
            yield from _holds(answer)
            if answer.is_lemonade:
                yield _version(answer)
                yield from _configured(settings, answer)
        yield from sockets(row)


async def _ask(row: EngineRow, slots: Sequence[Slot]) -> _Asked | Finding:
    name = f"engine {row.name}"
    try:
        engine = connect(row.kind, row.url, row.key_path)
        try:
            async with asyncio.timeout(ENGINE_S):
                return _Asked(row, slots, await engine.health(), await _config(engine))
        finally:
            await engine.close()
    except (EngineTimeout, TimeoutError):
        detail = f"does not answer at {row.url} within {ENGINE_S:g} s"
        return Finding(name, "unknown", detail, "it may be busy; ask again")
    except EngineUnauthorized as exc:
        return Finding(name, "wrong", *_about_its_key(row, exc))
    except EngineUnreachable as exc:
        return Finding(name, "wrong", exc.detail, f"start it at {row.url}, or `hal0 up`")
    except EngineError as exc:
        to_do = f"see what listens at {row.url}; is it an engine of the kind {row.kind}?"
        return Finding(name, "wrong", exc.detail, to_do)
    except Hal0Error as exc:
        return Finding(name, "wrong", exc.detail)


async def _config(engine: Engine) -> EngineConfig | None:
    try:
        return await engine.config()
    except EngineError:
        return None


def _about_its_key(row: EngineRow, exc: EngineUnauthorized) -> tuple[str, str]:
    """Tell a key that is missing from one that is wrong, and from one that cannot be read."""
    if row.key_path is None:
        to_do = (
            "write its API key into a file that hal0's user can read, and name that file: "
            "HAL0_ENGINE_KEY_FILE before the first start, or `hal0 engine add --key-file`"
        )
        return f"wants a key, and hal0 has none for it: {exc.detail}", to_do
    try:
        key = read_key(row.key_path)
    except EngineUnauthorized as unreadable:
        return unreadable.detail, "put the engine's API key there, readable for hal0's user"
    what = "is empty" if key is None else "holds another one"
    to_do = f"write the engine's API key into {row.key_path}, then start the workers again"
    return f"wants a key, and {row.key_path} {what}: {exc.detail}", to_do


def _lists(settings: Settings, asked: _Asked) -> Iterator[Finding]:
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
    yield from _strangers(asked, seen)


def _leftovers(asked: _Asked, seen: Survey) -> Iterator[Finding]:
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


def _process(asked: _Asked) -> Iterator[Finding]:
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


def _strangers(asked: _Asked, seen: Survey) -> Iterator[Finding]:
    if seen.strangers:
        yield Finding(
            f"{asked.name}: strangers",
            "note",
            f"has loaded what belongs to no slot: {', '.join(seen.strangers)}",
            "hal0 leaves it alone; if it takes the room of slots, unload it where it was loaded",
        )


def _holds(asked: _Asked) -> Iterator[Finding]:
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


def _version(asked: _Asked) -> Finding:
    """Look whether it is a version that hal0 knows."""
    check, version = f"{asked.name}: version", asked.health.version
    found = re.match(r"(\d+)\.(\d+)", version or "")
    if found is None:
        return Finding(check, "note", "does not say which version it is", "hal0 knows Lemonade 11")
    if tuple(map(int, found.groups())) < KNOWN_LEMONADE:
        detail = f"is {version}; hal0 knows {'.'.join(map(str, KNOWN_LEMONADE))} and newer"
        return Finding(check, "note", detail, "update Lemonade")
    return Finding(check, "ok", f"is {version}")


def _configured(settings: Settings, asked: _Asked) -> Iterator[Finding]:
    """Look at what Lemonade was told in its `config.json`, if it tells us."""
    config = asked.config
    if config is None or config.auto_evict is None or config.load_limit_s is None:
        yield Finding(
            f"{asked.name}: config",
            "note",
            "does not tell how it is set up",
            "look yourself: auto_evict off, max_loaded_models -1. To let hal0 look, give it the "
            "admin's key",
        )
    if config is not None and config.auto_evict:
        yield Finding(
            f"{asked.name}: auto_evict",
            "wrong",
            "unloads by itself what was not used for a while, whatever the slots say",
            "set auto_evict to false in its config.json, and start it again",
        )
    if config is not None and config.load_limit_s is not None:
        yield from _timeouts(settings, asked, config.load_limit_s)


def _timeouts(settings: Settings, asked: _Asked, limit_s: float) -> Iterator[Finding]:
    """Compare its own limit of a load with those of hal0."""
    check, settle_s = f"{asked.name}: global_timeout", asked.row.settle_s
    if settle_s < 2 * limit_s:
        yield Finding(
            check,
            "wrong",
            f"is {limit_s:g} s, and a load that failed is tried once more: hal0 takes one for "
            f"settled after {settle_s:g} s",
            f"set it to {settle_s / 2:g} or less in its config.json, and start it again",
        )
    slower = {slot.name: times_of(slot, settings).load_timeout_s for slot in asked.slots}
    slower = {name: own_s for name, own_s in slower.items() if own_s > limit_s}
    if slower:
        yield Finding(
            check,
            "note",
            f"is {limit_s:g} s: then it gives a load up and drops all models with it, while "
            f"{', '.join(slower)} may take up to {max(slower.values()):g} s",
            "raise it, or lower --load-timeout of these slots",
        )
    if settle_s >= 2 * limit_s and not slower:
        yield Finding(check, "ok", f"is {limit_s:g} s, settled after {settle_s:g} s")


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
