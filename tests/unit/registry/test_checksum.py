"""What hashing an open file promises: the right digest, progress, and a stop when told to."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hal0.registry.checksum import CHUNK_BYTES, PROGRESS_BYTES, Interrupted, sha256


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sparse file of 40 MiB and a bit."""
    path = tmp_path / "model.gguf"
    with path.open("wb") as file:
        file.write(os.urandom(3 * CHUNK_BYTES + 17))
        file.truncate(40 * 2**20 + 5)
    return path


@pytest.fixture
def fd(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_the_digest_is_that_of_the_whole_file_wherever_the_descriptor_stands(
    path: Path, fd: int
) -> None:
    os.lseek(fd, 4711, os.SEEK_SET)
    assert sha256(fd) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert os.lseek(fd, 0, os.SEEK_CUR) == 4711


def test_an_empty_file_has_the_digest_of_nothing(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    with empty.open("rb") as file:
        assert sha256(file.fileno()) == hashlib.sha256().hexdigest()


def test_progress_comes_seldom_and_ends_with_all_bytes(path: Path, fd: int) -> None:
    seen: list[int] = []
    sha256(fd, on_progress=seen.append)
    assert seen == [PROGRESS_BYTES, 2 * PROGRESS_BYTES, path.stat().st_size]


def test_a_stop_takes_effect_within_one_chunk(fd: int) -> None:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    with pytest.raises(Interrupted):
        sha256(fd, should_stop=should_stop)
    assert asked == 4


def test_a_file_that_grows_has_an_end(path: Path, fd: int) -> None:
    size = path.stat().st_size
    expected = hashlib.sha256(path.read_bytes()).hexdigest()

    def append() -> bool:
        with path.open("ab") as file:
            file.write(bytes(2 * CHUNK_BYTES))
        return False

    assert sha256(fd, should_stop=append, limit_bytes=size) == expected
