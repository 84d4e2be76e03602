"""How a file gets its name: when it is whole, and never over another.

    .NAME.xxxxxxxx.part/    what is to be NAME: a folder, locked by the process that fills it

A folder, for SQLite puts its journals beside what it writes. It goes however the work ends; that
of a process that was killed goes with the next file of that name. Nobody else's file ever does.
"""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hal0.errors import InvalidRequest
from hal0.sqlite_errors import file_errors

MAX_NAME_BYTES: Final = 200
"""255 less room for the names that are made of it: the folder's, those of SQLite's logs."""
LOGS: Final = ("-wal", "-shm", "-journal")
_ENDING: Final = ".part"
_UNNAMEABLE: Final = {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ELOOP}


def beside(database: Path, end: str) -> Path:
    """Return the name of a log of SQLite's; "" = the database itself."""
    return database.with_name(f"{database.name}{end}")


def ensure_nameable(to: Path) -> None:
    """Raise InvalidRequest when something has this name, or a copy cannot or must not have it."""
    if "\0" in str(to) or len(os.fsencode(to.name)) > MAX_NAME_BYTES:
        raise InvalidRequest(
            f"no copy can have the name {to.name[:40]!r}…: at most {MAX_NAME_BYTES} bytes, no NUL"
        )
    logs = [beside(to, end) for end in LOGS]
    owners = [to.parent / to.name.removesuffix(end) for end in LOGS if to.name.endswith(end)]
    try:
        if not to.parent.is_dir():
            raise InvalidRequest(f"there is no folder {to.parent}; make it first")
        if os.path.lexists(to):
            raise _taken(to)
        for other in filter(os.path.lexists, (*logs, *owners)):
            raise InvalidRequest(
                f"{to} cannot stand beside {other}: SQLite takes one for a log of the other's; "
                "name another file"
            )
    except OSError as error:
        if error.errno not in _UNNAMEABLE:
            raise
        raise InvalidRequest(f"no file can have the name {to}: {error.strerror}") from error


def _taken(to: Path) -> InvalidRequest:
    return InvalidRequest(f"{to} exists; a backup overwrites nothing: name another file")


@contextmanager
def part_folder(to: Path) -> Iterator[Path]:
    """Give an empty folder on the disk of `to`, that others cannot look into.

    Raises DatabaseFull or DatabaseUnwritable for what the system refuses to the work in it.
    """
    with file_errors(to):
        for left in _of_killed(to):
            shutil.rmtree(left, ignore_errors=True)
        folder, lock = _made(to)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _made(to: Path) -> tuple[Path, int]:
    """Make the folder and lock it; another try may take it away in between, for it looks left."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{to.name}.", suffix=_ENDING, dir=to.parent))
        with contextlib.suppress(FileNotFoundError):
            lock = _opened(folder)
            with contextlib.suppress(OSError):  # no locks on that disk: nobody takes it for left
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def _of_killed(to: Path) -> Iterator[Path]:
    """Give the folders that processes left that are no more; each is locked meanwhile."""
    named = re.compile(re.escape(f".{to.name}.") + r"[a-z0-9_]{8}" + re.escape(_ENDING))
    for path in [path for path in to.parent.iterdir() if named.fullmatch(path.name)]:
        with contextlib.suppress(OSError):
            lock = _opened(path)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield path
            finally:
                os.close(lock)


def _opened(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def give_name(whole: Path, to: Path) -> None:
    """Name a file, unlike a rename never over what came meanwhile: raises InvalidRequest.

    Where the disk knows no hard links an empty file takes the name first. Killed right then, that
    stays: it is no database, so no restore takes it.
    """
    try:
        try:
            os.link(whole, to)
        except FileExistsError:
            raise
        except OSError:
            os.close(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            _replace_own(whole, to)
    except FileExistsError as exc:
        raise _taken(to) from exc


def _replace_own(whole: Path, to: Path) -> None:
    try:
        whole.replace(to)
    except BaseException:
        to.unlink()
        raise
