"""What real processes did to their files, and what a client was told meanwhile, as one log.

    recording = Recording(folder, shim=build_shim(tmp_path), log=tmp_path / "log")
    ... start processes with recording.env ... recording.note(Kind.TOLD, {...}) ...
    records = read_log(recording.log)

Processes write it through `shim.c`, which says what is in it and in which order. A client notes
there what it asks before it asks, and what it was told once it was told; so whatever lies before
that note had happened when a client knew of it.
"""

import fcntl
import json
import os
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

SHIM: Final = Path(__file__).with_name("shim.c")
HEAD: Final = struct.Struct("=IIQQQII")


class Kind(IntEnum):
    """What a record is of; the first ten are `enum kind` of `shim_log.h`."""

    CREATE = 1
    WRITE = 2
    RESIZE = 3
    UNLINK = 4
    RENAME = 5
    LINK = 6
    FOLDER = 7
    SYNC = 8
    SYNCED = 9
    STRANGE = 10
    NOTE = 11


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that happened; names are absolute.

    `inode` is of the file or folder, where there is one; `number` is the offset of a write, the
    new size of a file, or which sync it is. The `data` of a note is JSON.
    """

    kind: Kind
    at_ns: int
    inode: int = 0
    number: int = 0
    name: str = ""
    other: str = ""
    data: bytes = b""


def build_shim(folder: Path) -> Path:
    """Compile the shim; returns the library."""
    library = folder / "shim.so"
    command = ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*command, "-o", library, SHIM], check=True)
    return library


class Recording:
    """A log that grows while processes run."""

    def __init__(
        self, folder: Path, *, shim: Path, log: Path, swallowed: str | None = None
    ) -> None:
        self.folder = folder.resolve()
        self.log = log
        self._lock = threading.Lock()
        log.touch()
        self.env = {
            "LD_PRELOAD": str(shim),
            "POWER_ROOT": str(self.folder),
            "POWER_LOG": str(log),
            **({} if swallowed is None else {"POWER_SWALLOW": swallowed}),
        }
        self._append(Record(Kind.FOLDER, 0, self.folder.stat().st_ino, name=str(self.folder)))

    def note(self, facts: Mapping[str, Any]) -> None:
        """Write down what a client asks or was told."""
        self._append(Record(Kind.NOTE, 0, data=json.dumps(facts).encode()))

    def put(self, path: Path, content: bytes) -> Path:
        """Write a file as `cp` and a browser do, who sync nothing."""
        with self._locked():
            kind = Kind.RESIZE if path.exists() else Kind.CREATE
            path.write_bytes(content)
            self._last(kind, path)
            self._last(Kind.WRITE, path, content)
        return path

    def make_folder(self, path: Path) -> Path:
        """Make a folder that was there long ago, before any process was started."""
        path.mkdir()
        with self._locked():
            self._last(Kind.FOLDER, path)
            self._last(Kind.SYNC, path.parent)
            self._last(Kind.SYNCED, path.parent)
        return path

    def _last(self, kind: Kind, path: Path, data: bytes = b"") -> None:
        self._write(Record(kind, 0, path.stat().st_ino, name=str(path), data=data))

    def _append(self, record: Record) -> None:
        with self._locked():
            self._write(record)

    def _write(self, record: Record) -> None:
        names = [record.name.encode(), record.other.encode()]
        size = HEAD.size + sum(map(len, names)) + len(record.data)
        fixed = (size, record.kind, time.monotonic_ns(), record.inode, record.number)
        head = HEAD.pack(*fixed, *map(len, names))
        with self.log.open("ab", buffering=0) as log:
            assert log.write(b"".join([head, *names, record.data])) == size

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of all writers; the records of one holder lie together."""
        with self._lock, self.log.open("rb") as log:
            fcntl.flock(log, fcntl.LOCK_EX)
            yield


def read_log(log: Path) -> list[Record]:
    """Return all that is in a log."""
    return list(_parsed(log.read_bytes()))


def _parsed(raw: bytes) -> Iterator[Record]:
    at = 0
    while at < len(raw):
        size, kind, at_ns, inode, number, name_size, other_size = HEAD.unpack_from(raw, at)
        names_at = at + HEAD.size
        other_at, data_at = names_at + name_size, names_at + name_size + other_size
        yield Record(
            Kind(kind),
            at_ns,
            inode,
            number,
            os.fsdecode(raw[names_at:other_at]),
            os.fsdecode(raw[other_at:data_at]),
            raw[data_at : at + size],
        )
        at += size
