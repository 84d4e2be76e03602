"""Hosts: which ones a list of the settings means, which addresses are public, what an origin is.

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

from pydantic import AnyHttpUrl, TypeAdapter

Address = IPv4Address | IPv6Address

MAX_NAME: Final = 253
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_HTTP_URL: Final = TypeAdapter(AnyHttpUrl)

# IANA's registries of special addresses. Not `is_global` of the standard library, which knows more
# or less of them with each patch of Python.
_NOT_PUBLIC: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "168.63.129.16/32",  # registered to nobody: the metadata of a cloud
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
_UNICAST: Final = IPv6Network("2000::/3")
"""All that is given out of IPv6."""
_NOT_PUBLIC_UNICAST: Final = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20")))
_WITH_IPV4: Final = tuple(map(IPv6Network, ("::/96", "64:ff9b::/96")))
"""Ending with an IPv4 address that is meant: compatible, NAT64."""


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
    meant = _ipv4_meant_by(found)
    if meant:
        return not any(one in network for one in meant for network in _NOT_PUBLIC)
    return found in _UNICAST and not any(found in network for network in _NOT_PUBLIC_UNICAST)


def _ipv4_meant_by(address: Address) -> list[IPv4Address]:
    """Return every IPv4 address that is reached by this one; none = it is of IPv6 alone."""
    if isinstance(address, IPv4Address):
        return [address]
    inner = [address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in _WITH_IPV4):
        inner.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in inner if one is not None]


def http_origin(url: str) -> str:
    """Return the URL of a web server, without a slash at its end. Raises ValueError.

    It is read as pydantic does, which knows ports and host names, and kept as it was given.
    """
    if not re.fullmatch(r"https?://[^\s/?#@]{1,255}/?", url):
        raise ValueError("takes http(s)://host[:port], without credentials, path or query")
    if _HTTP_URL.validate_python(url).port == 0:
        raise ValueError("takes a port from 1 to 65535")
    return url.rstrip("/")


def server_of(url: str) -> str:
    """Return the URL of a web server in the one form in which servers are compared.

    `localhost`, 127.0.0.1 and ::1 are one. Nothing is resolved: a server that has two other names
    passes for two. What is no URL is returned as it is.
    """
    try:
        known = _HTTP_URL.validate_python(url)
    except ValueError:
        return url
    host = canonical(known.host or "")
    is_own = is_localhost(host) or str(address_of(host)) in ("127.0.0.1", "::1")
    return f"{known.scheme}://{'localhost' if is_own else host}:{known.port}"


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
