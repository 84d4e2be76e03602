"""Where the API listens, and whether others than the users of this machine can reach it there."""

import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Self

from hal0.access.tokens import all_tokens
from hal0.db import Database
from hal0.errors import SettingsError
from hal0.settings import cannot_listen

LOOPBACK: Final = frozenset({"127.0.0.1", "[::1]", "localhost"})
"""The names of this machine, as a Host header writes them."""


@dataclass(frozen=True, slots=True)
class Address:
    """HAL0_BIND, read: `host` as it is written there, brackets included."""

    host: str
    port: int

    @classmethod
    def read(cls, bind: str) -> Self:
        """Split address:port, which the settings have checked."""
        host, _, port = bind.rpartition(":")
        return cls(host.lower(), int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it; of a name that is said of `localhost` alone."""
        try:
            return ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def hosts(self) -> frozenset[str] | None:
        """What a Host header may name; None = anything, for a token keeps strangers out."""
        return LOOPBACK | {self.host} if self.is_loopback else None


def listen(bind: str) -> socket.socket:
    """Listen at HAL0_BIND; raises SettingsError when it cannot be had."""
    address = Address.read(bind)
    try:
        return _listener(address)
    except OSError as exc:
        raise cannot_listen("HAL0_BIND", bind, exc) from exc


def _listener(address: Address) -> socket.socket:
    found = socket.getaddrinfo(
        address.host.strip("[]"), address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    # A name of both kinds is an IPv4 address to most of those who will ask here.
    family, _, _, _, place = min(found, key=lambda one: one[0] != socket.AF_INET)
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else 40 ms an answer
        listener.bind(place)
        listener.listen()  # two that are only bound share a port, and one of them finds out late
    except OSError:
        listener.close()
        raise
    return listener


def ensure_closed(bind: str, db: Database) -> None:
    """Raise SettingsError where other machines could ask and there is no token to ask them for."""
    if Address.read(bind).is_loopback:
        return
    with db.read() as tx:
        if all_tokens(tx).has_valid:
            return
    raise SettingsError(
        f"HAL0_BIND={bind} can be reached by other machines, and there is no valid token: run "
        "`hal0 token create NAME --role writer` first, or use one of "
        f"{', '.join(sorted(LOOPBACK))}",
        evidence={"bind": bind},
    )
