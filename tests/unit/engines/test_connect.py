"""Which adapter serves which kind."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import pytest

from hal0.engines.connect import KINDS, connect, read_key
from hal0.engines.lemonade import LemonadeEngine
from hal0.engines.llamacpp import LlamaCppEngine
from hal0.errors import EngineError, EngineUnauthorized, SettingsError


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_an_adapter(kind: str) -> None:
    adapter = LlamaCppEngine if kind == "llamacpp" else LemonadeEngine
    assert isinstance(connect(kind, "http://127.0.0.1:1"), adapter)


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="embedded, lemonade, llamacpp"):
        connect("ollama", "http://127.0.0.1:1")


def test_the_key_is_the_line_in_the_file(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("k1\n")
    assert read_key(key_file) == "k1"
    key_file.write_text("\n")
    assert read_key(key_file) is None
    assert read_key(None) is None


def test_a_key_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineUnauthorized, match="missing"):
        connect("lemonade", "http://127.0.0.1:1", tmp_path / "missing")


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
async def test_a_key_that_was_changed_is_sent_from_then_on(kind: str, tmp_path: Path) -> None:
    """By an editor, or put in its place with the same size and times; no restart is needed."""
    key_file, sent = tmp_path / "key", []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        sent.append(request.partition(b"Bearer ")[2].partition(b"\r\n")[0])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        writer.close()

    key_file.write_text("k1\n")
    async with await asyncio.start_server(talk, "127.0.0.1") as server:
        engine = connect(kind, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", key_file)
        for key in ("k1", "k2", "another"):
            key_file.write_text(key)
            os.utime(key_file, ns=(0, 0))
            with suppress(EngineError):
                await engine.resolve("ga")
            assert sent[-1] == key.encode()
        key_file.unlink()
        asked = len(sent)
        with pytest.raises(EngineUnauthorized, match="cannot be read"):
            await engine.resolve("ga")
        assert len(sent) == asked, "nothing goes out without it"
        await engine.close()


@pytest.mark.parametrize(
    "content",
    [
        b"-----BEGIN KEY-----\nsecret\n-----END KEY-----\n",
        b"PATH=/bin\0secret\0",
        "s\u00e9cret".encode(),
        b"secret" * 1000,
        b"a\rsecret",
    ],
)
def test_what_is_no_key_is_neither_sent_nor_shown(tmp_path: Path, content: bytes) -> None:
    """A writer may name any file of this machine."""
    key_file = tmp_path / "key"
    key_file.write_bytes(content)
    with pytest.raises(EngineUnauthorized, match="holds no key") as caught:
        connect("lemonade", "http://127.0.0.1:1", key_file)
    told = f"{caught.value.as_row()} {caught.value.__cause__!r}"
    assert "cret" not in told
    assert "0x" not in told


@pytest.mark.timeout(20)
def test_a_key_file_that_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/zero"), Path("/dev/tty")):
        with pytest.raises(EngineUnauthorized, match=r"a FIFO|a folder|a character device"):
            read_key(path)


def test_a_mounted_secret_which_is_a_link_is_followed(tmp_path: Path) -> None:
    """As Kubernetes mounts them, so that all of them change at once."""
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "key").write_text("k1\n")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "key").symlink_to("..data/key")
    assert read_key(tmp_path / "key") == "k1"
