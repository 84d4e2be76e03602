"""`hal0 top`: slots and jobs as they are now, again each second, also when the API was away.

A thread asks, so that a key and Ctrl-C are heard while an API does not answer.
"""

import signal
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import click

from hal0.cli.client import Api
from hal0.cli.exits import Exit, Failure
from hal0.cli.glance import Glance, Looker
from hal0.cli.keys import keys
from hal0.cli.show import console, emit, knows_its_width, rich_table, table
from hal0.cli.status import incident_lines, slot_rows, told
from hal0.cli.times import clock_of, in_local_time
from hal0.clock import utc_now
from hal0.masks import escaped

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.segment import Segment

    Lines = list[list[Segment]]

EVERY_S: Final = 1.0
LISTEN_S: Final = 0.25
"""How long a key is waited for before the picture is looked at again."""


@click.command()
@click.option("--once", is_flag=True, help="Show it once, as text; so it is in a pipe too.")
@click.option("--json", "as_json", is_flag=True, help="Print it once, as JSON, as `status` does.")
def top(once: bool, as_json: bool) -> int:
    """Show slots and jobs live: progress, rates, how long it usually takes, when idle.

    q, or Ctrl-C, ends it. While the API is away the last picture stays, and says since when.
    """
    looker = Looker(Api.from_settings())
    seen = looker.look()
    if once or as_json or not knows_its_width():
        emit(told(seen), as_json, lambda: _print(seen))
        return Exit.OK
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _watch(Watcher(looker, seen))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    return Exit.OK


class Watcher:
    """The newest look, and since when there is none."""

    def __init__(self, looker: Looker, seen: Glance) -> None:
        self.seen = seen
        self.away: str | None = None
        self._looker = looker
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a question that is under way is given up with the process."""
        self._is_over.set()

    def _look(self) -> None:
        while not self._is_over.wait(EVERY_S):
            try:
                self.seen = self._looker.look()
                self.away = None
            except Failure as failure:
                if self.away is None:
                    self.away = f"away since {clock_of(utc_now().isoformat())}: {failure.text}"


def _watch(watcher: Watcher) -> None:
    from rich.live import Live

    with keys() as read, Live(console=console(), screen=True, auto_refresh=False) as live:
        try:
            key = ""
            while key != "q":
                live.update(picture(watcher.seen, watcher.away, live.console), refresh=True)
                key = read(LISTEN_S)
        finally:
            watcher.stop()


def picture(seen: Glance, away: str | None, terminal: "Console") -> "RenderableType":
    """Return a look as a terminal shows it: where that is too low, no part crowds others out."""
    from rich.console import Group
    from rich.text import Text

    style = "red" if away or seen.troubles else ""
    head = Group(
        Text(f"hal0 {clock_of(utc_now().isoformat())}   q ends", style="dim"),
        Text(in_local_time(escaped(away or seen.sentence)), style=style),
    )
    parts: list[tuple[RenderableType, str]] = [
        (rich_table(*slot_rows(seen), terminal.width), "`hal0 slot list` has all"),
        (rich_table(*job_rows(seen), terminal.width), "`hal0 job list` has all"),
        (Group(*(Text(line) for line in _below(seen))), "`hal0 status` has all"),
    ]
    drawn = [terminal.render_lines(part) for part, _ in parts]
    room = terminal.height - len(terminal.render_lines(head)) - len(parts)
    given = shares([len(lines) for lines in drawn], room)
    shown: list[RenderableType] = [head]
    for lines, count, (_, where) in zip(drawn, given, parts, strict=True):
        if count:
            shown += [Text(), *_cut(lines, count, f"… {where}")]
    return Group(*shown)


def shares(wanted: Sequence[int], room: int) -> list[int]:
    """Return how many lines each part gets: all that it wants, else as much as any other gets."""
    given = [0] * len(wanted)
    by_size = sorted(range(len(wanted)), key=lambda part: wanted[part])
    for place, part in enumerate(by_size):
        given[part] = max(0, min(wanted[part], room // (len(wanted) - place)))
        room -= given[part]
    return given


def _cut(lines: "Lines", count: int, rest: str) -> "Iterator[RenderableType]":
    """Yield so many lines at most, the last of them then what is said of the others."""
    from rich.segment import SegmentLines
    from rich.text import Text

    if len(lines) <= count:
        yield SegmentLines(lines, new_lines=True)
        return
    yield SegmentLines(lines[: count - 1], new_lines=True)
    yield Text(rest, style="dim")


def job_rows(seen: Glance) -> tuple[list[str], list[list[object]]]:
    """Return what runs and what waits as a table."""
    headers = ["job", "slot", "kind", "state", "model", "by", "how far"]
    return headers, [
        [
            *(job[name] for name in ("id", "slot", "kind", "state", "model", "actor")),
            seen.progress_of(job),
        ]
        for job in seen.jobs
    ]


def _below(seen: Glance) -> Iterator[str]:
    lines = (*(trouble.sentence for trouble in seen.troubles[1:]), *incident_lines(seen))
    return (in_local_time(escaped(line)) for line in lines)


def _print(seen: Glance) -> None:
    click.echo(in_local_time(escaped(seen.sentence)))
    table(*slot_rows(seen))
    if seen.jobs:
        table(*job_rows(seen))
    for line in _below(seen):
        click.echo(line)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
