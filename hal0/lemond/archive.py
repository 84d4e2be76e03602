"""How a tarball is unpacked that is the one that was meant, and still is not trusted to be kind.

All of it is looked at before anything is written: files, folders and links alone, each once, none
that leads out of the folder, none below a link, within `MAX_MEMBERS` and `MAX_BYTES`. Python's own
`data` filter looks too; it has been led astray by chains of links before, of which there are none
when nothing lies below a link. What was unpacked belongs to whoever unpacks it, can be read by all,
and is on the disk.
"""

import os
import stat
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from platform import python_version
from typing import Final

from hal0.errors import BadTarball, LemondError
from hal0.folders import sync_folder
from hal0.lemond.places import NOTE, PROGRAM
from hal0.registry.part import ensure_room

MAX_MEMBERS: Final = 20_000
MAX_BYTES: Final = 8 * 2**30
"""Of all files together: servers that bring their backends along have a few GB."""
MAX_NAME: Final = 512
OPEN_TO_ALL: Final = 0o755
READ_BY_ALL: Final = 0o644


def unpack(tarball: Path, into: Path, *, reserve_bytes: int) -> Path:
    """Unpack a server into a new folder and return where in it `lemond` lies, all synced.

    That is the folder itself, or the only one in it. Raises BadTarball, before anything is written;
    DiskFull; LemondError for a Python that cannot; OSError of the disk.
    """
    if getattr(tarfile, "data_filter", None) is None:
        raise LemondError(
            f"Python {python_version()} cannot unpack a tarball safely; install hal0 with 3.11.4 "
            "or a later one"
        )
    with _sound(tarball), tarfile.open(tarball) as tar:
        contents = _Contents(tarball, into)
        for member in tar:
            contents.take(member)
        root = contents.root()
        ensure_room({into: contents.size_bytes}, reserve_bytes)
        into.mkdir()
        tar.extractall(into, filter="data")
    _settle(into)
    return into / root


class _Contents:
    """What a tarball is going to leave behind, as far as it was looked at."""

    def __init__(self, tarball: Path, into: Path) -> None:
        self._tarball = tarball
        self._into = into
        self._count = 0
        self._found: dict[PurePosixPath, tarfile.TarInfo] = {}
        self._folders: set[PurePosixPath] = set()
        self.size_bytes = 0

    def take(self, member: tarfile.TarInfo) -> None:
        """Look at the next member. Raises BadTarball, and what the `data` filter does."""
        path = PurePosixPath(member.name)
        self._refuse_strange_name(member, path)
        before = self._found.setdefault(path, member)
        if before is not member and not (before.isdir() and member.isdir()):
            raise self._bad(member, "is there twice")
        self._folders.update(path.parents)
        for at in {path, *path.parents} & self._folders & self._found.keys():
            if not self._found[at].isdir():
                raise self._bad(member, f"makes a folder of {str(at)!r}, which is none")
        self._count += 1
        if self._count > MAX_MEMBERS:
            raise self._bad(member, f"is one more than the {MAX_MEMBERS} that are taken")
        if member.isreg():
            self.size_bytes += member.size
        elif member.issym() or member.islnk():
            self._refuse_link_out(member, path)
        elif not member.isdir():
            raise self._bad(member, "is no file, folder or link")
        if self.size_bytes > MAX_BYTES:
            raise self._bad(member, f"makes it more than the {MAX_BYTES} bytes that are taken")
        tarfile.data_filter(member, str(self._into))

    def root(self) -> PurePosixPath:
        """Return the folder with the program in it."""
        tops = {path.parts[0] for path in self._found if path.parts}
        for folder in (PurePosixPath(), *map(PurePosixPath, tops if len(tops) == 1 else ())):
            program = self._found.get(folder / PROGRAM)
            if program is not None and program.isreg() and program.mode & stat.S_IXUSR:
                return folder
        raise BadTarball(
            f"{self._tarball} holds no program {PROGRAM}, neither at its top nor in its only "
            "folder: it is no embeddable Lemonade server",
            evidence={"path": str(self._tarball), "expected": PROGRAM},
        )

    def _refuse_strange_name(self, member: tarfile.TarInfo, path: PurePosixPath) -> None:
        is_plain = member.name.isprintable() and len(member.name) <= MAX_NAME
        if path.is_absolute() or ".." in path.parts or not is_plain or path.name == NOTE:
            raise self._bad(member, "has a name that leads elsewhere, or is none to be had")

    def _refuse_link_out(self, member: tarfile.TarInfo, path: PurePosixPath) -> None:
        """Refuse a link that leads out: `..` goes up from real folders, at its beginning alone."""
        to = PurePosixPath(member.linkname)
        if member.islnk():
            if to not in self._found or not self._found[to].isreg():
                raise self._bad(member, f"is a link to {member.linkname!r}, no file before it")
            return
        ups = next((n for n, part in enumerate(to.parts) if part != ".."), len(to.parts))
        is_out = to.is_absolute() or ups >= len(path.parts) or ".." in to.parts[ups:]
        if is_out or not to.parts:
            raise self._bad(member, f"is a link that leads out, to {member.linkname!r}")

    def _bad(self, member: tarfile.TarInfo, how: str) -> BadTarball:
        return BadTarball(
            f"{self._tarball}: {member.name[:MAX_NAME]!r} {how}; nothing was unpacked",
            evidence={"path": str(self._tarball), "member": member.name[:MAX_NAME]},
        )


@contextmanager
def _sound(tarball: Path) -> Iterator[None]:
    """Turn what is wrong with the archive itself into BadTarball."""
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, LZMAError) as exc:
        raise _unsound(tarball, exc) from exc
    except OSError as exc:
        if exc.errno is None:  # bz2 and gzip say so of a stream that is damaged
            raise _unsound(tarball, exc) from exc
        raise


def _unsound(tarball: Path, exc: Exception) -> BadTarball:
    return BadTarball(
        f"{tarball} cannot be unpacked: {exc}", evidence={"path": str(tarball), "reason": str(exc)}
    )


def _settle(folder: Path) -> None:
    """Let all read what is in a folder, and have it on the disk."""
    for at, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(at, name)
            if path.is_symlink():
                continue
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                is_program = os.fstat(fd).st_mode & stat.S_IXUSR
                os.fchmod(fd, OPEN_TO_ALL if is_program else READ_BY_ALL)
                os.fsync(fd)
            finally:
                os.close(fd)
        Path(at).chmod(OPEN_TO_ALL)
        sync_folder(Path(at))
