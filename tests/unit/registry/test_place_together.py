"""Two pulls that copy to one place at the same time: one writes, the other waits."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from hal0.registry.checksum import Interrupted
from hal0.registry.part import Watcher
from hal0.registry.place import Placed, place

OTHER_DISK = Path("/dev/shm")
LIMIT_S = 10.0


class Writer:
    """A copy that stops after its first chunk until it may go on."""

    def __init__(self) -> None:
        self.is_writing = threading.Event()
        self.may_go_on = threading.Event()

    def should_stop(self) -> bool:
        self.is_writing.set()
        assert self.may_go_on.wait(LIMIT_S)
        return False


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Path]:
    """A file on another disk than the target's."""
    if not OTHER_DISK.is_dir() or OTHER_DISK.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip(f"{OTHER_DISK} is not a disk apart from {tmp_path}: nothing to copy across")
    folder = Path(tempfile.mkdtemp(prefix="hal0-test-", dir=OTHER_DISK))
    path = folder / "model.gguf"
    path.write_bytes(os.urandom(3 * 2**20 + 7))
    yield path
    shutil.rmtree(folder)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "model.gguf"


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def _begin(pool: ThreadPoolExecutor, source: Path, target: Path) -> tuple[Writer, "Future[Placed]"]:
    """Begin a copy; it is in the middle of writing when this returns."""
    writer = Writer()
    future = pool.submit(
        lambda: place(source, target, Watcher(should_stop=writer.should_stop), allow_copy=True)
    )
    assert writer.is_writing.wait(LIMIT_S)
    return writer, future


def test_who_waited_for_another_copy_finds_the_file_there(
    pool: ThreadPoolExecutor, source: Path, target: Path
) -> None:
    """A pull that was superseded writes on until it notices."""
    writer, first = _begin(pool, source, target)
    is_fetching = threading.Event()
    second = pool.submit(
        lambda: place(source, target, Watcher(on_fetch=is_fetching.set), allow_copy=True)
    )
    assert is_fetching.wait(LIMIT_S)
    with pytest.raises(TimeoutError):
        second.result(0.3)
    writer.may_go_on.set()
    ends = [future.result(LIMIT_S).how for future in (first, second)]
    assert ends == ["copied", "there"]
    assert target.read_bytes() == source.read_bytes()
    assert [path.name for path in target.parent.iterdir()] == ["model.gguf"]


def test_a_copy_that_waits_for_another_can_be_told_to_stop(
    pool: ThreadPoolExecutor, source: Path, target: Path
) -> None:
    writer, first = _begin(pool, source, target)
    with pytest.raises(Interrupted):
        place(source, target, Watcher(should_stop=lambda: True), allow_copy=True)
    writer.may_go_on.set()
    assert first.result(LIMIT_S).how == "copied"
    assert target.read_bytes() == source.read_bytes()
