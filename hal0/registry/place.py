"""How a local file comes to its final place in the models folder: it is there, linked, or copied.

A hard link costs nothing and leaves the file where the user has it; it appears under its final name
by a rename. Where no link is possible (another disk, a file of someone else), the file is copied to
`<target>.part`, synced, and renamed: a file under its final name is whole. A copy keeps the
modification time of its source, which is how it is known again (as rsync does it). Downloads are
left to others; whether the content is any good, to `preload.py`.
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Literal

from hal0 import points
from hal0.errors import (
    CopyNotAllowed,
    DiskFull,
    InvalidRequest,
    PullError,
    SourceChanged,
    SourceNotFound,
)
from hal0.registry.checksum import CHUNK_BYTES, PROGRESS_BYTES, Interrupted
from hal0.registry.files import OPEN_FLAGS, FileIdentity

Placed = Literal["there", "linked", "copied"]
OnProgress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""

PART_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
LOCK_POLL_S: Final = 0.05
NO_LINK: Final = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP}
"""Another disk, protected_hardlinks or a file system without links, too many links."""


def final_paths(models_dir: Path, name: str, file_names: Sequence[str]) -> tuple[Path, ...]:
    """Return where the files of a model lie when they are loaded, in the order of `file_names`.

    One file: `<models>/<name><suffix>`, `.gguf` where it has none. Several: they keep their names,
    which tell llama.cpp their order, in `<models>/<name>/`. Raises InvalidRequest.
    """
    if name in {"", ".", ".."} or Path(name).name != name:
        raise InvalidRequest(f"a model named {name!r} has no place in a folder")
    if len(file_names) == 1:
        return (models_dir / f"{name}{Path(file_names[0]).suffix or '.gguf'}",)
    if len(set(file_names)) < len(file_names):
        raise InvalidRequest(f"two files of model {name} have the same name: they share a folder")
    return tuple(models_dir / name / file_name for file_name in file_names)


def is_in_place(source: Path, target: Path) -> bool:
    """Return whether `place` would have nothing to do.

    So it is when the target is the source's inode, or a copy on another disk of the same size and
    modification time, or when the source is gone and the target is not.
    """
    there, origin = _regular(target), _regular(source)
    if there is None or origin is None:
        return there is not None
    if there.st_dev == origin.st_dev:
        return there.st_ino == origin.st_ino
    return _looks_same(there, origin)


def place(
    source: Path,
    target: Path,
    *,
    allow_copy: bool,
    on_fetch: Callable[[], None],
    on_progress: OnProgress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Placed:
    """Bring `source` to `target`, whose folder is made, and say how.

    `on_fetch` is called once, before the first byte of a copy is written, and never for a link.
    Raises SourceNotFound; CopyNotAllowed; DiskFull before or while it copies; SourceChanged;
    Interrupted when `should_stop` says so; PullError for any other fault of the target's disk.
    After DiskFull and Interrupted `<target>.part` is left; the next copy starts over in it.
    """
    if is_in_place(source, target):
        return "there"
    origin = _resolved(source)
    with _writing(target):
        _make_folder(target.parent)
        refusal = _link(origin, target)
    if refusal is None:
        return "linked"
    with _reading(origin):
        status = origin.stat()
    there = _regular(target)
    if there is not None and _looks_same(there, status):
        return "there"
    if not allow_copy:
        raise CopyNotAllowed(
            f"{origin} cannot be linked into {target.parent} ({refusal.strerror}), and copying it "
            "was not asked for; register the model with a copy allowed, or move the file there",
            evidence={
                "source": str(origin),
                "target": str(target),
                "size_bytes": status.st_size,
                "reason": refusal.strerror,
            },
        )
    _copy(origin, target, on_fetch, on_progress, should_stop)
    return "copied"


def _regular(path: Path) -> os.stat_result | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _looks_same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def _resolved(source: Path) -> Path:
    with _reading(source):
        origin = source.resolve(strict=True)
        if not stat.S_ISREG(origin.stat().st_mode):
            raise SourceNotFound(
                f"the source {source} is not a regular file", evidence={"source": str(source)}
            )
        return origin


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(mode=0o755, exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _link(origin: Path, target: Path) -> OSError | None:
    """Hard-link `origin` to `target`; return why it cannot be, if it cannot."""
    spare = target.with_name(f".{target.name}.link")
    spare.unlink(missing_ok=True)  # of a process that died here
    try:
        spare.hardlink_to(origin)
    except OSError as exc:
        if exc.errno in NO_LINK:
            return exc
        raise
    spare.replace(target)
    points.reach("pull.linked")
    _sync_folder(target.parent)
    return None


def _copy(
    origin: Path,
    target: Path,
    on_fetch: Callable[[], None],
    on_progress: OnProgress | None,
    should_stop: Callable[[], bool] | None,
) -> None:
    part = target.with_name(f"{target.name}.part")
    with ExitStack() as opened:
        with _reading(origin):
            source_fd = os.open(origin, OPEN_FLAGS)
            opened.callback(os.close, source_fd)
            before = os.fstat(source_fd)
        with _writing(target):
            _ensure_room(part, before.st_size)
        on_fetch()
        with _writing(target):
            part_fd = _open_part(part, should_stop)
            opened.callback(os.close, part_fd)
        reported = 0
        for done in _pump(origin, source_fd, target, part_fd):
            if on_progress is not None and (
                done - reported >= PROGRESS_BYTES or done == before.st_size
            ):
                on_progress(done, before.st_size)
                reported = done
            if should_stop is not None and should_stop():
                raise Interrupted
        _ensure_unchanged(origin, source_fd, before, part)
        if should_stop is not None and should_stop():
            raise Interrupted
        with _writing(target):
            os.utime(part_fd, ns=(before.st_atime_ns, before.st_mtime_ns))
            os.fsync(part_fd)
            part.replace(target)
            _sync_folder(target.parent)
    points.reach("pull.fetched")


def _open_part(part: Path, should_stop: Callable[[], bool] | None) -> int:
    """Open `.part` for one writer alone, empty; wait for another to let go of it.

    A pull that was superseded writes on until it notices. Had it renamed its file meanwhile, the
    descriptor would be the finished one: then `.part` is opened anew.
    """
    while True:
        fd = os.open(part, PART_FLAGS, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if part.exists() and part.stat().st_ino == os.fstat(fd).st_ino:
                os.ftruncate(fd, 0)
                return fd
        except BlockingIOError:
            pass
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
        if should_stop is not None and should_stop():
            raise Interrupted
        time.sleep(LOCK_POLL_S)


def _pump(origin: Path, source_fd: int, target: Path, part_fd: int) -> Iterator[int]:
    """Copy chunk by chunk as many bytes as the source had at first; yield how many are done."""
    with _reading(origin):
        total = os.fstat(source_fd).st_size
    buffer, done = memoryview(bytearray(CHUNK_BYTES)), 0
    while done < total:
        with _reading(origin):
            count = os.preadv(source_fd, [buffer], done)
        if count == 0:
            return
        with _writing(target):
            written = 0
            while written < count:
                written += os.write(part_fd, buffer[written:count])
        if done == 0:
            points.reach("pull.fetching")
        done += count
        yield done


def _ensure_room(part: Path, needed_bytes: int) -> None:
    status = os.statvfs(part.parent)
    reused = _regular(part)
    available = status.f_bavail * status.f_frsize + (reused.st_blocks * 512 if reused else 0)
    if needed_bytes > available:
        raise DiskFull(
            f"{part.parent} has room for {available} bytes, {needed_bytes} are needed",
            evidence={
                "path": str(part.parent),
                "needed_bytes": needed_bytes,
                "available_bytes": available,
            },
        )


def _ensure_unchanged(origin: Path, source_fd: int, before: os.stat_result, part: Path) -> None:
    expected, found = (FileIdentity.from_stat(it) for it in (before, os.fstat(source_fd)))
    if found != expected:
        part.unlink(missing_ok=True)
        raise SourceChanged(
            f"{origin} was changed while it was copied; pull it again when it is complete",
            evidence={
                "source": str(origin),
                "expected": expected.as_json(),
                "found": found.as_json(),
            },
        )


@contextmanager
def _reading(source: Path) -> Iterator[None]:
    """Turn what goes wrong at the source into SourceNotFound."""
    try:
        yield
    except RuntimeError as exc:  # how `Path.resolve` calls links that lead in a circle
        raise SourceNotFound(
            f"the source {source} cannot be read: {exc}", evidence={"source": str(source)}
        ) from exc
    except OSError as exc:
        raise SourceNotFound(
            f"the source {source} cannot be read: {exc.strerror}",
            evidence={"source": str(source), "errno": exc.errno},
        ) from exc


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Turn what goes wrong in the models folder into DiskFull or PullError."""
    try:
        yield
    except OSError as exc:
        evidence = {"path": str(target), "errno": exc.errno}
        if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
            status = os.statvfs(target.parent)
            evidence["available_bytes"] = status.f_bavail * status.f_frsize
            raise DiskFull(f"{target.parent} is full: {exc.strerror}", evidence=evidence) from exc
        raise PullError(f"{target} cannot be written: {exc.strerror}", evidence=evidence) from exc
