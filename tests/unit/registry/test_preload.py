"""Which files are fit to load, what is read to know it, and what an error names."""

import hashlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import freezegun
import pytest

from hal0.errors import (
    ChecksumMismatch,
    FileChanged,
    FileNotFound,
    FileUnreadable,
    NotAGguf,
    PreloadError,
    SizeMismatch,
    Truncated,
)
from hal0.registry.checksum import Interrupted
from hal0.registry.preload import (
    SETTLED_S,
    CheckedFile,
    FileIdentity,
    ModelFile,
    Progress,
    Verdict,
    ensure_unchanged,
    validate_files,
)
from tests.tiny_gguf import write_tiny_gguf, write_tiny_shards

NOBODY = 65534


class KeptVerdicts:
    """Verdicts in a dictionary, as a database would keep them."""

    def __init__(self) -> None:
        self.kept: dict[tuple[FileIdentity, str | None, str], Verdict] = {}

    def recall(
        self, identity: FileIdentity, expected_sha256: str | None, model_format: str
    ) -> Verdict | None:
        return self.kept.get((identity, expected_sha256, model_format))

    def remember(self, verdict: Verdict, model_format: str) -> None:
        self.kept[verdict.identity, verdict.expected_sha256, model_format] = verdict


@pytest.fixture
def verdicts() -> KeptVerdicts:
    return KeptVerdicts()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "good.gguf")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def registered(path: Path, role: str = "model", **unlike: Any) -> ModelFile:
    """Describe a file as it lies there, except for what is given."""
    known: dict[str, Any] = {"size_bytes": None, "sha256": None}
    if path.is_file():
        known = {"size_bytes": path.stat().st_size, "sha256": digest(path)}
    return ModelFile(role, path, **(known | unlike))


def validate(
    verdicts: KeptVerdicts, *files: ModelFile, as_format: str = "gguf", **options: Any
) -> list[CheckedFile]:
    return validate_files(files, format=as_format, verdicts=verdicts, **options)


def bytes_read_by(act: Callable[[], object]) -> int:
    """Return how many bytes this thread reads, as the kernel counts them, in `act`."""
    counter = Path("/proc/thread-self/io")
    if not counter.exists():
        pytest.skip("this kernel does not count the bytes that a thread reads")

    def counted(then: Callable[[], object]) -> int:
        before = int(counter.read_text().split()[1])
        then()
        return int(counter.read_text().split()[1]) - before

    counted(act)  # imports and caches
    idle = counted(lambda: None)
    return counted(act) - idle


@contextmanager
def as_nobody() -> Iterator[None]:
    """Read without the rights of root, whom no file mode keeps out."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_good_file_passes_every_check(good: Path, verdicts: KeptVerdicts) -> None:
    [checked] = validate(verdicts, registered(good))
    assert checked.sha256 == digest(good)
    assert checked.identity == FileIdentity.from_stat(good.stat())
    assert checked.skipped == ()
    assert not checked.is_remembered


def test_a_check_that_cannot_be_made_is_named(good: Path, verdicts: KeptVerdicts) -> None:
    unknown = registered(good, size_bytes=None, sha256=None)
    assert validate(verdicts, unknown)[0].skipped == ("size", "checksum")
    assert validate(verdicts, registered(good), as_format="safetensors")[0].skipped == ("header",)
    assert verdicts.kept[FileIdentity.from_stat(good.stat()), None, "gguf"].sha256 is None


def test_an_unknown_tensor_type_is_named_also_when_remembered(
    tmp_path: Path, verdicts: KeptVerdicts
) -> None:
    path = tmp_path / "new.gguf"
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)
    head += struct.pack("<Q1sIQIQ", 1, b"t", 1, 256, 4711, 0)
    path.write_bytes(head + bytes(-len(head) % 32 + 64))
    for is_remembered in (False, True):
        [checked] = validate(verdicts, registered(path))
        assert (checked.skipped, checked.is_remembered) == (("extent",), is_remembered)


def test_another_format_has_no_header_to_check(tmp_path: Path, verdicts: KeptVerdicts) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"anything")
    assert validate(verdicts, registered(path), as_format="safetensors")
    with pytest.raises(NotAGguf):
        validate(verdicts, registered(path))


def make_folder(path: Path) -> None:
    path.mkdir()


def make_broken_link(path: Path) -> None:
    path.symlink_to("nowhere")


def make_circle(path: Path) -> None:
    path.symlink_to(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))


def make_link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: None, "no such file"),
        (make_folder, "a folder"),
        (os.mkfifo, "a FIFO"),
        (make_socket, "a socket"),
        (make_link_to_device, "it is a link to /dev/zero"),
        (make_broken_link, "it is a link to nowhere"),
        (make_circle, "it is a link to .*model.gguf"),
    ],
)
def test_what_is_no_regular_file_is_not_found_and_does_not_hang(
    make: Callable[[Path], object],
    what: str,
    tmp_path: Path,
    verdicts: KeptVerdicts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path has 107 bytes at most
    path = tmp_path / "model.gguf"
    make(path)
    with pytest.raises(FileNotFound, match=what) as caught:
        validate(verdicts, ModelFile("model", path, 1, None))
    assert caught.value.evidence["path"] == str(path)
    assert caught.value.evidence["role"] == "model"


def test_several_files_lie_in_a_folder_that_is_no_link(
    tmp_path: Path, verdicts: KeptVerdicts
) -> None:
    files = [registered(path) for path in write_tiny_shards(tmp_path / "outside", "w")]
    assert len(validate(verdicts, *files)) == 3
    (tmp_path / "model").symlink_to(tmp_path / "outside")
    linked = [replace(file, path=tmp_path / "model" / file.path.name) for file in files]
    with pytest.raises(FileNotFound, match=r"its folder .*model is a link to"):
        validate(verdicts, *linked)


def test_a_file_below_a_file_is_not_found(good: Path, verdicts: KeptVerdicts) -> None:
    with pytest.raises(FileNotFound, match="a folder on the way is a file"):
        validate(verdicts, ModelFile("model", good / "model.gguf", None, None))


def test_a_model_without_files_is_not_found(verdicts: KeptVerdicts) -> None:
    with pytest.raises(FileNotFound):
        validate(verdicts)


def test_a_file_that_we_may_not_read_is_unreadable(good: Path, verdicts: KeptVerdicts) -> None:
    file = registered(good)
    good.chmod(0)
    with as_nobody(), pytest.raises(FileUnreadable, match="Permission denied"):
        validate(verdicts, file)


@pytest.mark.parametrize("more", [-1, 1])
def test_one_byte_more_or_less_is_a_size_mismatch(
    more: int, good: Path, verdicts: KeptVerdicts
) -> None:
    size = good.stat().st_size
    with pytest.raises(SizeMismatch) as caught:
        validate(verdicts, registered(good, size_bytes=size + more))
    assert (caught.value.evidence["expected"], caught.value.evidence["found"]) == (
        size + more,
        size,
    )


@pytest.mark.parametrize("broken", ["magic", "version", "empty"])
def test_a_wrong_magic_or_version_is_no_gguf_although_size_and_sha256_are_right(
    broken: Any, tmp_path: Path, verdicts: KeptVerdicts
) -> None:
    path = write_tiny_gguf(tmp_path / "bad.gguf", broken=broken)
    with pytest.raises(NotAGguf):
        validate(verdicts, registered(path))


def test_tensors_beyond_the_end_are_truncated_where_no_sha256_is_known(
    tmp_path: Path, verdicts: KeptVerdicts
) -> None:
    path = write_tiny_gguf(tmp_path / "bad.gguf", broken="truncate")
    with pytest.raises(Truncated) as caught:
        validate(verdicts, registered(path, size_bytes=None, sha256=None))
    assert caught.value.evidence["found"] == path.stat().st_size


def test_a_file_without_tensors_is_refused(tmp_path: Path, verdicts: KeptVerdicts) -> None:
    path = tmp_path / "vocabulary.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    with pytest.raises(NotAGguf, match="no tensors"):
        validate(verdicts, registered(path))


def test_a_flipped_last_byte_is_a_checksum_mismatch(good: Path, verdicts: KeptVerdicts) -> None:
    file = registered(good)
    with good.open("r+b") as out:
        out.seek(-1, os.SEEK_END)
        out.write(b"\xff")
    with pytest.raises(ChecksumMismatch) as caught:
        validate(verdicts, file)
    assert caught.value.evidence == {
        "path": str(good),
        "role": "model",
        "expected": file.sha256,
        "found": digest(good),
    }


def test_a_registered_digest_may_be_in_capitals(good: Path, verdicts: KeptVerdicts) -> None:
    assert validate(verdicts, registered(good, sha256=digest(good).upper()))


def test_the_cheapest_failure_of_all_files_wins(tmp_path: Path, verdicts: KeptVerdicts) -> None:
    checksum = registered(write_tiny_gguf(tmp_path / "a.gguf"), sha256="0" * 64)
    magic = registered(write_tiny_gguf(tmp_path / "b.gguf", broken="magic"))
    size = registered(write_tiny_gguf(tmp_path / "c.gguf"), size_bytes=1)
    missing = registered(tmp_path / "d.gguf", role="mmproj")
    files = [checksum, magic, size, missing]
    for error in (FileNotFound, SizeMismatch, NotAGguf, ChecksumMismatch):
        with pytest.raises(error) as caught:
            validate(verdicts, *files)
        assert caught.value.evidence["path"] == str(files[-1].path)
        files.pop()


def test_a_corrupt_file_among_shards_and_an_mmproj_is_named(
    tmp_path: Path, verdicts: KeptVerdicts
) -> None:
    shards = [registered(path, role="shard") for path in write_tiny_shards(tmp_path, "m", count=3)]
    mmproj = registered(write_tiny_gguf(tmp_path / "mmproj.gguf"), role="mmproj")
    assert len(validate(verdicts, *shards, mmproj)) == 4
    for bad in (shards[1], mmproj):
        data = bad.path.read_bytes()
        bad.path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(ChecksumMismatch, match=f"{bad.role} file .*{bad.path.name}"):
            validate(verdicts, *shards, mmproj)
        bad.path.write_bytes(data)


@pytest.mark.parametrize("is_remembered", [False, True])
def test_a_missing_shard_is_truncated_and_named(
    is_remembered: bool, tmp_path: Path, verdicts: KeptVerdicts
) -> None:
    shards = [registered(path) for path in write_tiny_shards(tmp_path, "m", count=3)]
    if is_remembered:
        validate(verdicts, *shards)
    with pytest.raises(Truncated, match="2 missing") as caught:
        validate(verdicts, shards[0], shards[2])
    assert caught.value.evidence["missing"] == [2]
    assert validate(verdicts, *shards)


def test_a_shard_given_twice_is_refused(tmp_path: Path, verdicts: KeptVerdicts) -> None:
    shards = [registered(path) for path in write_tiny_shards(tmp_path, "m", count=2)]
    with pytest.raises(Truncated, match="given twice"):
        validate(verdicts, *shards, shards[1])


def test_shards_of_two_models_are_refused(tmp_path: Path, verdicts: KeptVerdicts) -> None:
    three = write_tiny_shards(tmp_path, "m", count=2)
    lone = b"GGUF" + struct.pack("<IQQ", 3, 0, 2)
    for name, value in (("split.no", 1), ("split.count", 2)):
        lone += struct.pack("<Q", len(name)) + name.encode() + struct.pack("<IH", 2, value)
    three[1].write_bytes(lone)
    with pytest.raises(Truncated, match="all shards together"):
        validate(verdicts, *map(registered, three))


def test_an_unchanged_file_is_not_read_again(tmp_path: Path, verdicts: KeptVerdicts) -> None:
    file = registered(write_tiny_gguf(tmp_path / "m.gguf", pad_bytes=4 * 2**20))
    assert bytes_read_by(lambda: validate(KeptVerdicts(), file)) >= file.path.stat().st_size
    assert not validate(verdicts, file)[0].is_remembered
    assert bytes_read_by(lambda: validate(verdicts, file)) == 0
    [checked] = validate(verdicts, file)
    assert checked.is_remembered
    assert checked.sha256 == file.sha256
    assert validate(verdicts, file, rehash=True)[0].is_remembered is False


def test_a_file_that_was_bad_is_refused_again_without_reading(
    tmp_path: Path, verdicts: KeptVerdicts
) -> None:
    before = registered(write_tiny_gguf(tmp_path / "before.gguf", pad_bytes=2**20))
    broken = registered(write_tiny_gguf(tmp_path / "bad.gguf", pad_bytes=2**20), sha256="0" * 64)
    seen: list[PreloadError] = []

    def refuse() -> None:
        with pytest.raises(ChecksumMismatch) as caught:
            validate(verdicts, before, broken)
        seen.append(caught.value)

    refuse()
    verdicts.kept = {key: kept for key, kept in verdicts.kept.items() if kept.code is not None}
    assert bytes_read_by(refuse) == 0
    assert {str(error) for error in seen} == {str(seen[0])}
    assert all(error.evidence == seen[0].evidence for error in seen)


def test_another_expected_digest_is_another_verdict(good: Path, verdicts: KeptVerdicts) -> None:
    validate(verdicts, registered(good))
    with pytest.raises(ChecksumMismatch):
        validate(verdicts, registered(good, sha256="0" * 64))
    assert validate(verdicts, registered(good))[0].is_remembered


def test_a_write_that_hides_behind_its_mtime_is_found(good: Path, verdicts: KeptVerdicts) -> None:
    file = registered(good)
    validate(verdicts, file)
    status = good.stat()
    with good.open("r+b") as out:
        out.seek(-1, os.SEEK_END)
        out.write(b"\xff")
    os.utime(good, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ChecksumMismatch):
        validate(verdicts, file)


def test_a_file_changed_while_it_is_read_is_refused_and_not_remembered(
    tmp_path: Path, verdicts: KeptVerdicts
) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", pad_bytes=4 * 2**20)

    def write(progress: Progress) -> None:
        with path.open("ab") as out:
            out.write(b"more")

    with pytest.raises(FileChanged) as caught:
        validate(verdicts, registered(path), on_progress=write)
    assert caught.value.evidence["expected"] != caught.value.evidence["found"]
    assert verdicts.kept == {}


@pytest.mark.parametrize(("age_s", "is_kept"), [(SETTLED_S / 2, False), (SETTLED_S * 2, True)])
def test_only_a_file_that_is_older_than_the_clocks_tick_is_remembered(
    age_s: float, is_kept: bool, good: Path, verdicts: KeptVerdicts
) -> None:
    written = datetime.fromtimestamp(good.stat().st_ctime_ns / 1e9, UTC)
    with freezegun.freeze_time(written + timedelta(seconds=age_s)):
        assert validate(verdicts, registered(good))
        assert validate(verdicts, registered(good))[0].is_remembered is is_kept


def test_a_file_brought_a_moment_ago_is_remembered_all_the_same(
    tmp_path: Path, verdicts: KeptVerdicts
) -> None:
    file = registered(write_tiny_gguf(tmp_path / "new.gguf"))
    file.path.touch()
    validate(verdicts, file)
    assert validate(verdicts, file)[0].is_remembered


def test_progress_counts_over_all_files_that_are_hashed(
    tmp_path: Path, verdicts: KeptVerdicts
) -> None:
    one = registered(write_tiny_gguf(tmp_path / "1.gguf", pad_bytes=20 * 2**20))
    two = registered(write_tiny_gguf(tmp_path / "2.gguf"), role="mmproj")
    three = registered(write_tiny_gguf(tmp_path / "3.gguf"))
    validate(verdicts, three)
    seen: list[Progress] = []
    validate(verdicts, one, two, three, on_progress=seen.append)
    assert one.size_bytes is not None
    assert two.size_bytes is not None
    assert {step.total_bytes for step in seen} == {one.size_bytes + two.size_bytes}
    done = [step.done_bytes for step in seen]
    assert done == sorted(done)
    assert done[-1] == one.size_bytes + two.size_bytes
    assert {step.role for step in seen} == {"model", "mmproj"}


def test_a_stop_ends_the_hashing_and_remembers_nothing(good: Path, verdicts: KeptVerdicts) -> None:
    with pytest.raises(Interrupted):
        validate(verdicts, registered(good), should_stop=lambda: True)
    assert verdicts.kept == {}


def test_the_last_look_accepts_what_was_validated(good: Path, verdicts: KeptVerdicts) -> None:
    [checked] = validate(verdicts, registered(good))
    ensure_unchanged([(good, checked.identity)])


def test_the_last_look_finds_a_file_replaced_by_an_equal_one(
    good: Path, verdicts: KeptVerdicts
) -> None:
    [checked] = validate(verdicts, registered(good))
    write_tiny_gguf(good.with_name("other")).replace(good)
    with pytest.raises(FileChanged) as caught:
        ensure_unchanged([(good, checked.identity)])
    assert caught.value.evidence["expected"] == checked.identity.as_json()
    assert caught.value.evidence["found"] == FileIdentity.from_stat(good.stat()).as_json()


def test_the_last_look_finds_a_file_that_is_gone(good: Path, verdicts: KeptVerdicts) -> None:
    [checked] = validate(verdicts, registered(good))
    good.unlink()
    with pytest.raises(FileChanged, match="is gone") as caught:
        ensure_unchanged([(good, checked.identity)])
    assert caught.value.evidence["found"] is None


def test_an_identity_comes_back_from_json(good: Path) -> None:
    identity = FileIdentity.from_stat(good.stat())
    assert FileIdentity.from_json(identity.as_json()) == identity
