"""How results look: JSON, a table for people, plain columns for pipes."""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from hal0.masks import escaped

COLOURS: Final = {
    "ready": "green",
    "serving": "cyan",
    "idle": "green",
    "pulling": "blue",
    "starting": "yellow",
    "warming": "yellow",
    "unloading": "magenta",
    "error": "red",
    "failed": "red",
    "succeeded": "green",
    "running": "cyan",
    "queued": "yellow",
}
Row = Sequence[object]
LAST_COLUMN: Final = 30
"""So wide the last column is at least, where it needs that: the others are not broken for it."""

json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def as_json_text(data: object) -> str:
    """Return indented JSON that does nothing to a terminal."""
    return escaped(json.dumps(data, indent=2, ensure_ascii=False), keep="\n")


def emit(data: object, as_json: bool, show: Callable[[], None]) -> None:
    """Print `data` as JSON, or call what shows it to people."""
    if as_json:
        click.echo(as_json_text(data))
    else:
        show()


def table(headers: Sequence[str], rows: Sequence[Row]) -> None:
    """Print rows: coloured on a terminal, else columns of plain text that nothing cuts."""
    texts = [[_text(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich_table(headers, texts)
        return
    widths = [
        max(len(line[column]) for line in [list(headers), *texts]) for column in range(len(headers))
    ]
    for line in [[header.upper() for header in headers], *texts]:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def _rich_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        shown.add_column(header.upper(), overflow="fold", no_wrap=header != headers[-1])
    for row in rows:
        shown.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    console = Console()
    longest = [max(map(len, column)) + 2 for column in zip(headers, *rows, strict=True)]
    longest[-1] = min(longest[-1], LAST_COLUMN)
    console.width = max(console.width, sum(longest))
    console.print(shown)


def facts(data: dict[str, Any]) -> None:
    """Print one thing, a field a line; what is nested, indented."""
    width = max(map(len, data), default=0)
    for name, value in data.items():
        if isinstance(value, dict) and value:
            click.echo(f"{name}:")
            for inner, content in value.items():
                click.echo(f"  {inner}: {_text(content)}")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            click.echo(f"{name}:")
            for entry in value:
                click.echo("  " + ", ".join(f"{key}={_text(of)}" for key, of in entry.items()))
        elif isinstance(value, list) and value and isinstance(value[0], str):
            click.echo(f"{name}:")
            for text in value:
                click.echo(f"  {_text(text)}")
        else:
            click.echo(f"{name.ljust(width)}  {_text(value)}")


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict | list):
        return escaped(json.dumps(value, ensure_ascii=False)) if value else "-"
    return escaped(str(value))


def clock_of(at: str | None) -> str:
    """Return the date and time of an instant, to the second, in UTC as all else that hal0 says."""
    return "-" if at is None else f"{at[:10]} {at[11:19]}Z"


def size_of(count: int | None) -> str:
    """Return bytes in the unit that fits."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
