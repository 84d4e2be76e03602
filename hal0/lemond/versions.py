"""Which versions of a Lemonade server are there, and which one a start runs: folders and two links.

    DIR/versions/NAME            what a tarball held; NAME is of its version and its digest
    DIR/current, DIR/previous    links to two of them
    DIR/downloads                a tarball on its way (`registry/part.py`), or kept as `.bad`
    DIR/lock                     held by the one who changes any of it

`current` alone decides, and one rename replaces it. A folder has its NAME when it is whole and on
the disk; what begins with a dot is left of somebody who died. `previous` is written before
`current`: who dies in between leaves both at the version that was current, and nothing to go back
to until the install is run again. Going back moves `current` alone, so it cannot be repeated; the
way forward is to install the other pin again, which fetches nothing while its folder is there.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
from pydantic import ValidationError

from hal0.errors import NoPreviousVersion
from hal0.folders import make_folder, sync_folder
from hal0.lemond.pin import Pin
from hal0.lemond.places import CURRENT, NOTE

VERSIONS: Final = "versions"


@dataclass(frozen=True, slots=True)
class Version:
    """One version that is there; without a pin, somebody else had a hand in its folder."""

    name: str
    path: Path
    pin: Pin | None
    is_current: bool
    is_previous: bool


class Versions:
    """The versions below one folder; whoever changes them holds `lock`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.downloads = folder / "downloads"
        self._versions = folder / VERSIONS
        self._current_link = folder / CURRENT
        self._previous_link = folder / "previous"

    @property
    def current(self) -> str | None:
        """Name of the version that a start runs; None = there is none."""
        return self._name_at(self._current_link)

    @property
    def previous(self) -> str | None:
        """Name of the version to which `roll_back` goes; None = there is none."""
        name = self._name_at(self._previous_link)
        return None if name == self.current else name

    def all(self) -> list[Version]:
        """Return what is there, by name."""
        current, previous = self.current, self.previous
        names = sorted(path.name for path in self._folders() if not path.name.startswith("."))
        return [
            Version(name, self.path_of(name), self._pin(name), name == current, name == previous)
            for name in names
        ]

    def path_of(self, name: str) -> Path:
        """Return the folder of a version."""
        return self._versions / name

    def staging_of(self, name: str) -> Path:
        """Return where a version is made before it has its name."""
        return self._versions / f".{name}.new"

    @contextmanager
    def lock(self, on_wait: Callable[[], None]) -> Iterator[None]:
        """Be the only one who changes the versions, and take away what others left half done.

        `on_wait` is called when somebody else is at it.
        """
        make_folder(self._versions)
        fd = os.open(
            self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
        )
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(fd, fcntl.LOCK_EX)
            for path in self._folders():
                if path.name.startswith("."):
                    shutil.rmtree(path)
            yield
        finally:
            os.close(fd)

    def add(self, pin: Pin, made: Path) -> None:
        """Give a whole folder, all of it on the disk, the name of its version."""
        with (made / NOTE).open("x", encoding="utf-8") as note:
            shown = pin.model_copy(update={"tarball_url": pin.source.shown})
            note.write(f"{shown.model_dump_json(indent=2)}\n")
            note.flush()
            os.fsync(note.fileno())
        sync_folder(made)
        made.rename(self.path_of(pin.name))
        sync_folder(self._versions)

    def switch_to(self, name: str) -> None:
        """Make a version current, and the one that was current the previous one."""
        before = self.current
        if before == name:
            return
        if before is not None:
            self._point(self._previous_link, before)
        self._point(self._current_link, name)

    def roll_back(self) -> str:
        """Make the previous version current and return its name. Raises NoPreviousVersion."""
        previous = self.previous
        if previous is None:
            raise NoPreviousVersion(
                f"{self.folder} has no version to go back to; `hal0 lemond install --pin FILE` "
                "installs any",
                evidence={"path": str(self.folder), "current": self.current},
            )
        self._point(self._current_link, previous)
        return previous

    def drop_others(self) -> None:
        """Take away every version that is neither current nor previous, unless it still runs."""
        for path in self._folders():
            if path.name not in {self.current, self.previous} and not _is_run(path):
                rubbish = path.with_name(f".{path.name}.old")
                path.rename(rubbish)  # half of a version must not have the name of a whole one
                shutil.rmtree(rubbish)

    def _folders(self) -> list[Path]:
        """Return the real folders among the versions, rubbish too."""
        if not self._versions.is_dir():
            return []
        return [one for one in self._versions.iterdir() if one.is_dir() and not one.is_symlink()]

    def _name_at(self, link: Path) -> str | None:
        try:
            to = link.readlink()
        except OSError:
            return None
        is_ours = to == Path(VERSIONS, to.name) and self.path_of(to.name).is_dir()
        return to.name if is_ours else None

    def _pin(self, name: str) -> Pin | None:
        try:
            return Pin.model_validate_json((self.path_of(name) / NOTE).read_bytes())
        except (OSError, ValidationError):
            return None

    def _point(self, link: Path, name: str) -> None:
        spare = link.with_name(f".{link.name}.new")
        spare.unlink(missing_ok=True)
        spare.symlink_to(Path(VERSIONS, name))
        spare.replace(link)
        sync_folder(self.folder)


def _is_run(folder: Path) -> bool:
    """Tell whether a process that we may look at runs a program of this folder."""
    real = folder.resolve()
    programs = (process.info["exe"] for process in psutil.process_iter(["exe"]))
    return any(Path(program).is_relative_to(real) for program in programs if program)
