"""A file on its way to its final place: `<target>.part`, whatever brings the bytes.

    <target>.part        the bytes so far, locked by the one who writes them
    <target>.part.json   of what they are the beginning: source, its validator, how long it will be
    <target>.bad         a whole file of a wrong digest, kept for who wants to know

A part is taken up again when it is the beginning of what the source has now; its bytes are hashed
again first, and after a power cut only those are believed that were synced. A file gets its final
name when it is whole, has the digest that it must have, and is on the disk: fsync, rename, fsync of
the folder. Where the bytes come from is left to `place.py` and `download.py`.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import NonNegativeInt, TypeAdapter

from hal0 import points
from hal0.clock import boot_id, monotonic_ms
from hal0.errors import DiskFull, FetchedMismatch, PartHeld, PullError
from hal0.folders import make_folder, sync_folder
from hal0.registry.checksum import Interrupted, feed
from hal0.registry.files import FileIdentity, ensure_place

SYNC_BYTES: Final = 256 * 2**20
"""After so many bytes a part is synced: what a power cut may cost of a download."""
ROOM_BYTES: Final = 16 * 2**20
"""After so many bytes it is looked whether the disk has room for what must stay free."""
LOCK_POLL_S: Final = 0.05
MAX_NOTE_BYTES: Final = 64 * 1024
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who watches a file on its way, and what they allow.

    `on_fetch` is called once, before anything is fetched; `on_progress` with the phase, the bytes
    done and the bytes in all, 0 where nobody knows; `should_stop` is asked again and again.
    `on_name` gets the digest (None of a link) and the size of a whole file right before it gets its
    name, and raises to forbid that. `reserve_bytes` are left free on the disk; `wait_s` is how long
    another writer of the same part is waited for.
    """

    on_fetch: Callable[[], None] = lambda: None
    on_progress: Callable[[Literal["rehash", "fetch"], int, int], None] = lambda *_: None
    should_stop: Callable[[], bool] = lambda: False
    on_name: Callable[[str | None, int], None] = lambda *_: None
    reserve_bytes: int = 0
    wait_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Beginning:
    """Of what a part is the beginning.

    `validator` changes whenever the source's content does: an ETag, a date, a file's identity. None
    = the source has none, and the part is never taken up again. `synced_bytes` survive a power cut.
    `furthest_bytes` is how far any try came, also one that had to begin anew.
    """

    source: str
    validator: str | None
    total_bytes: NonNegativeInt | None
    boot_id: str = ""
    synced_bytes: NonNegativeInt = 0
    furthest_bytes: NonNegativeInt = 0

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return what a `.part.json` says; None when it says nothing that can be believed."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(fd, "rb") as note:
                return TypeAdapter(cls).validate_json(note.read(MAX_NOTE_BYTES), strict=True)
        except (OSError, ValueError):
            return None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that was brought whole: what it is, and what was hashed on the way."""

    identity: FileIdentity
    sha256: str


class Part:
    """The part of one target, in the hands of its one writer; `open_part` makes it.

    `size` counts the bytes that are in it and in the digest.
    """

    def __init__(self, target: Path, fd: int, watcher: Watcher) -> None:
        self.target = target
        self._watcher = watcher
        self.size = 0
        self._fd = fd
        self._path = part_of(target)
        self._note = note_of(target)
        self._digest = hashlib.sha256()
        self._beginning: Beginning | None = None

    @property
    def beginning(self) -> Beginning | None:
        """Of what the part is the beginning, if it can be taken up again."""
        found = Beginning.read(self._note)
        if found is None or found.validator is None or not os.fstat(self._fd).st_size:
            return None
        return found

    @property
    def is_in_vain(self) -> bool:
        """Whether nothing ever came into it."""
        found = Beginning.read(self._note)
        return not os.fstat(self._fd).st_size and (found is None or not found.furthest_bytes)

    def take_up(self, beginning: Beginning) -> None:
        """Go on behind what is there: hash it again, and cut off what a power cut may have lost.

        Raises Interrupted, DiskFull and PullError.
        """
        total = beginning.total_bytes or 0
        with writing(self.target):
            there = os.fstat(self._fd).st_size
            if beginning.boot_id != boot_id():
                there = min(there, beginning.synced_bytes)
            os.ftruncate(self._fd, there)
            self._digest = hashlib.sha256()
            self.size = feed(
                self._digest,
                self._fd,
                on_progress=lambda done: self._watcher.on_progress("rehash", done, total),
                should_stop=self._watcher.should_stop,
                limit_bytes=there,
            )
            self._write_note(beginning, min(there, beginning.synced_bytes))

    def begin(self, beginning: Beginning) -> None:
        """Throw away what is there: the next bytes are the first ones of `beginning`."""
        came_to = furthest(self.target, beginning.source)
        beginning = replace(beginning, furthest_bytes=came_to)
        with writing(self.target):
            self._note.unlink(missing_ok=True)
            os.ftruncate(self._fd, 0)
            self._digest, self.size = hashlib.sha256(), 0
            self._write_note(beginning, 0)
            sync_folder(self.target.parent)

    def append(self, chunk: bytes | memoryview) -> None:
        """Write the next bytes. Raises DiskFull, PullError."""
        with writing(self.target):
            rest = memoryview(chunk)
            at = self.size
            while rest:
                written = os.pwrite(self._fd, rest, at)
                rest, at = rest[written:], at + written
            self._digest.update(chunk)
            before, self.size = self.size, at
            if self._beginning and at - self._beginning.synced_bytes >= SYNC_BYTES:
                self._sync()
                self._write_note(self._beginning, at)
        if not before:
            points.reach("pull.fetching")
        if at // ROOM_BYTES > before // ROOM_BYTES:
            ensure_room({}, self._watcher.reserve_bytes, at=self.target)

    def finish(
        self, expected_sha256: str | None, *, times_ns: tuple[int, int] | None = None
    ) -> Fetched:
        """Give the file its final name. Raises FetchedMismatch and keeps it as `.bad` instead."""
        with writing(self.target):
            if times_ns is not None:
                os.utime(self._fd, ns=times_ns)
            self._sync()
        found = self._digest.hexdigest()
        if expected_sha256 not in {None, found}:
            raise self._mismatch(str(expected_sha256), found)
        points.reach("pull.whole")
        self._watcher.on_name(found, self.size)
        points.reach("pull.noted")
        self._rename(self.target)
        points.reach("pull.fetched")
        return Fetched(FileIdentity.from_stat(os.fstat(self._fd)), found)

    def _sync(self) -> None:
        """Have all bytes on the disk. When that fails, nothing of the part is kept.

        Linux takes for written what it could not write: the next fsync would go well.
        """
        try:
            os.fsync(self._fd)
        except OSError:
            self._note.unlink(missing_ok=True)
            os.ftruncate(self._fd, 0)
            raise

    @contextmanager
    def reading(self) -> Iterator[int]:
        """Lend the open file, to be read from its beginning."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        yield self._fd

    def set_aside(self) -> Path:
        """Keep a whole file that is not what it should be as `.bad`, and say where."""
        bad = bad_of(self.target)
        self._rename(bad)
        points.reach("pull.aside")
        return bad

    def discard(self) -> None:
        """Take the part away: it is the beginning of nothing."""
        with writing(self.target):
            self._note.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)

    def _mismatch(self, expected: str, found: str) -> FetchedMismatch:
        bad = self.set_aside()
        source = "" if self._beginning is None else self._beginning.source.partition("#")[0]
        return FetchedMismatch(
            f"{source} has the sha256 {found}, registered is {expected}: the file is kept as "
            f"{bad}; register the model anew with the right digest, or source",
            evidence={
                "source": source,
                "path": str(self.target),
                "kept_as": str(bad),
                "expected": expected,
                "found": found,
                "size_bytes": self.size,
            },
        )

    def _rename(self, to: Path) -> None:
        with writing(self.target):
            if not _is_same(self._fd, self._path):  # else another's bytes would get the name
                raise PullError(
                    f"{self._path} was taken away, or replaced, while it was written; pull again",
                    evidence={"path": str(self._path)},
                )
            self._path.replace(to)
            self._note.unlink(missing_ok=True)
            sync_folder(to.parent)

    def _write_note(self, beginning: Beginning, synced_bytes: int) -> None:
        """Say of what the part is the beginning, and how much of it a power cut leaves."""
        self._beginning = replace(beginning, boot_id=boot_id(), synced_bytes=synced_bytes)
        spare = self._note.with_name(f".{self._note.name}")
        spare.unlink(missing_ok=True)
        fd = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with os.fdopen(fd, "w", encoding="utf-8") as note:
            note.write(json.dumps(asdict(self._beginning)))
        spare.replace(self._note)


def part_of(target: Path) -> Path:
    """Return where the bytes of a target are while they are on their way."""
    return target.with_name(f"{target.name}.part")


def note_of(target: Path) -> Path:
    """Return where it is written of what a target's part is the beginning."""
    return target.with_name(f"{target.name}.part.json")


def bad_of(target: Path) -> Path:
    """Return where a whole file is kept that must not have the name of `target`."""
    return target.with_name(f"{target.name}.bad")


def tidy(target: Path) -> None:
    """Take away the note of a part that has become its file: a process died in between."""
    if not part_of(target).exists():
        with contextlib.suppress(OSError):
            note_of(target).unlink(missing_ok=True)


def furthest(target: Path, source: str) -> int:
    """Return how many bytes any try to bring this source to `target` has had so far."""
    held, part = Beginning.read(note_of(target)), regular(part_of(target))
    if held is None or held.source != source:
        return 0
    return max(held.furthest_bytes, 0 if part is None else part.st_size)


@contextmanager
def open_part(target: Path, watcher: Watcher) -> Iterator[Part]:
    """Be the one writer of a target's part; wait for another to let go of it.

    The target's folder is made. A part that nothing ever came into is taken away at the end. Raises
    FileInTheWay; Interrupted; PartHeld when another lets not go of it; DiskFull and PullError.
    """
    with writing(target):
        make_folder(target.parent)
        ensure_place(target)
        if (bad := bad_of(target)).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(bad))
        fd = _locked(part_of(target), watcher)
    try:
        part = Part(target, fd, watcher)
        try:
            yield part
        finally:
            if _is_same(fd, part_of(target)) and part.is_in_vain:
                with contextlib.suppress(PullError):
                    part.discard()
    finally:
        os.close(fd)


def _locked(path: Path, watcher: Watcher) -> int:
    """Open a part and lock it; one that was renamed while we waited is the finished file."""
    until_ms = monotonic_ms() + int(watcher.wait_s * 1000)
    while True:
        fd = os.open(path, _FLAGS, 0o644)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            os.close(fd)
            raise PullError(
                f"{path} is no regular file of its own, and what it is would be overwritten; "
                "remove it",
                evidence={"path": str(path), "links": status.st_nlink},
            )
        if _is_locked(fd, path):
            return fd
        os.close(fd)
        if watcher.should_stop():
            raise Interrupted
        if monotonic_ms() >= until_ms:
            raise PartHeld(
                f"another process writes {path}, and does not let go of it; `hal0 doctor` says "
                "which workers there are",
                evidence={"path": str(path), "waited_s": watcher.wait_s},
            )
        time.sleep(LOCK_POLL_S)


def _is_locked(fd: int, path: Path) -> bool:
    """Lock an open part if that can be done now; raises OSError and closes it if it never can."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _is_same(fd, path)
    except BlockingIOError:
        return False
    except OSError:
        os.close(fd)
        raise


def _is_same(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat(follow_symlinks=False))
    except OSError:
        return False


def regular(path: Path) -> os.stat_result | None:
    """Return the status of a regular file; None = there is none, a link leads to none of ours."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def ensure_room(sizes: Mapping[Path, int], reserve_bytes: int, *, at: Path | None = None) -> None:
    """Raise DiskFull unless all these targets together have room, and leave the reserve free.

    `sizes` in bytes; what their parts occupy already counts as room. The folders must be on one
    disk; `at` names a path on it when nothing more is to come.
    """
    paths = [*sizes, *([] if at is None else [at])]
    folders = (folder for path in paths for folder in path.parents)
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        return
    status = os.statvfs(folder)
    parts = [regular(part_of(target)) for target in sizes]
    reused = sum(part.st_blocks * 512 for part in parts if part)
    available = status.f_bavail * status.f_frsize + reused
    needed = sum(sizes.values())
    if needed + reserve_bytes > available:
        names = ", ".join(path.name for path in sizes)
        what = f"{needed} are needed for {names}, and " if sizes else ""
        raise DiskFull(
            f"{folder} has {available} bytes free, {what}{reserve_bytes} must stay free "
            "(HAL0_DISK_RESERVE_BYTES); make room, a NAME.bad is of no use any more, then retry",
            evidence={
                "path": str(folder),
                "needed_bytes": needed,
                "available_bytes": available,
                "reserve_bytes": reserve_bytes,
                "files": {str(target): size for target, size in sizes.items()},
            },
        )


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn what goes wrong in the models folder into DiskFull or PullError."""
    try:
        yield
    except OSError as exc:
        path = exc.filename or target
        evidence = {"path": str(path), "errno": exc.errno}
        if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
            status = os.statvfs(target.parent)
            evidence["available_bytes"] = status.f_bavail * status.f_frsize
            raise DiskFull(f"{target.parent} is full: {exc.strerror}", evidence=evidence) from exc
        raise PullError(
            f"{path} cannot be written: {exc.strerror}; mend that, then retry", evidence=evidence
        ) from exc
