"""How a local file comes to its final place in the models folder: it is there, linked, or copied.

A hard link costs nothing and leaves the file where the user has it; it appears under its final name
by a rename. Where no link is possible (another disk, a file of someone else), the file is copied,
by way of its part (`part.py`), and hashed on the way. A copy keeps the modification time of its
source, which is how it is known again (as rsync does it). Downloads are left to `download.py`;
whether the content is any good, to `preload.py`.

A source is the regular file that its path names, opened once: what is linked or copied is what was
opened. A symbolic link anywhere on the way is refused, for whoever can write in one of its folders
could have hal0 bring a file that only hal0 may read.
"""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from hal0 import points
from hal0.errors import (
    CopyNotAllowed,
    FileInTheWay,
    SourceChanged,
    SourceIsALink,
    SourceNotFound,
)
from hal0.folders import make_folder, sync_folder
from hal0.opening import LinkOnTheWayError, NotRegularError, open_real
from hal0.registry.checksum import CHUNK_BYTES, Interrupted
from hal0.registry.files import FileIdentity, ensure_place
from hal0.registry.part import (
    Beginning,
    Fetched,
    Part,
    Watcher,
    ensure_room,
    open_part,
    regular,
    writing,
)

NO_LINK: Final = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP}
"""Another disk, protected_hardlinks or a file system without links, too many links."""


@dataclass(frozen=True, slots=True)
class Placed:
    """How a file came to its place; what was hashed on the way, of a copy alone."""

    how: Literal["there", "linked", "copied"]
    fetched: Fetched | None = None


THERE: Final = Placed("there")


def ensure_no_link(folder: Path) -> None:
    """Refuse a model's own folder that is a link. Raises FileInTheWay.

    What is written there would leave the models folder.
    """
    try:
        to = folder.readlink()
    except OSError:  # it is none
        return
    raise FileInTheWay(
        f"{folder} is a link to {to}, and a model's files lie in the models folder itself; remove "
        "the link",
        evidence={"path": str(folder), "found": f"a link to {to}"},
    )


def is_in_place(source: Path, target: Path) -> bool:
    """Return whether `place` would have nothing to do.

    So it is when the target is the source's inode, or a copy on another disk of the same size and
    modification time, or when the source is gone and the target is not.
    """
    there, origin = regular(target), regular(source)
    if there is None or origin is None:
        return there is not None
    if there.st_dev == origin.st_dev:
        return there.st_ino == origin.st_ino
    return _looks_same(there, origin)


def bytes_to_copy(source: Path, target: Path) -> int:
    """Return how many bytes `place` would have to copy, 0 where it can link or has nothing to do.

    A link that turns out to be impossible on one disk is not foreseen.
    """
    origin = regular(source)
    folder = next((folder for folder in target.parents if folder.is_dir()), None)
    if origin is None or folder is None or is_in_place(source, target):
        return 0
    return 0 if folder.stat().st_dev == origin.st_dev else origin.st_size


def place(
    source: Path,
    target: Path,
    watcher: Watcher,
    *,
    allow_copy: bool,
    sha256: str | None = None,
    again: bool = False,
) -> Placed:
    """Bring `source` to `target`, whose folder is made, and say how.

    The watcher hears of a copy, and of a link only before it gets its name. A copy must have the
    digest `sha256`, if it is given; `again` copies what seems to be there. Raises FileInTheWay for
    what is no regular file at `target`; SourceNotFound; SourceIsALink; CopyNotAllowed; DiskFull
    before or while it copies; SourceChanged; FetchedMismatch; PartHeld; Interrupted; PullError for
    any other fault of the target's disk; and what the watcher does. After DiskFull and Interrupted
    the part is left, and taken up again while the source is what it was.
    """
    with writing(target):
        ensure_place(target)
    if is_in_place(source, target) and not again:
        return THERE
    with _opened(source) as fd:
        with writing(target):
            make_folder(target.parent)
            refusal = _link(fd, target, watcher)
        if refusal is None:
            return Placed("linked")
        status, there = os.fstat(fd), regular(target)
        if there is not None and _looks_same(there, status) and not again:
            return THERE
        if not allow_copy:
            raise _copy_not_allowed(source, target, status, refusal)
        ensure_room({target: status.st_size}, watcher.reserve_bytes)
        watcher.on_fetch()
        with open_part(target, watcher) as part:
            if is_in_place(source, target) and not again:
                return THERE  # by the one whom we waited for
            copy = _Copy(source, fd, part)
            copy.run(watcher)
            return Placed("copied", copy.finish(sha256))


def _copy_not_allowed(
    source: Path, target: Path, status: os.stat_result, refusal: OSError
) -> CopyNotAllowed:
    return CopyNotAllowed(
        f"{source} cannot be linked into {target.parent} ({refusal.strerror}), and copying it was "
        "not asked for; register the model with a copy allowed, or move the file there",
        evidence={
            "source": str(source),
            "target": str(target),
            "size_bytes": status.st_size,
            "reason": refusal.strerror,
        },
    )


def _looks_same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


@contextmanager
def _opened(source: Path) -> Iterator[int]:
    """Lend the source, opened without following any link."""
    with _reading(source):
        fd = open_real(Path("/"), source.parts[1:])
    try:
        yield fd
    finally:
        os.close(fd)


def _link(source_fd: int, target: Path, watcher: Watcher) -> OSError | None:
    """Hard-link an open file to `target`; return why it cannot be, if it cannot.

    Who brought the file may not have synced it: a power cut would leave its name, and no bytes.
    """
    spare = target.with_name(f".{target.name}.link")
    spare.unlink(missing_ok=True)  # of a process that died here
    try:
        _link_open_file(source_fd, spare)
    except OSError as exc:
        if exc.errno in NO_LINK:
            return exc
        raise OSError(exc.errno, exc.strerror, str(spare)) from exc
    try:
        os.fsync(source_fd)
        watcher.on_name(None, os.fstat(source_fd).st_size)
        spare.replace(target)
    finally:
        spare.unlink(missing_ok=True)  # of two links of one file, `replace` leaves both
    points.reach("pull.linked")
    sync_folder(target.parent)
    return None


def _link_open_file(fd: int, name: Path) -> None:
    """Give an open file one more name, whatever lies by now where it was opened.

    The way is that of open(2) for O_TMPFILE. Only a call with a folder's descriptor makes Python
    follow the link of /proc to the file itself.
    """
    folder = os.open(name.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(f"/proc/self/fd/{fd}", name.name, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


class _Copy:
    """One copy from an open source into a part."""

    def __init__(self, origin: Path, source_fd: int, part: Part) -> None:
        self._origin = origin
        self._fd = source_fd
        self._part = part
        with _reading(origin):
            self._before = os.fstat(source_fd)

    def run(self, watcher: Watcher) -> None:
        """Copy what is missing. Raises Interrupted, SourceNotFound, SourceChanged, DiskFull."""
        self._begin()
        part, total = self._part, self._before.st_size
        buffer = memoryview(bytearray(CHUNK_BYTES))
        while part.size < total:
            if watcher.should_stop():
                raise Interrupted
            with _reading(self._origin):
                count = os.preadv(self._fd, [buffer[: total - part.size]], part.size)
            if count == 0:
                break
            part.append(buffer[:count])
            watcher.on_progress("fetch", part.size, total)
        self._ensure_unchanged()

    def _begin(self) -> None:
        identity = FileIdentity.from_stat(self._before)
        now = Beginning(str(self._origin), json.dumps(identity.as_json()), self._before.st_size)
        held = self._part.beginning
        if held is not None and (held.source, held.validator) == (now.source, now.validator):
            self._part.take_up(held)
        else:
            self._part.begin(now)

    def _ensure_unchanged(self) -> None:
        expected, found = (FileIdentity.from_stat(it) for it in (self._before, os.fstat(self._fd)))
        if found != expected or self._part.size != expected.size_bytes:
            self._part.discard()
            raise SourceChanged(
                f"{self._origin} was changed while it was copied; pull it again when it is "
                "complete",
                evidence={
                    "source": str(self._origin),
                    "expected": expected.as_json(),
                    "found": found.as_json(),
                },
            )

    def finish(self, sha256: str | None) -> Fetched:
        """Give the copy its name, and the times of its source."""
        times = self._before.st_atime_ns, self._before.st_mtime_ns
        return self._part.finish(sha256, times_ns=times)


@contextmanager
def _reading(source: Path) -> Iterator[None]:
    """Turn what goes wrong at the source into SourceNotFound, or SourceIsALink."""
    try:
        yield
    except LinkOnTheWayError as exc:
        raise _linked(source, str(exc.filename)) from exc
    except NotRegularError as exc:
        raise _unreadable(source, f"is {exc.strerror}, not a regular file") from exc
    except OSError as exc:
        raise _unreadable(source, f"cannot be read: {exc.strerror}") from exc


def _unreadable(source: Path, how: str) -> SourceNotFound:
    return SourceNotFound(f"the source {source} {how}", evidence={"source": str(source)})


def _linked(source: Path, link: str) -> SourceNotFound | SourceIsALink:
    """Return what is wrong with a source over a link, which leads to a file of ours or to none."""
    try:
        real = Path(os.path.realpath(source))
    except OSError as exc:  # it is another by now
        return _unreadable(source, f"leads over the link {link}: {exc.strerror}")
    if regular(real) is None:
        return _unreadable(source, f"leads over the link {link} to no regular file")
    return SourceIsALink(
        f"the source {source} leads over the link {link}; name the file itself: {real}",
        evidence={"source": str(source), "link": link, "real_path": str(real)},
    )
