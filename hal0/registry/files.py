"""Which content a path stands for: its identity, and the one way to open it for reading."""

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from hal0.errors import FileNotFound, FileUnreadable, PreloadError

OPEN_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
NOTHING_THERE: Final = {
    errno.ENOENT: "no such file",
    errno.ENOTDIR: "no such file: a folder on the way is a file",
    errno.ELOOP: "links that lead in a circle",
    errno.ENXIO: "a device that is not there",
}


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What stays the same while nobody writes, replaces, links or touches a file.

    ctime cannot be set by hand, so an equal identity means equal content, with one exception: two
    writes within one tick of the file system's clock. `preload.py` waits that tick out.
    """

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def from_stat(cls, status: os.stat_result) -> Self:
        """Take the identity from a stat or fstat."""
        return cls(
            device=status.st_dev,
            inode=status.st_ino,
            size_bytes=status.st_size,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
        )

    def as_json(self) -> dict[str, int]:
        """Return the fields by name; an inode may need all of 64 unsigned bits."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, int]) -> Self:
        """Read what `as_json` wrote."""
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One registered file of a model; size and digest (hex) are None where nobody knows them."""

    role: str
    path: Path
    size_bytes: int | None
    sha256: str | None


def about(
    error: type[PreloadError], file: ModelFile, detail: str, evidence: Mapping[str, Any]
) -> PreloadError:
    """Build an error whose message and evidence name the file and its role."""
    return error(
        f"{file.role} file {file.path}: {detail}",
        evidence={"path": str(file.path), "role": file.role, **evidence},
    )


def open_model_file(file: ModelFile) -> int:
    """Open a regular file for reading and return its descriptor, which the caller closes.

    Never blocks: what is no regular file is not opened, and should it become one in between, the
    flags keep a FIFO from waiting for its writer. Raises FileNotFound, FileUnreadable.
    """
    try:
        _refuse_unless_regular(file, file.path.stat())  # a device may act when it is opened
        fd = os.open(file.path, OPEN_FLAGS)
    except OSError as exc:
        raise _cannot_open(file, exc) from exc
    try:
        _refuse_unless_regular(file, os.fstat(fd))
    except PreloadError:
        os.close(fd)
        raise
    return fd


def _refuse_unless_regular(file: ModelFile, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        found = KINDS.get(stat.S_IFMT(status.st_mode), "no regular file")
        evidence = {"expected": "a regular file", "found": found}
        raise about(FileNotFound, file, f"it is {found}, not a regular file", evidence)


def _cannot_open(file: ModelFile, exc: OSError) -> PreloadError:
    found = NOTHING_THERE.get(exc.errno or 0)
    if found is None:
        evidence = {"expected": "a readable file", "found": exc.strerror, "errno": exc.errno}
        return about(FileUnreadable, file, f"it cannot be read: {exc.strerror}", evidence)
    if exc.errno == errno.ENOENT and file.path.is_symlink():
        found = f"a broken link to {file.path.readlink()}"
    return about(
        FileNotFound, file, f"there is {found}", {"expected": "a regular file", "found": found}
    )
