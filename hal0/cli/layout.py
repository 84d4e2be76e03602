"""How a table stands on a terminal: a row in a line, else what has no room is named below its row.

Nothing is cut and no word is broken, for names and ids are there to be copied. Where there is
little room, times leave out what all of them share: the zone, which then stands in the head, and
this year.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from hal0.clock import utc_now

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text

LAST_COLUMN: Final = 30
"""So wide the last column is at least, where it needs that; more is folded."""
GAP: Final = 2
TIME: Final = re.compile(r"(\d{4}-)(\d\d-\d\d \d\d:\d\d:\d\d) (\S+)", re.ASCII)

Texts = Sequence[Sequence[str]]


def laid_out(
    headers: Sequence[str], rows: Texts, width: int, colours: Mapping[str, str]
) -> "RenderableType":
    """Return rows for a terminal of this width; a cell that is a key of `colours` has its style."""
    whole = [*zip(headers, *rows, strict=True)]
    short = [_short(header, cells) for header, *cells in whole]
    for columns in (whole, short):
        widths = _widths(columns)
        if _total([*widths[:-1], min(widths[-1], LAST_COLUMN)]) <= width:
            return _beside(columns, colours)
    return _stacked(short, width, colours)


def _widths(columns: Texts) -> list[int]:
    return [max(map(len, column)) for column in columns]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _short(header: str, cells: Sequence[str]) -> tuple[str, ...]:
    found = [TIME.fullmatch(cell) for cell in cells if cell != "-"]
    times = [time for time in found if time is not None]
    zones = {time[3] for time in times}
    if len(times) < len(found) or len(zones) != 1:
        return (header, *cells)
    this_year = f"{utc_now().astimezone():%Y-}"
    kept = r"\2" if {time[1] for time in times} == {this_year} else r"\1\2"
    return f"{header} ({zones.pop()})", *(TIME.sub(kept, cell) for cell in cells)


def _beside(columns: Texts, colours: Mapping[str, str]) -> "Table":
    """Return a table whose last column is folded where it must be."""
    from rich.table import Table

    headers, *rows = zip(*columns, strict=True)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        shown.add_column(_head(header), overflow="fold", no_wrap=header != headers[-1])
    for row in rows:
        shown.add_row(*(_cell(text, len(text), colours) for text in row))
    return shown


def _stacked(columns: Texts, width: int, colours: Mapping[str, str]) -> "Group":
    """Return rows with as many columns as there is room for, and the others named below each."""
    from rich.console import Group
    from rich.text import Text

    headers, *rows = zip(*columns, strict=True)
    widths = _widths(columns)
    fitting = (count for count in range(1, len(widths)) if _total(widths[:count]) <= width)
    kept = max(fitting, default=1)
    heads = zip(map(_head, headers[:kept]), widths, strict=False)
    head = (" " * GAP).join(text.ljust(width) for text, width in heads)
    shown: list[RenderableType] = [Text(head.rstrip(), style="bold")]
    for row in rows:
        cells = zip(row[:kept], widths, strict=False)
        line = Text(" " * GAP).join(_cell(text, width, colours) for text, width in cells)
        line.rstrip()
        shown += [line, *_below(headers[kept:], row[kept:])]
    return Group(*shown)


def _below(headers: Sequence[str], row: Sequence[str]) -> "Iterator[RenderableType]":
    from rich.padding import Padding
    from rich.text import Text

    told = zip(headers, row, strict=True)
    text = ", ".join(f"{header}: {text}" for header, text in told if text != "-")
    if text:
        yield Padding(Text(text, overflow="fold"), (0, 0, 0, GAP))


def _head(header: str) -> str:
    """Return a head in capitals, but for a zone behind it."""
    name, bracket, zone = header.partition(" (")
    return f"{name.upper()}{bracket}{zone}"


def _cell(text: str, width: int, colours: Mapping[str, str]) -> "Text":
    from rich.text import Text

    shown = Text(text, style=colours.get(text, ""), overflow="fold")
    shown.pad_right(width - len(text))
    return shown
