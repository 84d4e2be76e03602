"""How a file that somebody else named is opened: a regular one, and without a link where need be.

O_PATH looks at what is there without opening it: a FIFO waits for nobody, a device does not act.
What was looked at is then opened, by its descriptor, so nothing can be put in its place in between.
"""

import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
_LOOK: Final = os.O_PATH | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class NotRegularError(OSError):
    """What is there is no regular file; `strerror` says what it is."""


class LinkOnTheWayError(OSError):
    """A symbolic link is there, or on the way there: `filename`, which leads to `filename2`."""


def open_regular(path: Path | str) -> int:
    """Open a regular file for reading, by whatever links lead to it; the caller closes it.

    Raises NotRegularError, and OSError as the disk gives it.
    """
    with ExitStack() as opened:
        found = os.open(path, _LOOK)
        opened.callback(os.close, found)
        return _reopened(found, Path(path))


def open_real(base: Path, way: Sequence[str]) -> int:
    """Open the regular file at the end of `way`, the names from `base` on, without any link.

    Links that lead to `base` itself are followed; it is the administrator's. Raises
    LinkOnTheWayError, NotRegularError, and OSError as the disk gives it.
    """
    with ExitStack() as opened:
        path, at = base, os.open(base, _LOOK | os.O_DIRECTORY)
        opened.callback(os.close, at)
        for name in way[:-1]:
            path /= name
            at = _folder(at, name, path)
            opened.callback(os.close, at)
        path /= way[-1]
        found = os.open(way[-1], _LOOK | os.O_NOFOLLOW, dir_fd=at)
        opened.callback(os.close, found)
        return _reopened(found, path)


def _folder(at: int, name: str, path: Path) -> int:
    try:
        return os.open(name, _LOOK | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=at)
    except NotADirectoryError:
        found = os.open(name, _LOOK | os.O_NOFOLLOW, dir_fd=at)
        try:
            _refuse_link(found, path)
        finally:
            os.close(found)
        raise


def _refuse_link(found: int, path: Path) -> None:
    if stat.S_ISLNK(os.fstat(found).st_mode):
        to = os.readlink("", dir_fd=found)
        raise LinkOnTheWayError(0, "a symbolic link", str(path), None, to)


def _reopened(found: int, path: Path) -> int:
    _refuse_link(found, path)
    mode = os.fstat(found).st_mode
    if not stat.S_ISREG(mode):
        raise NotRegularError(0, KINDS.get(stat.S_IFMT(mode), "no regular file"), str(path))
    return os.open(f"/proc/self/fd/{found}", _READ)
