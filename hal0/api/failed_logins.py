"""How often an address may come with a bad token: ten at once, then one in six seconds.

Kept as the moment at which an address has its full allowance again (GCRA, the form of a token
bucket that is one number). Own code, for the libraries that do this count by the wall clock, which
somebody can set, and keep an entry for whatever address comes: from one IPv6 network those are
2**64.
"""

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address
from typing import Final

from hal0.clock import monotonic_ms

AT_ONCE: Final = 10
EACH_MS: Final = 6_000
MAX_KEPT: Final = 4096
"""So many addresses are kept; beyond that, who has been silent longest is forgotten."""


class FailedLogins:
    """The addresses that failed lately; for one event loop."""

    def __init__(self) -> None:
        self._full_again_ms: OrderedDict[str, int] = OrderedDict()

    def count(self, address: str) -> float:
        """Count a failure; return 0, or in how many seconds the next one would be listened to."""
        who, now_ms = counted_as(address), monotonic_ms()
        full_again_ms = max(now_ms, self._full_again_ms.get(who, 0)) + EACH_MS
        too_early_ms = full_again_ms - now_ms - AT_ONCE * EACH_MS
        if too_early_ms > 0:
            return too_early_ms / 1000
        self._full_again_ms[who] = full_again_ms
        self._full_again_ms.move_to_end(who)
        if len(self._full_again_ms) > MAX_KEPT:
            self._full_again_ms.popitem(last=False)
        return 0.0

    def __len__(self) -> int:
        """How many addresses are kept."""
        return len(self._full_again_ms)


def counted_as(address: str) -> str:
    """Return what an address is counted under: of IPv6 its /64, which one host has to itself."""
    try:
        found = ip_address(address)
    except ValueError:
        return ""  # a socket that has no address: all of those are one
    if not isinstance(found, IPv6Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return f"{IPv6Address(int(found) >> 64 << 64)}/64"
