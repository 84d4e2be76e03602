"""Which pin files are taken, and what is said of one that is not."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hal0.errors import BadPin
from hal0.lemond.pin import MAX_BYTES, Pin
from hal0.settings import Settings

GOOD = {
    "version": "11.7.0-rc1",
    "tarball_url": "https://example.org/releases/server.tar.gz",
    "sha256": "0123456789abcdef" * 4,
}


def read(tmp_path: Path, content: object, **settings: Any) -> Pin:
    path = tmp_path / "pin.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return Pin.read(path, Settings(home=tmp_path / "home", **settings))


def refusal(tmp_path: Path, content: object, **settings: Any) -> BadPin:
    with pytest.raises(BadPin) as caught:
        read(tmp_path, content, **settings)
    assert str(tmp_path / "pin.json") in caught.value.detail
    return caught.value


def test_a_pin_names_a_version_by_its_text_and_its_digest(tmp_path: Path) -> None:
    pin = read(tmp_path, GOOD | {"sha256": GOOD["sha256"].upper()})
    assert pin.sha256 == GOOD["sha256"]
    assert pin.name == "11.7.0-rc1-0123456789ab"


@pytest.mark.parametrize("field", GOOD)
def test_every_field_is_needed(tmp_path: Path, field: str) -> None:
    error = refusal(tmp_path, {name: value for name, value in GOOD.items() if name != field})
    assert list(error.evidence["fields"]) == [field]
    assert f"{field}: Field required" in error.detail


@pytest.mark.parametrize("field", GOOD)
@pytest.mark.parametrize("value", [None, 11, 11.7, True, ["x"], {}, ""])
def test_a_field_of_another_type_or_empty_is_named(
    tmp_path: Path, field: str, value: object
) -> None:
    assert list(refusal(tmp_path, GOOD | {field: value}).evidence["fields"]) == [field]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sha256", "0" * 63),
        ("sha256", "0" * 64 + "\n"),
        ("sha256", "g" * 64),
        ("version", ".."),
        ("version", "../11"),
        ("version", ".hidden"),
        ("version", "11/7"),
        ("version", "11.7\n"),
        ("version", "1" * 65),
        ("tarball_url", "server.tar.gz"),
        ("tarball_url", "/data/server.tar.gz"),
        ("tarball_url", "file:///data/server.tar.gz"),
        ("tarball_url", "hf://org/repo/server.tar.gz"),
        ("tarball_url", "ftp://example.org/server.tar.gz"),
        ("tarball_url", "http://example.org/server.tar.gz"),
        ("tarball_url", "https://user:secret@example.org/server.tar.gz"),
        ("tarball_url", "https://example.org/"),
        ("tarball_url", "https://"),
        ("tarball_url", "https://127.0.0.1/server.tar.gz"),
        ("tarball_url", "https://localhost/server.tar.gz"),
        ("tarball_url", "https://169.254.169.254/server.tar.gz"),
    ],
)
def test_what_is_no_version_digest_or_allowed_url_is_refused_by_its_field(
    tmp_path: Path, field: str, value: str
) -> None:
    error = refusal(tmp_path, GOOD | {field: value})
    assert list(error.evidence["fields"]) == [field]
    assert "secret" not in error.detail


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    error = refusal(tmp_path, {"version": 11, "tarball_url": "http://127.0.0.1/x", "size": 7})
    assert set(error.evidence["fields"]) == {"version", "sha256", "tarball_url", "size"}


def test_hosts_are_those_that_pulls_may_ask(tmp_path: Path) -> None:
    error = refusal(tmp_path, GOOD, pull_hosts=("mirror.example",))
    assert "HAL0_PULL_HOSTS" in error.evidence["fields"]["tarball_url"]


def test_without_tls_only_a_private_host_that_is_named_is_asked(tmp_path: Path) -> None:
    mirror = GOOD | {"tarball_url": "http://mirror.lan/server.tar.gz"}
    assert "HAL0_PULL_PRIVATE_HOSTS" in refusal(tmp_path, mirror).detail
    assert read(tmp_path, mirror, pull_private_hosts=("mirror.lan",)).version == GOOD["version"]


@pytest.mark.parametrize("content", ["", "{", "[]", '"11.7"', "null", "\x00", " " * MAX_BYTES])
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: str) -> None:
    assert list(refusal(tmp_path, content).evidence["fields"]) == ["*"]


def test_a_file_that_is_too_long_is_not_read_to_its_end(tmp_path: Path) -> None:
    error = refusal(tmp_path, json.dumps(GOOD) + " " * MAX_BYTES)
    assert str(MAX_BYTES) in error.detail


def test_what_cannot_be_read_is_refused_and_a_fifo_waited_for_by_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("missing", "fifo", "."):
        with pytest.raises(BadPin, match="cannot be read"):
            Pin.read(tmp_path / name, Settings(home=tmp_path / "home"))
