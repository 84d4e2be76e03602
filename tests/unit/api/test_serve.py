"""Where the API listens, and that it does not do so for strangers without a token."""

import socket

import pytest

from hal0.access import tokens
from hal0.access.roles import Role
from hal0.api.address import LOOPBACK, Address, ensure_closed, listen
from hal0.api.app import serve
from hal0.db import Database
from hal0.errors import SettingsError
from hal0.settings import Settings


@pytest.mark.parametrize(
    "bind", ["0.0.0.0:13310", "[::]:13310", "10.0.0.1:80", "[fe80::1]:80", "box.lan:80", "0:80"]
)
def test_an_address_that_others_can_reach_takes_a_token_that_is_valid(
    db: Database, bind: str
) -> None:
    def refused() -> str:
        with pytest.raises(SettingsError, match="run `hal0 token create NAME") as caught:
            ensure_closed(bind, db)
        return caught.value.detail

    assert f"HAL0_BIND={bind} can be reached by other machines" in refused()
    with db.write() as tx:
        tokens.create(tx, "over", Role.WRITER, "local", 1e-6)
    refused()
    with db.write() as tx:
        tokens.create(tx, "ci", Role.READER, "local")
    ensure_closed(bind, db)
    with db.write() as tx:
        tokens.revoke(tx, "ci", "local")
    refused()


@pytest.mark.parametrize(
    "bind", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "LOCALHOST:1"]
)
def test_this_machine_needs_no_token(db: Database, bind: str) -> None:
    ensure_closed(bind, db)
    address = Address.read(bind)
    assert address.is_loopback
    assert address.hosts == LOOPBACK | {address.host}


def test_the_api_does_not_start_for_strangers(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="there is no valid token"):
        serve(settings.model_copy(update={"bind": "0.0.0.0:0"}))


@pytest.mark.parametrize(
    ("bind", "family", "listens"),
    [
        ("127.0.0.1:0", socket.AF_INET, "127.0.0.1"),
        ("0.0.0.0:0", socket.AF_INET, "0.0.0.0"),
        ("[::1]:0", socket.AF_INET6, "::1"),
        ("[::]:0", socket.AF_INET6, "::"),
        ("localhost:0", socket.AF_INET, "127.0.0.1"),
    ],
)
def test_every_form_of_an_address_is_listened_at(
    bind: str, family: socket.AddressFamily, listens: str
) -> None:
    if family is socket.AF_INET6 and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with listen(bind) as listener:
        assert (listener.family, listener.getsockname()[0]) == (family, listens)


@pytest.mark.parametrize("bind", ["no.such.name.invalid:0", "192.0.2.1:0", "[2001:db8::1]:0"])
def test_an_address_that_is_not_ours_is_named(bind: str) -> None:
    with pytest.raises(
        SettingsError, match="set HAL0_BIND to an address of this machine"
    ) as caught:
        listen(bind)
    assert bind in caught.value.detail


def test_a_port_is_had_by_one_from_the_start() -> None:
    """Two that had only bound it would both go on, and one would fail when it begins to serve."""
    with listen("127.0.0.1:0") as first:
        bind = f"127.0.0.1:{first.getsockname()[1]}"
        with pytest.raises(SettingsError, match="stop what does, or set HAL0_BIND") as caught:
            listen(bind)
    assert bind in caught.value.detail
