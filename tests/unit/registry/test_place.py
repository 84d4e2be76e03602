"""How a local file comes into the models folder, and what is left when that is interrupted."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hal0.errors import (
    CopyNotAllowed,
    DiskFull,
    FetchedMismatch,
    InvalidRequest,
    PullError,
    SourceChanged,
    SourceNotFound,
)
from hal0.registry.checksum import Interrupted
from hal0.registry.names import final_paths
from hal0.registry.part import Watcher
from hal0.registry.place import is_in_place, place

MIB = 2**20
OTHER_DISK = Path("/dev/shm")


class Stops:
    """Says "stop" when it was asked `after` times before."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


class Fetches:
    """Counts how often a copy was begun, and what was there at that moment."""

    def __init__(self, target: Path) -> None:
        self.part = target.with_name(f"{target.name}.part")
        self.count = 0

    def __call__(self) -> None:
        assert not self.part.exists() or self.count == 0
        self.count += 1


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "m" / "model.gguf"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file on the disk of the models folder."""
    path = tmp_path / "downloads" / "model.gguf"
    path.parent.mkdir()
    path.write_bytes(os.urandom(3 * MIB + 7))
    return path


@pytest.fixture
def far_source(tmp_path: Path) -> Iterator[Path]:
    """A file on another disk."""
    if not OTHER_DISK.is_dir() or OTHER_DISK.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip(f"{OTHER_DISK} is not a disk apart from {tmp_path}: nothing to copy across")
    folder = Path(tempfile.mkdtemp(prefix="hal0-test-", dir=OTHER_DISK))
    path = folder / "model.gguf"
    path.write_bytes(os.urandom(3 * MIB + 7))
    yield path
    shutil.rmtree(folder)


def bring(
    source: Path,
    target: Path,
    *,
    allow_copy: bool = True,
    sha256: str | None = None,
    **watcher: Any,
) -> str:
    return place(source, target, Watcher(**watcher), allow_copy=allow_copy, sha256=sha256).how


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_of_the_same_disk_is_linked_without_a_fetch(source: Path, target: Path) -> None:
    fetches = Fetches(target)
    assert not is_in_place(source, target)
    assert bring(source, target, allow_copy=False, on_fetch=fetches) == "linked"
    assert target.samefile(source)
    assert is_in_place(source, target)
    assert bring(source, target, allow_copy=False, on_fetch=fetches) == "there"
    assert fetches.count == 0
    assert names_in(target.parent) == {"model.gguf"}
    assert target.parent.stat().st_mode & 0o777 == 0o755 & ~_umask()


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


@pytest.mark.parametrize("forbids", [False, True])
def test_a_link_that_was_made_for_nothing_does_not_stay(
    source: Path, target: Path, forbids: bool
) -> None:
    """It would keep the bytes of a file that was deleted."""

    def on_name(*_: object) -> None:
        if forbids:
            raise PullError("not yours any more")

    bring(source, target)
    if forbids:
        target.unlink()
        with pytest.raises(PullError):
            bring(source, target, on_name=on_name)
    else:
        assert place(source, target, Watcher(), allow_copy=False, again=True).how == "linked"
    assert names_in(target.parent) == (set() if forbids else {"model.gguf"})
    assert source.stat().st_nlink == (1 if forbids else 2)


def test_another_file_at_the_target_is_replaced_whole(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.write_bytes(b"old")
    with target.open("rb") as reader:
        assert bring(source, target) == "linked"
        assert reader.read() == b"old"
    assert target.samefile(source)


def test_what_a_dead_process_left_over_is_cleared_away(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.with_name(".model.gguf.link").write_bytes(b"half")
    assert bring(source, target) == "linked"
    assert names_in(target.parent) == {"model.gguf"}


def test_a_source_that_is_gone_does_not_matter_while_the_target_is_there(
    source: Path, target: Path
) -> None:
    bring(source, target)
    source.unlink()
    assert is_in_place(source, target)
    assert bring(source, target) == "there"


def test_neither_source_nor_target_is_source_not_found(source: Path, target: Path) -> None:
    source.unlink()
    assert not is_in_place(source, target)
    with pytest.raises(SourceNotFound, match="No such file"):
        bring(source, target)


def test_a_source_that_is_no_regular_file_is_not_found(source: Path, target: Path) -> None:
    source.unlink()
    os.mkfifo(source)
    with pytest.raises(SourceNotFound, match="is a FIFO, not a regular file"):
        bring(source, target)


def test_a_file_of_another_disk_is_not_copied_unasked(far_source: Path, target: Path) -> None:
    fetches = Fetches(target)
    with pytest.raises(CopyNotAllowed) as caught:
        bring(far_source, target, allow_copy=False, on_fetch=fetches)
    assert caught.value.evidence["size_bytes"] == far_source.stat().st_size
    assert names_in(target.parent) == set()
    assert fetches.count == 0


def test_a_file_of_another_disk_is_copied_once(far_source: Path, target: Path) -> None:
    fetches, seen = Fetches(target), []
    size = far_source.stat().st_size
    for expected in ("copied", "there"):
        found = bring(
            far_source,
            target,
            on_fetch=fetches,
            on_progress=lambda *at: seen.append(at),
        )
        assert found == expected
    assert fetches.count == 1
    assert seen == [("fetch", min(n * MIB, size), size) for n in range(1, 5)]
    assert target.read_bytes() == far_source.read_bytes()
    assert target.stat().st_mtime_ns == far_source.stat().st_mtime_ns
    assert names_in(target.parent) == {"model.gguf"}
    assert is_in_place(far_source, target)


def test_a_copy_is_made_again_when_the_source_is_another(far_source: Path, target: Path) -> None:
    bring(far_source, target)
    far_source.write_bytes(os.urandom(MIB))
    assert not is_in_place(far_source, target)
    assert bring(far_source, target) == "copied"
    assert target.read_bytes() == far_source.read_bytes()


def test_an_empty_file_is_copied_too(far_source: Path, target: Path) -> None:
    far_source.write_bytes(b"")
    assert bring(far_source, target) == "copied"
    assert target.read_bytes() == b""


def test_a_stopped_copy_keeps_its_part_and_the_next_one_goes_on_behind_it(
    far_source: Path, target: Path
) -> None:
    seen: list[tuple[object, ...]] = []
    with pytest.raises(Interrupted):
        bring(far_source, target, should_stop=Stops(after=1))
    assert names_in(target.parent) == {"model.gguf.part", "model.gguf.part.json"}
    assert target.with_name("model.gguf.part").stat().st_size == MIB
    size, digest = far_source.stat().st_size, hashlib.sha256(far_source.read_bytes()).hexdigest()
    assert bring(far_source, target, sha256=digest, on_progress=lambda *at: seen.append(at)) == (
        "copied"
    )
    assert seen[:2] == [("rehash", MIB, size), ("fetch", 2 * MIB, size)]
    assert target.read_bytes() == far_source.read_bytes()
    assert names_in(target.parent) == {"model.gguf"}


def test_a_part_of_what_the_source_was_before_is_thrown_away(
    far_source: Path, target: Path
) -> None:
    with pytest.raises(Interrupted):
        bring(far_source, target, should_stop=Stops(after=1))
    far_source.write_bytes(os.urandom(3 * MIB))
    seen: list[tuple[object, ...]] = []
    assert bring(far_source, target, on_progress=lambda *at: seen.append(at)) == "copied"
    assert seen[0] == ("fetch", MIB, 3 * MIB)
    assert target.read_bytes() == far_source.read_bytes()


def test_after_a_power_cut_only_synced_bytes_of_a_part_are_believed(
    far_source: Path, target: Path
) -> None:
    with pytest.raises(Interrupted):
        bring(far_source, target, should_stop=Stops(after=2))
    note = target.with_name("model.gguf.part.json")
    facts = json.loads(note.read_text())
    assert facts["synced_bytes"] == 0
    note.write_text(json.dumps({**facts, "boot_id": "another", "synced_bytes": MIB // 2}))
    seen: list[tuple[object, ...]] = []
    assert bring(far_source, target, on_progress=lambda *at: seen.append(at)) == "copied"
    assert seen[0] == ("rehash", MIB // 2, far_source.stat().st_size)
    assert target.read_bytes() == far_source.read_bytes()


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"source": 1}', "\0"])
def test_a_part_of_which_nobody_can_say_what_it_is_is_thrown_away(
    far_source: Path, target: Path, note: str
) -> None:
    target.parent.mkdir(parents=True)
    target.with_name("model.gguf.part").write_bytes(b"something")
    target.with_name("model.gguf.part.json").write_text(note)
    assert bring(far_source, target) == "copied"
    assert target.read_bytes() == far_source.read_bytes()


def test_a_copy_of_a_wrong_digest_is_set_aside_and_never_gets_the_name(
    far_source: Path, target: Path
) -> None:
    with pytest.raises(FetchedMismatch) as caught:
        bring(far_source, target, sha256="ab" * 32)
    assert caught.value.evidence["kept_as"] == str(target.with_name("model.gguf.bad"))
    assert names_in(target.parent) == {"model.gguf.bad"}
    assert target.with_name("model.gguf.bad").read_bytes() == far_source.read_bytes()


def test_a_source_that_changes_while_it_is_copied_is_not_placed(
    far_source: Path, target: Path
) -> None:
    def write() -> bool:
        with far_source.open("ab") as out:
            out.write(b"more")
        return False

    with pytest.raises(SourceChanged) as caught:
        bring(far_source, target, should_stop=write)
    assert caught.value.evidence["expected"] != caught.value.evidence["found"]
    assert names_in(target.parent) == set()


def test_a_source_that_shrinks_while_it_is_copied_is_not_placed(
    far_source: Path, target: Path
) -> None:
    def cut() -> bool:
        os.truncate(far_source, MIB)
        return False

    with pytest.raises(SourceChanged):
        bring(far_source, target, should_stop=cut)
    assert names_in(target.parent) == set()


def test_a_disk_without_room_is_full_before_anything_is_fetched(
    far_source: Path, target: Path
) -> None:
    os.truncate(far_source, 2**60)  # sparse
    fetches = Fetches(target)
    with pytest.raises(DiskFull) as caught:
        bring(far_source, target, on_fetch=fetches)
    assert caught.value.evidence["needed_bytes"] == 2**60
    assert 0 < caught.value.evidence["available_bytes"] < 2**60
    assert fetches.count == 0


@pytest.mark.parametrize(
    ("point", "left"),
    [
        ("pull.linked", {"model.gguf"}),
        ("pull.fetching", {"model.gguf.part", "model.gguf.part.json"}),
        ("pull.whole", {"model.gguf.part", "model.gguf.part.json"}),
        ("pull.fetched", {"model.gguf"}),
    ],
)
def test_a_file_under_its_final_name_is_whole_whenever_the_process_dies(
    point: str, left: set[str], request: pytest.FixtureRequest, target: Path
) -> None:
    fixture = "source" if point == "pull.linked" else "far_source"
    source: Path = request.getfixturevalue(fixture)
    program = (
        "import sys, pathlib\n"
        "from hal0 import points\n"
        "from hal0.registry.part import Watcher\n"
        "from hal0.registry.place import place\n"
        "points.arm(sys.argv[1] + ':kill')\n"
        "place(*map(pathlib.Path, sys.argv[2:]), Watcher(), allow_copy=True)\n"
    )
    dead = subprocess.run(
        [sys.executable, "-c", program, point, str(source), str(target)],
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
        timeout=60,
    )
    assert dead.returncode == -9
    assert names_in(target.parent) == left
    is_whole = point in {"pull.linked", "pull.fetched"}
    assert bring(source, target) == ("there" if is_whole else "copied")
    assert target.read_bytes() == source.read_bytes()
    assert names_in(target.parent) == {"model.gguf"}


def test_one_file_lies_in_the_models_folder_under_the_models_name(tmp_path: Path) -> None:
    named = {"a.gguf": "m.gguf", "a": "m.gguf", "": "m.gguf", "b.bin": "m.bin", "A.GGUF": "m.gguf"}
    for source, name in named.items():
        assert final_paths(tmp_path, "m", [source]) == (tmp_path / name,)


def test_several_files_lie_in_a_folder_of_their_own_under_their_names(tmp_path: Path) -> None:
    names = ["a-00001-of-00002.gguf", "a-00002-of-00002.gguf"]
    assert final_paths(tmp_path, "m", names) == tuple(tmp_path / "m" / name for name in names)


@pytest.mark.parametrize(
    "names", [["x.part"], ["x.bad"], ["a.gguf", "a.gguf.part.json"], ["a.gguf", ".a.gguf.link"]]
)
def test_a_name_that_files_on_their_way_have_is_refused(names: list[str], tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="on their way"):
        final_paths(tmp_path, "m", names)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="same name"):
        final_paths(tmp_path, "m", ["a.gguf", "a.gguf"])
