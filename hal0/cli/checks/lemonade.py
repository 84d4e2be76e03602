"""Is a Lemonade server set up so that hal0 can rely on it."""

import re
from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection

from hal0.cli.checks.asking import Asked, to_have_a_key
from hal0.cli.checks.database import reading
from hal0.cli.findings import Finding
from hal0.registry.catalog import model_by_id
from hal0.settings import Settings
from hal0.slots.queries import Slot
from hal0.slots.times import times_of

KNOWN_LEMONADE: Final = (11, 0)
"""What the adapter was written against; the wire of older versions was never seen."""


def lemonade(settings: Settings, asked: Asked) -> Iterator[Finding]:
    """Look at its version, who may ask it, and its `config.json`."""
    yield _version(asked)
    yield _key(asked)
    yield from _configured(settings, asked)


def _key(asked: Asked) -> Finding:
    """Look who may ask it: a chat alone makes it load a model, past all checks."""
    check, key_path = f"{asked.name}: key", asked.row.key_path
    if not asked.is_open:
        return Finding(check, "ok", "is asked for")
    keep = f"write it into {key_path} too" if key_path else to_have_a_key(asked.row)
    return Finding(
        check,
        "note",
        "asks for no key: whoever reaches it can have it load what nobody checked",
        f"start it with LEMONADE_API_KEY; for hal0, {keep}",
    )


def _version(asked: Asked) -> Finding:
    """Look whether it is a version that hal0 knows."""
    check, version = f"{asked.name}: version", asked.health.version
    found = re.match(r"(\d+)\.(\d+)", version or "")
    if found is None:
        return Finding(check, "note", "does not say which version it is", "hal0 knows Lemonade 11")
    if tuple(map(int, found.groups())) < KNOWN_LEMONADE:
        detail = f"is {version}; hal0 knows {'.'.join(map(str, KNOWN_LEMONADE))} and newer"
        return Finding(check, "note", detail, "update Lemonade")
    return Finding(check, "ok", f"is {version}")


def _configured(settings: Settings, asked: Asked) -> Iterator[Finding]:
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


def _timeouts(settings: Settings, asked: Asked, limit_s: float) -> Iterator[Finding]:
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
    with reading(settings) as tx:
        own = {slot.name: _load_limit_s(tx, settings, slot) for slot in asked.slots}
    slower = {name: own_s for name, own_s in own.items() if own_s > limit_s}
    if slower:
        yield Finding(
            check,
            "note",
            f"is {limit_s:g} s: then it gives a load up and drops all models with it, while "
            f"{', '.join(slower)} may take up to {max(slower.values()):g} s",
            "raise it, or lower --load-timeout, or --load-timeout-per-gb, of these slots",
        )
    if settle_s >= 2 * limit_s and not slower:
        yield Finding(check, "ok", f"is {limit_s:g} s, settled after {settle_s:g} s")


def _load_limit_s(tx: Connection, settings: Settings, slot: Slot) -> float:
    """Return how long a load of what the slot wants may take, as far as its size is known."""
    files = () if slot.wanted_model_id is None else model_by_id(tx, slot.wanted_model_id).files
    return times_of(slot, settings).load_limit_s(sum(file.size_bytes or 0 for file in files))
