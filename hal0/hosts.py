"""Which hosts a list of the settings means, and which addresses the public network has.

    huggingface.co         this host
    *.hf.co                every host below hf.co, and not hf.co itself
    10.0.0.5, fd00::/8     this address, every address of this network

Names are compared as they are sent: in small letters, of ASCII, without a dot at the end; ports are
not looked at. Nothing is resolved here: a name has no address, whatever name servers say of it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Self

Address = IPv4Address | IPv6Address

MAX_NAME: Final = 253
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_NAT64: Final = ip_network("64:ff9b::/96")
_LOCAL_NAT64: Final = ip_network("64:ff9b:1::/48")
_IPV4_COMPATIBLE: Final = ip_network("::/96")


def canonical(host: str) -> str:
    """Return a host in the one form in which hosts are compared."""
    return host.lower().strip("[]").removesuffix(".")


def address_of(host: str) -> Address | None:
    """Return the address that is written out in a host or a socket's name; None = it is a name."""
    try:
        found = ip_address(canonical(host).partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def is_disguised(host: str) -> bool:
    """Tell whether a resolver would take this for an IPv4 address, and nobody else: 127.1, 0x7f.1.

    The rule is that of browsers: a host whose last part is a number is an address.
    """
    last = canonical(host).rpartition(".")[2]
    return _NUMBER.fullmatch(last) is not None and address_of(host) is None


def is_localhost(host: str) -> bool:
    """Tell whether a name is this machine's, whatever a name server says (RFC 6761, 6.3)."""
    return f".{canonical(host)}".endswith(".localhost")


def is_public(host: str) -> bool:
    """Tell whether the public network has this address; a name counts as one that it has."""
    found = address_of(host)
    if found is None:
        return True
    if isinstance(found, IPv4Address):
        return found.is_global
    if found.is_site_local or found in _LOCAL_NAT64:
        return False
    inner = [found.sixtofour, *(found.teredo or ())]
    if found in _NAT64 or found in _IPV4_COMPATIBLE:
        inner.append(IPv4Address(int(found) & 0xFFFFFFFF))
    meant = [one for one in inner if one is not None]
    return all(one.is_global for one in meant) if meant else found.is_global


@dataclass(frozen=True, slots=True)
class HostList:
    """Hosts by name, by what they are below of, and by address."""

    names: frozenset[str] = frozenset()
    suffixes: tuple[str, ...] = ()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[str]) -> Self:
        """Read a list as it stands in the settings. Raises ValueError that names a bad entry."""
        names, networks = [], []
        for entry in entries:
            if "/" in entry:
                networks.append(ip_network(entry))
            elif (address := address_of(entry)) is not None:
                networks.append(ip_network(address))
            else:
                names.append(_checked_name(entry))
        suffixes = tuple(name[1:] for name in names if name.startswith("*."))
        return cls(frozenset(names), suffixes, tuple(networks))

    def has(self, host: str) -> bool:
        """Tell whether a host is meant, as it stands in a URL or as a socket names its peer."""
        address = address_of(host)
        if address is not None:
            return any(address in network for network in self.networks)
        name = canonical(host)
        return name in self.names or name.endswith(self.suffixes)


def _checked_name(entry: str) -> str:
    name = canonical(entry)
    if len(name) > MAX_NAME or not _NAME.fullmatch(name) or is_disguised(name):
        raise ValueError(
            f"{entry!r} is no host: use a name such as huggingface.co, *.hf.co for all below it, "
            "an address or a network such as 10.0.0.0/8; other letters than a-z as xn--…"
        )
    return name
