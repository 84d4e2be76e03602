"""Which process an engine is: an opaque name that no other process of this boot can have.

The name is "<pid>-<start>", start in clock ticks since boot, for a pid alone is given away again
and a start in wall time moves when somebody sets the clock. Only processes of this machine can be
named, so an engine that is not at a loopback address has no name.
"""

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import httpx
import psutil

from hal0.processes import start_ticks

WILDCARDS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, never bound
LOCALHOST: Final = frozenset({"127.0.0.1", "::1", "::ffff:127.0.0.1"})


@dataclass(frozen=True, slots=True, order=True)
class _Listener:
    """A process, oldest first, and the descriptor by which it holds its listening socket."""

    start: int
    pid: int
    fd: int
    socket: str

    @property
    def is_there(self) -> bool:
        """Whether this process lives and holds that very socket still: then it listens still."""
        return start_ticks(self.pid) == self.start and _open_file(self.pid, self.fd) == self.socket


_listeners: dict[tuple[str, int], _Listener] = {}
"""(host, port) -> listener: finding one walks every process, 10 ms and more; it is remembered."""


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
    /proc on the first call for a URL; later calls look at the remembered socket alone.
    """
    key = (url.host, url.port or (443 if url.scheme == "https" else 80))
    known = _listeners.get(key)
    if known is None or not known.is_there:
        _listeners.pop(key, None)
        known = min(_listening(*key), default=None)
        if known is None:
            return None
        _listeners[key] = known
    return f"{known.pid}-{known.start}"


def _listening(host: str, port: int) -> list[_Listener]:
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return []
    found = []
    for c in connections:
        if c.pid and c.status == psutil.CONN_LISTEN and _is_at(c.laddr, host, port):
            start, socket = start_ticks(c.pid), _open_file(c.pid, c.fd)
            if start is not None and socket is not None:
                found.append(_Listener(start, c.pid, c.fd, socket))
    return found


def _open_file(pid: int, fd: int) -> str | None:
    """Return what a descriptor of a process refers to, as `socket:[inode]`; None = nothing."""
    try:
        return str(Path(f"/proc/{pid}/fd/{fd}").readlink())
    except OSError:
        return None


def _is_at(address: tuple[str | int, ...], host: str, port: int) -> bool:
    wanted = LOCALHOST if host == "localhost" else {host, f"::ffff:{host}"}
    return address[1:2] == (port,) and address[0] in wanted | WILDCARDS
