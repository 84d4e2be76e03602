"""Where the API listens."""

import pytest

from hal0.api.app import listen, loopback_address, serve
from hal0.errors import SettingsError
from hal0.settings import Settings


@pytest.mark.parametrize("bind", ["0.0.0.0:13310", "[::]:13310", "10.0.0.1:80", "box.lan:80"])
def test_an_address_that_others_can_reach_is_refused_before_anything_is_made(
    settings: Settings, bind: str
) -> None:
    with pytest.raises(SettingsError, match="no tokens yet"):
        serve(settings.model_copy(update={"bind": bind}))
    assert not settings.home.exists()


def test_this_machine_is_split_into_host_and_port() -> None:
    assert loopback_address("[::1]:80") == ("::1", 80)
    assert loopback_address("127.0.0.1:13310") == ("127.0.0.1", 13310)


def test_a_port_is_had_by_one_from_the_start() -> None:
    """Two that had only bound it would both go on, and one would fail when it begins to serve."""
    with listen("127.0.0.1:0") as first:
        bind = f"127.0.0.1:{first.getsockname()[1]}"
        with pytest.raises(SettingsError, match="stop what does, or set HAL0_BIND") as caught:
            listen(bind)
    assert bind in caught.value.detail
