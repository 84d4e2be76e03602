"""What `hal0 systemd install` installs: the templates of systemd/, filled, and where each goes.

    PREFIX/lib/systemd/system   hal0.target, hal0-*.service, lemond.service
    PREFIX/lib/sysusers.d       the user of all of them
    PREFIX/lib/tmpfiles.d       their folders
    PREFIX/share/hal0           an example of their settings

The templates ship in the wheel as `hal0/_systemd`.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from hal0.cli.exits import Failure
from hal0.lemond.places import PROGRAMS_OF_UNITS, program_in

PLACES: Final = {
    "sysusers.conf": "lib/sysusers.d/hal0.conf",
    "tmpfiles.conf": "lib/tmpfiles.d/hal0.conf",
    "hal0.env.example": "share/hal0/hal0.env.example",
}
UNITS: Final = "lib/systemd/system"
LEMOND: Final = "lemond.service"
OTHERS: Final = (Path("/etc/systemd/system"), Path("/usr/lib/systemd/system"))
"""Where a unit lies that somebody else installed."""

LIVE: Final = (Path("/usr/local"), Path("/usr"))
"""The prefixes below which systemd looks."""
HIDDEN: Final = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))  # noqa: S108
"""What the units see nothing of (ProtectHome=, PrivateTmp=)."""
PLAIN: Final = re.compile(r"/[\w./+@-]+", re.ASCII)
"""Paths that need no quotes in a unit file."""

State = Literal["written", "unchanged", "left out"]


@dataclass(frozen=True, slots=True)
class InstalledFile:
    """One file as it is to be."""

    path: Path
    text: str

    def write(self) -> State:
        """Bring it to its place, readable by all, unless it is there already. Raises OSError."""
        if self.path.exists() and self.path.read_text(encoding="utf-8") == self.text:
            return "unchanged"
        for folder in reversed([one for one in self.path.parents if not one.exists()]):
            folder.mkdir()
            folder.chmod(0o755)
        part = self.path.with_name(f".{self.path.name}.part")
        part.unlink(missing_ok=True)  # of an install that was killed, or a link to follow
        with part.open("x", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(self.text)
        part.replace(self.path)
        return "written"


def files(prefix: Path, hal0: Path, lemond: Path) -> Iterator[InstalledFile]:
    """Yield every file below `prefix`, for these two programs."""
    for template in sorted(templates().iterdir()):
        place = PLACES.get(template.name)
        if template.suffix in {".service", ".target"}:
            place = f"{UNITS}/{template.name}"
        if place is not None:
            text = template.read_text(encoding="utf-8")
            text = text.replace("@HAL0@", str(hal0)).replace("@LEMOND@", str(lemond))
            yield InstalledFile(prefix / place, text)


def templates() -> Path:
    """Return where the templates lie: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).parents[1]
    shipped = package / "_systemd"
    return shipped if shipped.is_dir() else package.parent / "systemd"


def this_hal0() -> Path:
    """Return the command of the installation that runs now; raises Failure."""
    command = Path(sys.executable).with_name("hal0")
    if not command.is_file():
        raise Failure(
            f"there is no command hal0 beside {sys.executable}: install hal0 into a venv of its "
            "own, and call that one's"
        )
    return plain(command)


def found_lemond(programs: Path = PROGRAMS_OF_UNITS) -> Path:
    """Return where the Lemonade server is, or is to be; one that hal0 installed comes first."""
    installed = program_in(programs)
    if installed.is_file():
        return installed
    return plain(Path(shutil.which("lemond") or "/usr/bin/lemond"))


def plain(program: Path) -> Path:
    """Return the path of a program if a unit file takes it as it is; raises Failure."""
    if PLAIN.fullmatch(str(program)):
        return program
    raise Failure(f"{program} must be absolute, and of letters, digits and . _ + @ - alone")


def unseen(hal0: Path) -> list[Path]:
    """Return what of this installation the units would see nothing of."""
    needed = {hal0, Path(sys.prefix), Path(sys.base_prefix)}
    return sorted(one for one in needed if any(one.is_relative_to(folder) for folder in HIDDEN))


def anothers_lemond(prefix: Path, places: tuple[Path, ...] = OTHERS) -> Path | None:
    """Return the `lemond.service` that Lemonade brought itself, which ours would hide."""
    for path in (folder / LEMOND for folder in (*places, prefix / UNITS)):
        if path.is_file() and "hal0" not in path.read_text(encoding="utf-8", errors="replace"):
            return path
    return None
