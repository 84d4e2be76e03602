"""How a local file comes to its final place in the models folder: it is there, linked, or copied.

A hard link costs nothing and leaves the file where the user has it; it appears under its final name
by a rename. Where no link is possible (another disk, a file of someone else), the file is copied,
by way of its part (`part.py`), and hashed on the way. A copy keeps the modification time of its
source, which is how it is known again (as rsync does it). Downloads are left to `download.py`;
whether the content is any good, to `preload.py`.
"""

import errno
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from hal0 import points
from hal0.errors import CopyNotAllowed, InvalidRequest, SourceChanged, SourceNotFound
from hal0.registry.checksum import CHUNK_BYTES, Interrupted
from hal0.registry.files import OPEN_FLAGS, FileIdentity
from hal0.registry.part import (
    Beginning,
    Fetched,
    Part,
    Watcher,
    ensure_room,
    make_folder,
    open_part,
    regular,
    sync_folder,
    writing,
)

RESERVED: Final = (".part", ".part.json", ".bad")
NO_LINK: Final = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP}
"""Another disk, protected_hardlinks or a file system without links, too many links."""


@dataclass(frozen=True, slots=True)
class Placed:
    """How a file came to its place; what was hashed on the way, of a copy alone."""

    how: Literal["there", "linked", "copied"]
    fetched: Fetched | None = None


THERE: Final = Placed("there")


def final_paths(models_dir: Path, name: str, file_names: Sequence[str]) -> tuple[Path, ...]:
    """Return where the files of a model lie when they are loaded, in the order of `file_names`.

    One file: `<models>/<name><suffix>`, `.gguf` where it has none. Several: they keep their names,
    which tell llama.cpp their order, in `<models>/<name>/`. Raises InvalidRequest.
    """
    if name in {"", ".", ".."} or Path(name).name != name:
        raise InvalidRequest(f"a model named {name!r} has no place in a folder")
    if len(file_names) > 1:
        _refuse_reserved(models_dir / name, (*RESERVED, ".gguf"))
    if len(file_names) == 1:
        paths: tuple[Path, ...] = (models_dir / f"{name}{Path(file_names[0]).suffix or '.gguf'}",)
    elif len(set(file_names)) < len(file_names):
        raise InvalidRequest(f"two files of model {name} have the same name: they share a folder")
    else:
        paths = tuple(models_dir / name / file_name for file_name in file_names)
    for path in paths:
        _refuse_reserved(path)
    return paths


def _refuse_reserved(path: Path, endings: tuple[str, ...] = RESERVED) -> None:
    """Refuse a name that a file on its way (`part.py`), or another model's file, may have."""
    if path.name.startswith(".") or path.name.endswith(endings):
        raise InvalidRequest(
            f"nothing of a model can be called {path.name}: files on their way, or other models', "
            "are called so; give it another name"
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
    digest `sha256`, if it is given; `again` copies what seems to be there. Raises SourceNotFound;
    CopyNotAllowed; DiskFull before or while it copies; SourceChanged; FetchedMismatch; PartHeld;
    Interrupted; PullError for any other fault of the target's disk; and what the watcher does.
    After DiskFull and Interrupted the part is left, and taken up again while the source is what it
    was.
    """
    if is_in_place(source, target) and not again:
        return THERE
    origin = _resolved(source)
    with writing(target):
        make_folder(target.parent)
        refusal = _link(origin, target, watcher)
    if refusal is None:
        return Placed("linked")
    with _reading(origin):
        status = origin.stat()
    there = regular(target)
    if there is not None and _looks_same(there, status) and not again:
        return THERE
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
    ensure_room({target: status.st_size}, watcher.reserve_bytes)
    watcher.on_fetch()
    with _opened(origin) as fd, open_part(target, watcher) as part:
        if is_in_place(source, target) and not again:
            return THERE  # by the one whom we waited for
        copy = _Copy(origin, fd, part)
        copy.run(watcher)
        return Placed("copied", copy.finish(sha256))


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


def _link(origin: Path, target: Path, watcher: Watcher) -> OSError | None:
    """Hard-link `origin` to `target`; return why it cannot be, if it cannot."""
    spare = target.with_name(f".{target.name}.link")
    spare.unlink(missing_ok=True)  # of a process that died here
    try:
        spare.hardlink_to(origin)
    except OSError as exc:
        if exc.errno in NO_LINK:
            return exc
        raise
    try:
        watcher.on_name(None, origin.stat().st_size)
        spare.replace(target)
    finally:
        spare.unlink(missing_ok=True)  # of two links of one file, `replace` leaves both
    points.reach("pull.linked")
    sync_folder(target.parent)
    return None


@contextmanager
def _opened(origin: Path) -> Iterator[int]:
    with _reading(origin):
        fd = os.open(origin, OPEN_FLAGS)
    try:
        yield fd
    finally:
        os.close(fd)


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
        if found != expected:
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
