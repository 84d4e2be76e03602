"""Whom a pull may ask: by the settings, at registration, at each redirect, and by the address."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hal0.errors import HostNotAllowed, PullError, SettingsError, SourceNotFound
from hal0.hosts import HostList, is_disguised, is_public
from hal0.registry.download import Download, download, size_at_source
from hal0.registry.part import Watcher
from hal0.registry.reach import PUBLIC_ONLY, Reach, ensure_allowed
from hal0.registry.sources import Source as Named
from hal0.registry.sources import SourceKind
from hal0.settings import Settings
from tests.fakes.source import Manner, Source

NAME = "dir/model.gguf"
CONTENT = b"GGUF and what follows"
PUBLIC = "93.184.215.14"


@pytest.fixture
def source() -> Iterator[Source]:
    with Source() as server:
        server.put(NAME, CONTENT)
        yield server


def reach(*private: str, hosts: tuple[str, ...] | None = None) -> Reach:
    return Reach(None if hosts is None else HostList.of(hosts), HostList.of(private))


def fetch(url: str, folder: Path, may_ask: Reach = PUBLIC_ONLY) -> bytes:
    target = folder / "models" / "m.bin"
    wanted = Download(url, url, target, reach=may_ask)
    download(wanted, Watcher(), stall_s=5)
    return target.read_bytes()


LIST = (
    "huggingface.co",
    "*.HF.co",
    "nas",
    "10.0.0.0/8",
    "192.168.1.7",
    "fd00::/8",
    "xn--bcher-kva.x",
)


@pytest.mark.parametrize(
    ("host", "is_meant"),
    [
        ("huggingface.co", True),
        ("HuggingFace.CO.", True),
        ("cdn-lfs.huggingface.co", False),
        ("nothuggingface.co", False),
        ("huggingface.co.evil.example", False),
        ("hf.co", False),
        ("cas-bridge.xethub.hf.co", True),
        ("evilhf.co", False),
        ("nas", True),
        ("nas.lan", False),
        ("10.255.0.1", True),
        ("[::ffff:10.255.0.1]", True),
        ("11.0.0.1", False),
        ("192.168.1.7", True),
        ("192.168.1.8", False),
        ("[fd00::1%eth0]", True),
        ("fe80::1", False),
        ("xn--bcher-kva.x", True),
        ("", False),
    ],
)
def test_a_list_means_hosts_those_below_a_suffix_and_the_addresses_of_networks(
    host: str, is_meant: bool
) -> None:
    assert HostList.of(LIST).has(host) is is_meant


@pytest.mark.parametrize(
    "entry",
    ["*", "*.", "*.*.x", "a..b", "-a", "a b", "http://a", "a:80", "a/b", "10.0.0.1/8", "10.0.0",
     "0x7f.1", "30", "bücher.x", "a" * 254, "256.1.1.1", "a,b"],
)  # fmt: skip
def test_an_entry_that_means_nothing_is_refused_when_a_process_starts(
    entry: str, tmp_path: Path
) -> None:
    for name in ("pull_hosts", "pull_private_hosts"):
        with pytest.raises(SettingsError, match=f"HAL0_{name.upper()}: "):
            Settings.load(home=tmp_path, **{name: (entry,)})


def test_hosts_stand_in_the_environment_with_commas_and_in_the_file_as_a_list(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HAL0_HOME", str(tmp_path))
    monkeypatch.setenv("HAL0_PULL_HOSTS", " huggingface.co, *.hf.co ,")
    (tmp_path / "hal0.toml").write_text('pull_private_hosts = ["nas.lan", "10.0.0.0/8"]\n')
    settings = Settings.load()
    assert settings.pull_hosts == ("huggingface.co", "*.hf.co")
    assert settings.pull_private_hosts == ("nas.lan", "10.0.0.0/8")
    monkeypatch.setenv("HAL0_PULL_HOSTS", "")
    assert Settings.load().pull_hosts == ()


@pytest.mark.parametrize(
    ("address", "answer"),
    [
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("8.8.8.8", True),
        ("::1", False),
        ("::", False),
        ("[fe80::1%eth0]", False),
        ("fec0::1", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b:1::808:808", False),
        ("2002:7f00:1::", False),
        ("::127.0.0.1", False),
        ("2606:4700::1111", True),
        ("224.0.0.251", False),
        ("ff0e::101", False),
        ("192.0.0.9", False),
        ("192.0.2.1", False),
        ("198.18.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("168.63.129.16", False),
        ("168.63.129.17", True),
        ("172.15.255.255", True),
        ("172.16.0.1", False),
        ("::ffff:0:8.8.8.8", False),
        ("64:ff9b::808:808", True),
        ("64:ff9b::a83f:8110", False),
        ("2002:808:808::", True),
        ("2002:e000:1::", False),
        ("2001:0:808:808:0:0:f7f7:f7f7", True),
        ("2001:0:808:808:0:0:80ff:fffe", False),
        ("2001:20::1", False),
        ("2001:db8::1", False),
        ("2001:4860:4860::8888", True),
        ("3fff::1", False),
        ("5f00::1", False),
        ("100::1", False),
        ("models.example", True),
    ],
)
def test_which_addresses_the_public_network_has(address: str, answer: bool) -> None:
    assert is_public(address) is answer


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("127.1", True),
        ("2130706433", True),
        ("0x7f000001", True),
        ("0x7f.0.0.1", True),
        ("0177.0.0.1", True),
        ("10.0.0.1.", False),
        ("127.0.0.1", False),
        ("::1", False),
        ("1.example", False),
        ("v1", False),
    ],
)
def test_which_names_a_resolver_takes_for_an_address(host: str, answer: bool) -> None:
    assert is_disguised(host) is answer


CLOUD = "http://169.254.169.254/latest/meta-data/iam"


@pytest.mark.parametrize(
    ("given", "source", "why"),
    [
        ({}, "https://models.example/a.gguf", None),
        ({}, "hf://org/repo/a.gguf", None),
        ({}, "/data/a.gguf", None),
        ({}, CLOUD, "169.254.169.254 is private"),
        ({}, "http://[::1]/a.gguf", "::1 is private"),
        ({}, "http://[::ffff:169.254.169.254]/a", "is private"),
        ({}, "http://localhost:8080/a", "HAL0_PULL_PRIVATE_HOSTS=localhost for API and workers"),
        ({}, "http://x.LOCALHOST./a", "127.0.0.1 is private"),
        ({}, "http://2130706433/a", "in no form that hal0 takes"),
        ({}, "http://0x7f.1/a", "in no form that hal0 takes"),
        ({"pull_private_hosts": "169.254.0.0/16"}, CLOUD, None),
        ({"pull_private_hosts": "localhost"}, "http://localhost/a", None),
        ({"pull_private_hosts": "127.0.0.1"}, "http://localhost/a", None),
        ({"pull_private_hosts": "nas.lan"}, CLOUD, "is private"),
        ({"pull_hosts": "*.example"}, "https://models.example/a.gguf", None),
        ({"pull_hosts": "*.example"}, "https://models.invalid/a.gguf", "HAL0_PULL_HOSTS"),
        ({"pull_hosts": "*.example"}, "hf://org/repo/a.gguf", "huggingface.co, which is none of"),
        ({"pull_hosts": "huggingface.co"}, "hf://org/repo/a.gguf", None),
        ({"pull_hosts": "xn--bcher-kva.example"}, "https://bücher.example/a", None),
        ({"pull_hosts": ""}, "https://models.example/a.gguf", "HAL0_PULL_HOSTS"),
        ({"pull_hosts": ""}, "/data/a.gguf", None),
        ({"pull_hosts": "169.254.169.254"}, CLOUD, "is private"),
        ({"hub_endpoint": "http://10.0.0.5:80"}, "hf://org/repo/a.gguf", None),
        ({"hub_endpoint": "http://10.0.0.5", "pull_hosts": ""}, "hf://org/repo/a.gguf", None),
        ({"hub_endpoint": "http://10.0.0.5"}, "http://10.0.0.5/a", "is private"),
    ],
)
def test_what_is_known_of_a_host_by_its_name_is_told_at_registration(
    given: dict[str, str], source: str, why: str | None, tmp_path: Path
) -> None:
    settings = Settings.load(home=tmp_path, **given)
    if why is None:
        ensure_allowed(settings, Named.parse(source))
        return
    with pytest.raises(HostNotAllowed, match=why) as caught:
        ensure_allowed(settings, Named.parse(source))
    assert caught.value.evidence["source"] == source


def test_a_signature_is_not_repeated_by_a_refusal() -> None:
    with pytest.raises(HostNotAllowed) as caught:
        ensure_allowed(Settings(), Named.parse("http://10.0.0.1/a.gguf?Signature=secret"))
    assert "secret" not in str(caught.value.as_row())


def test_a_hub_of_the_settings_may_be_private_to_hub_sources_alone() -> None:
    settings = Settings(hub_endpoint="http://10.0.0.5")
    Reach.of(settings, SourceKind.HUB).ensure_address("hf://x", "10.0.0.5", "10.0.0.5")
    with pytest.raises(HostNotAllowed):
        Reach.of(settings, SourceKind.WEB).ensure_address("http://x", "10.0.0.5", "10.0.0.5")


def test_a_private_host_is_not_even_knocked_at(source: Source, tmp_path: Path) -> None:
    """Else it could be told from outside which ports are open."""
    with pytest.raises(HostNotAllowed):
        fetch(source.url(NAME), tmp_path)
    with pytest.raises(HostNotAllowed):
        fetch("http://127.0.0.1:9/a.gguf", tmp_path)
    with pytest.raises(HostNotAllowed):
        size_at_source(Download("x", source.url(NAME), tmp_path / "m"), Watcher(), stall_s=5)
    assert source.requests == []
    assert not list(tmp_path.rglob("m.bin*"))


@pytest.mark.parametrize("allowed", ["127.0.0.1", "127.0.0.0/8"])
def test_a_private_host_that_is_allowed_is_asked(
    source: Source, tmp_path: Path, allowed: str
) -> None:
    assert fetch(source.url(NAME), tmp_path, reach(allowed)) == CONTENT


@pytest.mark.parametrize("host", ["127.0.0.2", "[::ffff:127.0.0.2]", "127.2", "0x7f.0.0.2"])
def test_a_redirect_to_a_private_address_is_refused_before_anything_is_sent_there(
    source: Source, tmp_path: Path, host: str
) -> None:
    with Source(host="127.0.0.2") as inner:
        inner.put(NAME, CONTENT)
        source.script("moved", Manner(redirect_to=f"http://{host}:{inner.port}/{NAME}"))
        with pytest.raises(PullError) as caught:
            fetch(source.url("moved"), tmp_path, reach("127.0.0.1"))
        assert inner.requests == []
        if isinstance(caught.value, HostNotAllowed):  # 0x7f… is no URL to httpx
            assert "redirects to" in caught.value.detail


def test_each_of_many_redirects_is_looked_at(source: Source, tmp_path: Path) -> None:
    with Source(host="127.0.0.2") as inner:
        inner.script("back", Manner(redirect_to=source.url(NAME)))
        source.script("a", Manner(redirect_to="/b"))
        source.script("b", Manner(redirect_to=inner.url("back")))
        both = reach("127.0.0.1", "127.0.0.2")
        assert fetch(source.url("a"), tmp_path, both) == CONTENT
        with pytest.raises(HostNotAllowed, match=r"127\.0\.0\.2 is private"):
            fetch(source.url("a"), tmp_path, reach("127.0.0.1"))
        with pytest.raises(HostNotAllowed, match=r"redirects to 127\.0\.0\.2, which is none of"):
            fetch(source.url("a"), tmp_path, reach("127.0.0.0/8", hosts=("127.0.0.1",)))


def test_what_a_server_says_of_hosts_is_cut_before_it_comes_into_a_row(
    source: Source, tmp_path: Path
) -> None:
    source.script("moved", Manner(redirect_to=f"http://{'a' * 30_000}.1/"))
    with pytest.raises(HostNotAllowed) as caught:
        fetch(source.url("moved"), tmp_path, reach("127.0.0.1"))
    assert len(str(caught.value.as_row())) < 1500


Names = Callable[..., list[str]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """A name server: give the addresses that `models.example` has, look-up by look-up."""
    real = socket.getaddrinfo
    asked: list[str] = []

    def give(*addresses: str) -> list[str]:
        def resolve(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
            if host not in ("models.example", b"models.example"):
                return real(host, port, *rest, **more)
            asked.append(str(host))
            return real(addresses[min(len(asked), len(addresses)) - 1], port, *rest, **more)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        return asked

    return give


def test_a_name_is_judged_by_the_address_that_it_has(
    source: Source, tmp_path: Path, names: Names
) -> None:
    names("127.0.0.1")
    url = f"http://models.example:{source.port}/{NAME}"
    with pytest.raises(HostNotAllowed, match=r"models\.example, whose address 127\.0\.0\.1"):
        fetch(url, tmp_path)
    with pytest.raises(HostNotAllowed):  # and not that nobody listens there
        fetch("http://models.example:9/a.gguf", tmp_path)
    assert source.requests == []
    assert fetch(url, tmp_path, reach("models.example")) == CONTENT
    assert fetch(url, tmp_path, reach("127.0.0.0/8")) == CONTENT


def test_a_name_server_that_changes_its_mind_gets_nothing_sent(
    source: Source, tmp_path: Path, names: Names
) -> None:
    """DNS rebinding: public when it is looked at, private when it is connected to."""
    asked = names(PUBLIC, "127.0.0.1")
    with pytest.raises(HostNotAllowed, match="private"):
        fetch(f"http://models.example:{source.port}/{NAME}", tmp_path)
    assert len(asked) >= 2
    assert source.requests == []


@pytest.mark.parametrize("name", ["NO_PROXY", "FTP_PROXY", "HTTPS_PROXY"])
def test_a_proxy_for_something_else_opens_no_private_address(
    source: Source, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Source(host="127.0.0.2") as inner:
        source.script("moved", Manner(redirect_to=inner.url(NAME)))
        with pytest.raises(HostNotAllowed, match="private"):
            fetch(source.url("moved"), tmp_path, reach("127.0.0.1"))
        assert inner.requests == []


def test_a_proxy_is_asked_for_no_address_and_no_name_that_is_known_to_be_private(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It connects in our place: what stands in the URL is all that can be looked at."""
    monkeypatch.setenv("HTTP_PROXY", source.origin)
    for host in ("10.0.0.1", "localhost", "[::1]", "2130706433"):
        with pytest.raises(HostNotAllowed):
            fetch(f"http://{host}/x.gguf", tmp_path)
    with pytest.raises(HostNotAllowed):
        fetch("http://models.invalid/x.gguf", tmp_path, reach(hosts=("models.example",)))
    assert source.requests == []
    with pytest.raises(SourceNotFound):
        fetch("http://models.example/x.gguf", tmp_path)
    assert source.requests[0]["path"] == "http://models.example/x.gguf"
