"""The recorder sees what processes do to files, in the order in which they do it, or says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.power.disk import Disk, Files
from tests.power.recorder import Kind, Record, Recording, build_shim, read_log

ALL_CALLS = """
import os, sys
os.chdir(sys.argv[1])
os.makedirs("deep/er")
folder = os.open("deep", os.O_RDONLY | os.O_DIRECTORY)
with open("plain", "wb") as file:
    file.write(b"1" * 5000)
    file.flush()
    os.fsync(file.fileno())
with open("plain", "ab") as file:
    file.write(b"appended")
with open("cut", "wb") as file:
    file.write(b"2" * 5000)
open("cut", "wb").close()
with open("cut", "r+b") as file:
    file.truncate(10)
    file.seek(4)
    os.writev(file.fileno(), [b"aa", b"", b"bb"])
    copy = os.dup(file.fileno())
    os.pwrite(copy, b"dup", 7)
    os.fdatasync(copy)
at = os.open("er/here", os.O_WRONLY | os.O_CREAT, dir_fd=folder)
os.write(at, b"by a folder's descriptor")
os.rename("er/here", "er/there", src_dir_fd=folder, dst_dir_fd=folder)
os.link("plain", "second")
os.link(f"/proc/self/fd/{at}", "third", dst_dir_fd=folder, follow_symlinks=True)
os.link("plain", "spare")
os.rename("spare", "plain")
os.replace("cut", "deep/moved")
os.unlink("second")
os.mkdir("empty")
os.rmdir("empty")
os.fsync(folder)
"""
TOGETHER = """
import os, sys, threading
def work(name):
    for number in range(200):
        with open(name, "ab", buffering=0) as file:
            file.write(f"{name} {number}".encode())
        with open("shared", "ab", buffering=0) as file:
            file.write(f"{name} {number}".encode())
        if number % 7 == 0:
            os.unlink(name)
os.chdir(sys.argv[1])
threads = [threading.Thread(target=work, args=(sys.argv[2] + str(n),)) for n in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_shim(tmp_path_factory.mktemp("recorder"))


def begin(tmp_path: Path, recorder: Path, swallowed: str | None = None) -> Recording:
    folder = tmp_path / "disk"
    folder.mkdir()
    return Recording(folder, shim=recorder, log=tmp_path / "log", swallowed=swallowed)


def start(recording: Recording, program: str, *words: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", program, str(recording.folder), *words],
        env={**os.environ, **recording.env},
    )


def run(recording: Recording, program: str) -> list[Record]:
    assert start(recording, program).wait(30) == 0
    return read_log(recording.log)


def there(recording: Recording) -> Files:
    paths = (path for path in recording.folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in paths}


def rebuilt(records: list[Record]) -> Files:
    disk = Disk()
    for record in records:
        disk.take(record)
    return disk.now()


def test_every_call_that_changes_a_file_or_a_name_is_recorded(
    tmp_path: Path, recorder: Path
) -> None:
    recording = begin(tmp_path, recorder)
    records = run(recording, ALL_CALLS)
    assert rebuilt(records) == there(recording)
    names = {Path(name).name for name in there(recording)}
    assert names == {"plain", "spare", "moved", "there", "third"}
    synced = [Path(one.name).name for one in records if one.kind is Kind.SYNCED]
    assert synced == ["plain", "cut", "deep"]


def test_changes_of_several_processes_and_threads_are_recorded_in_their_order(
    tmp_path: Path, recorder: Path
) -> None:
    recording = begin(tmp_path, recorder)
    processes = [start(recording, TOGETHER, name) for name in ("one", "two", "three")]
    for number in range(50):
        recording.note({"number": number})
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    records = read_log(recording.log)
    assert rebuilt(records) == there(recording)
    assert [one.data for one in records if one.kind is Kind.NOTE] == [
        b'{"number": %d}' % number for number in range(50)
    ]
    times = [one.at_ns for one in records]
    assert times == sorted(times)


def test_a_sync_is_recorded_when_it_begins_and_when_it_has_ended(
    tmp_path: Path, recorder: Path
) -> None:
    records = run(begin(tmp_path, recorder), ALL_CALLS)
    begun = [one for one in records if one.kind is Kind.SYNC]
    ended = [one for one in records if one.kind is Kind.SYNCED]
    assert [one.number for one in begun] == [one.number for one in ended]
    assert all(one.at_ns < two.at_ns for one, two in zip(begun, ended, strict=True))


def test_a_swallowed_sync_is_neither_done_nor_recorded(tmp_path: Path, recorder: Path) -> None:
    records = run(begin(tmp_path, recorder, swallowed="plain"), ALL_CALLS)
    synced = {Path(one.name).name for one in records if one.kind in {Kind.SYNC, Kind.SYNCED}}
    assert synced == {"cut", "deep"}


@pytest.mark.parametrize(
    ("call", "program"),
    [
        ("mmap", "import mmap; mmap.mmap(file.fileno(), 10)[0] = 1"),
        ("posix_fallocate", "os.posix_fallocate(file.fileno(), 0, 10)"),
        ("copy_file_range", "os.copy_file_range(file.fileno(), file.fileno(), 5, 0, 20)"),
    ],
)
def test_a_call_that_nobody_can_rebuild_is_named(
    tmp_path: Path, recorder: Path, call: str, program: str
) -> None:
    head = "import os, sys; file = open(sys.argv[1] + '/a', 'w+b'); file.write(bytes(20)); "
    records = run(begin(tmp_path, recorder), f"{head}file.flush(); {program}")
    with pytest.raises(ValueError, match=f"{call} of .*/a cannot be rebuilt"):
        rebuilt(records)


def test_what_lies_elsewhere_and_what_sqlite_makes_anew_is_not_recorded(
    tmp_path: Path, recorder: Path
) -> None:
    program = """
import sys
for name in ("/hal0.db-shm", "-beside"):
    open(sys.argv[1] + name, "w").write("x")
"""
    records = run(begin(tmp_path, recorder), program)
    assert [one.kind for one in records] == [Kind.FOLDER]
    assert (tmp_path / "disk-beside").read_text() == "x"
