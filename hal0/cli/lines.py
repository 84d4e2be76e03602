"""Where progress is shown: a bar on a terminal, else one line for each step; stderr either way."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import click

from hal0.cli.show import console, size_of
from hal0.cli.times import in_local_time
from hal0.masks import escaped

if TYPE_CHECKING:
    from rich.progress import Progress


class Screen(Protocol):
    """What a command can show while it waits."""

    def line(self, text: str) -> None:
        """Show something that has happened."""
        ...

    def progress(self, text: str, done: int, total: int, pace: str = "") -> None:
        """Show how far something is; a total of 0 = nobody knows."""
        ...


class Lines:
    """A line for each text that is new: a job may go to and fro between two states for minutes."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def line(self, text: str) -> None:
        """Print it."""
        click.echo(_shown(text), err=True)

    def progress(self, text: str, done: int, total: int, pace: str = "") -> None:
        """Print the text if it was never said, or a tenth more of it is done."""
        said = f"{text} ({done * 10 // total * 10} %)" if total else text
        if said not in self._said:
            self._said.add(said)
            click.echo(_shown(f"{said} {pace}".rstrip()), err=True)


class Bar:
    """A bar at the bottom of a terminal; lines scroll above it."""

    def __init__(self, bar: "Progress") -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None)

    def line(self, text: str) -> None:
        """Print it above the bar."""
        self._bar.console.print(_shown(text), highlight=False, markup=False)

    def progress(self, text: str, done: int, total: int, pace: str = "") -> None:
        """Move the bar."""
        shown = _shown(f"{text} {pace}".rstrip())
        self._bar.update(self._task, description=shown, completed=done, total=total or None)


def _shown(text: str) -> str:
    return in_local_time(escaped(text))


def share_of(done: int, total: int) -> str:
    """Return how much of some bytes is done: `16.0 MiB of 93.8 MiB (17 %)`."""
    return f"{size_of(done)} of {size_of(total)} ({100 * done // total} %)"


def pace_of(rate_bytes_s: float | None, left_s: float | None) -> str:
    """Return how fast something goes, and how long it will yet, as far as anyone knows."""
    if not rate_bytes_s:
        return ""
    pace = f"{size_of(int(rate_bytes_s))}/s"
    if not left_s:
        return pace
    minutes, seconds = divmod(round(left_s), 60)
    return f"{pace}, {minutes}:{seconds:02} left"


@contextmanager
def screen() -> Iterator[Screen]:
    """Give the screen that fits to where stderr goes."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        yield Bar(bar)
