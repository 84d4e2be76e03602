"""Which process an engine is: an opaque name that no other process of this boot can have.

The name is "<pid>-<start>", start in clock ticks since boot, for a pid alone is given away again
and a start in wall time moves when somebody sets the clock. Only processes of this machine can be
named, so an engine that is not at a loopback address has no name.
"""

from ipaddress import ip_address
from typing import Final

import httpx
import psutil

from hal0.processes import start_ticks

WILDCARDS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, never bound
LOCALHOST: Final = frozenset({"127.0.0.1", "::1", "::ffff:127.0.0.1"})

_listeners: dict[tuple[str, int], tuple[int, int]] = {}
"""(host, port) -> (pid, start): finding a listener walks every process, so it is remembered."""


def process_name(pid: int) -> str | None:
    """Return the opaque name of a living process; None = there is none of this pid."""
    start = start_ticks(pid)
    return None if start is None else f"{pid}-{start}"


def is_loopback(url: httpx.URL) -> bool:
    """Tell whether the address can only mean this machine."""
    if url.host == "localhost":
        return True
    try:
        return ip_address(url.host).is_loopback
    except ValueError:
        return False


def listener_name(url: httpx.URL) -> str | None:
    """Return the name of the process that listens at a loopback URL; None = cannot be told.

    Without the right to look into another user's processes the answer is None. Of several that
    hold the port (a server and children that inherited its socket) the oldest is meant. Walks
    /proc on the first call for a URL; later calls look at the remembered process alone.
    """
    key = (url.host, url.port or (443 if url.scheme == "https" else 80))
    known = _listeners.get(key)
    if known is not None and start_ticks(known[0]) == known[1] and _listens(known[0], *key):
        return f"{known[0]}-{known[1]}"
    _listeners.pop(key, None)
    found = sorted(
        (start, pid) for pid in _pids_listening(*key) if (start := start_ticks(pid)) is not None
    )
    if not found:
        return None
    start, pid = found[0]
    _listeners[key] = (pid, start)
    return f"{pid}-{start}"


def _pids_listening(host: str, port: int) -> set[int]:
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return set()
    return {
        c.pid
        for c in connections
        if c.pid and c.status == psutil.CONN_LISTEN and _is_at(c.laddr, host, port)
    }


def _listens(pid: int, host: str, port: int) -> bool:
    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return False
    return any(c.status == psutil.CONN_LISTEN and _is_at(c.laddr, host, port) for c in connections)


def _is_at(address: tuple[str | int, ...], host: str, port: int) -> bool:
    wanted = LOCALHOST if host == "localhost" else {host, f"::ffff:{host}"}
    return address[1:2] == (port,) and address[0] in wanted | WILDCARDS
