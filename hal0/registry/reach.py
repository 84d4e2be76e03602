"""Whom a pull may ask: the one place that decides it, at registration and at every step of a pull.

    HAL0_PULL_HOSTS            where it is set, no other host is asked
    HAL0_PULL_PRIVATE_HOSTS    the only hosts that may have a private address
    HAL0_HUB_ENDPOINT          its own host is allowed to hf:// sources by being named there

Who names a URL does not own the network that the worker stands in: a cloud's metadata service, a
router, a database. A redirect is looked at like the URL itself. What is written out is judged
before anything is sent (`ensure_host`); what a name stands for, when it is known (`ensure_address`,
see `web.py`).
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Self
from urllib.parse import urlsplit

from hal0.errors import HostNotAllowed
from hal0.hosts import (
    MAX_NAME,
    HostList,
    address_of,
    canonical,
    is_disguised,
    is_localhost,
    is_public,
)
from hal0.registry.sources import Source, SourceKind
from hal0.settings import Settings

PUBLIC_HUB: Final = "https://huggingface.co"
LOOPBACK: Final = "127.0.0.1"
_NONE: Final = HostList()


@dataclass(frozen=True, slots=True)
class Reach:
    """What the settings allow.

    `hosts` None = any. `configured` is a host that is allowed by being named in the settings.
    """

    hosts: HostList | None = None
    private: HostList = _NONE
    configured: str | None = None

    @classmethod
    def of(cls, settings: Settings, kind: SourceKind) -> Self:
        """Return whom a pull may ask for a source of this kind."""
        hosts, private = settings.pull_hosts, settings.pull_private_hosts
        reach = cls(
            None if hosts is None else HostList.of(hosts),
            HostList.of(private or ()),
        )
        if kind is SourceKind.HUB and settings.hub_endpoint is not None:
            return replace(reach, configured=host_of(settings.hub_endpoint))
        return reach

    def ensure_host(self, source: str, host: str, *, leads: str = "is at") -> None:
        """Judge a host by its name alone. Raises HostNotAllowed.

        `source` is what messages call it, `leads` how it came to the host.
        """
        if canonical(host) == self.configured:
            return
        if is_disguised(host):
            raise _refused(source, leads, host, "which is an address in no form that hal0 takes")
        if self.hosts is not None and not self.hosts.has(host):
            raise _refused(source, leads, host, "which is none of the hosts of HAL0_PULL_HOSTS")
        if address_of(host) is not None or is_localhost(host):
            address = LOOPBACK if is_localhost(host) else host
            self.ensure_address(source, host, address, leads=leads)

    def ensure_address(self, source: str, host: str, address: str, *, leads: str = "is at") -> None:
        """Judge an address that a host has. Raises HostNotAllowed."""
        if is_public(address) or canonical(host) == self.configured:
            return
        if not (self.private.has(host) or self.private.has(address)):
            why = (
                f"whose address {address} is private; whoever runs hal0 can allow it: "
                f"HAL0_PULL_PRIVATE_HOSTS={host[:MAX_NAME]} for API and workers, started again then"
            )
            raise _refused(source, leads, host, why, address)


PUBLIC_ONLY: Final = Reach()
"""Whom a pull may ask where nothing is set."""


def _refused(
    source: str, leads: str, host: str, why: str, address: str | None = None
) -> HostNotAllowed:
    host = host[:MAX_NAME]  # a server may have had a hand in it
    return HostNotAllowed(
        f"{source} {leads} {host}, {why}",
        evidence={"source": source, "host": host, "address": address},
    )


def host_of(url: str) -> str:
    """Return the host of an http(s) URL in the form in which hosts are compared."""
    host = urlsplit(url).hostname or ""
    with suppress(UnicodeError):  # what IDNA does not know has no address either
        host = host.encode("idna").decode()
    return canonical(host)


def hub_host(settings: Settings) -> str:
    """Return the host that is asked about hf:// sources."""
    return host_of(settings.hub_endpoint or PUBLIC_HUB)


def ensure_allowed(settings: Settings, source: Source) -> None:
    """Refuse a source whose host is known to be none that a pull may ask. Raises HostNotAllowed.

    Nothing is resolved: a name may still turn out to have a private address.
    """
    if source.kind is SourceKind.LOCAL:
        return
    host = hub_host(settings) if source.url is None else host_of(source.url)
    Reach.of(settings, source.kind).ensure_host(source.shown, host)
