"""Where a Lemonade server is: its programs, what it writes itself, the models that it serves.

    home             programs                     state                    who starts it
    /var/lib/hal0    /usr/local/lib/hal0-lemond   /var/lib/hal0/lemonade   lemond.service
    any other        $HAL0_HOME/lemond            $HAL0_HOME/lemonade      who runs `hal0 up`

The home of the units belongs to the user that the server runs as; programs that root installs for
it lie where that user can change nothing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from hal0.settings import Settings

HOME_OF_UNITS: Final = Path("/var/lib/hal0")
PROGRAMS_OF_UNITS: Final = Path("/usr/local/lib/hal0-lemond")
PROGRAM: Final = "lemond"
CURRENT: Final = "current"
CONFIG: Final = "config.json"
NOTE: Final = "hal0-pin.json"
"""In each version's folder: the pin that it was made by."""


@dataclass(frozen=True, slots=True)
class Places:
    """The folders, all absolute."""

    home: Path
    programs: Path
    models: Path

    @classmethod
    def of(cls, settings: "Settings", programs: Path | None = None) -> Self:
        """Return where things are for a home, its programs elsewhere if that is asked for."""
        home = settings.home.absolute()
        usual = PROGRAMS_OF_UNITS if home == HOME_OF_UNITS else home / "lemond"
        return cls(home, (programs or usual).absolute(), settings.models.absolute())

    @property
    def state(self) -> Path:
        """The server's own folder, in which its `config.json` is."""
        return self.home / "lemonade"

    @property
    def config(self) -> Path:
        """The server's settings."""
        return self.state / CONFIG

    @property
    def program(self) -> Path:
        """What to start, whichever version is current."""
        return program_in(self.programs)

    @property
    def are_for_units(self) -> bool:
        """Whether `lemond.service` is what starts it."""
        return self.home == HOME_OF_UNITS

    @property
    def are_open_to_all(self) -> bool:
        """Whether every user may run the programs: those outside of a home, as others there."""
        return not self.programs.is_relative_to(self.home)


def program_in(programs: Path) -> Path:
    """Return what to start of the versions in a folder."""
    return programs / CURRENT / PROGRAM
