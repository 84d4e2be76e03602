"""Which content a path stands for: its identity, and the one way to open it for reading.

A model's file is a file of the models folder: neither it nor the folder that it shares with other
files of its model may be a link, which could lead anywhere. The models folder itself may be one.
"""

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from hal0.errors import FileInTheWay, FileNotFound, FileUnreadable, PreloadError
from hal0.opening import KINDS, LinkOnTheWayError, NotRegularError, open_real

NOTHING_THERE: Final = {
    errno.ENOENT: "no such file",
    errno.ENOTDIR: "no such file: a folder on the way is a file",
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
    """One registered file of a model; size and digest (hex) are None where nobody knows them.

    `source` is where it was brought from, None = an operator put it there.
    """

    role: str
    path: Path
    size_bytes: int | None
    sha256: str | None
    source: str | None = None


def about(
    error: type[PreloadError], file: ModelFile, detail: str, evidence: Mapping[str, Any]
) -> PreloadError:
    """Build an error whose message and evidence name the file and its role."""
    return error(
        f"{file.role} file {file.path}: {detail}",
        evidence={"path": str(file.path), "role": file.role, **evidence},
    )


def open_model_file(file: ModelFile, *, has_folder: bool = False) -> int:
    """Open a regular file for reading and return its descriptor, which the caller closes.

    `has_folder`: it lies in a folder of its model, below the models folder. Never blocks. Raises
    FileNotFound, FileUnreadable.
    """
    depth = 2 if has_folder else 1
    try:
        return open_real(file.path.parents[depth - 1], file.path.parts[-depth:])
    except LinkOnTheWayError as exc:
        link = Path(exc.filename)
        found = f"a link to {exc.filename2}"
        what = "it is" if link == file.path else f"its folder {link} is"
        hint = "the models folder holds files, not links; register the file behind it"
        raise _not_regular(file, found, f"{what} {found}: {hint}") from exc
    except NotRegularError as exc:
        found = str(exc.strerror)
        raise _not_regular(file, found, f"it is {found}, not a regular file") from exc
    except OSError as exc:
        raise _cannot_open(file, exc) from exc


def _not_regular(file: ModelFile, found: str, detail: str) -> PreloadError:
    return about(FileNotFound, file, detail, {"expected": "a regular file", "found": found})


def _cannot_open(file: ModelFile, exc: OSError) -> PreloadError:
    found = NOTHING_THERE.get(exc.errno or 0)
    if found is not None:
        return _not_regular(file, found, f"there is {found}")
    evidence = {"expected": "a readable file", "found": exc.strerror, "errno": exc.errno}
    return about(FileUnreadable, file, f"it cannot be read: {exc.strerror}", evidence)


def ensure_place(target: Path) -> None:
    """Refuse a place that something else than a regular file has. Raises FileInTheWay, OSError."""
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISREG(mode):
        return
    found = KINDS.get(stat.S_IFMT(mode), "no regular file")
    if stat.S_ISLNK(mode):
        found = f"a link to {target.readlink()}"
    raise FileInTheWay(
        f"{target} is {found}, where a model's file is to be; move it away, then retry",
        evidence={"path": str(target), "found": found},
    )
