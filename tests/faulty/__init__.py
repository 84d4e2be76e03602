"""Faults of the disk, of datagrams and of the wall clock, switched while real processes run.

faulty = Faulty(tmp_path / "faults", shim)       # `shim`: a fixture, the library of shim.c
house.env |= faulty.env                          # for the processes that are started next
faulty.order("sync", nth=3, act=errno.EIO)       # the third fsync of the log fails, once
faulty.order("sync", times=0)                    # all of them fail, until `faulty.heal()`
faulty.set_clock(-3600)
"""

import errno
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Literal

import pytest

SOURCE = Path(__file__).with_name("shim.c")

Call = Literal["sync", "write", "change", "send"]


def build(folder: Path) -> Path:
    """Compile the library; skips the test where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler here (Debian: gcc, libc6-dev)")
    library = folder / "faulty.so"
    command = [compiler, "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]
    subprocess.run([*command, str(library), str(SOURCE), "-ldl"], check=True)
    return library


class Faulty:
    """The faults of the processes that are started with its environment."""

    def __init__(self, folder: Path, library: Path) -> None:
        folder.mkdir()
        self.env = {"LD_PRELOAD": str(library), "FAULTY": str(folder)}
        self._folder = folder
        self._orders = 0

    def order(
        self,
        call: Call,
        *,
        nth: int = 1,
        times: int = 1,
        act: "int | signal.Signals" = errno.EIO,
        path: str = "/hal0.db-wal",
    ) -> None:
        """Let the nth such call from now on, and `times` in all (0 = for ever), go wrong.

        It fails with the errno `act`, or the process gets that signal. Each process counts its own.
        """
        self._orders += 1
        what = -act if isinstance(act, signal.Signals) else act
        self._write("fault", f"{self._orders} {call} {nth} {times} {what} {path}")

    def heal(self) -> None:
        """Let every call be as it should."""
        self._write("fault", "")

    def set_clock(self, wrong_by_s: int) -> None:
        """Set the wall clock; the monotonic one stays."""
        self._write("clock", str(wrong_by_s))

    def hits(self) -> list[str]:
        """Return the paths of the calls that went wrong, in order."""
        path = self._folder / "hits"
        return [line.split()[2] for line in path.read_text().splitlines()] if path.exists() else []

    def _write(self, name: str, text: str) -> None:
        new = self._folder / f"{name}.new"
        new.write_text(text)
        new.replace(self._folder / name)
