"""How results look: JSON, a table for people, plain columns for pipes."""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

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

json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def as_json_text(data: object) -> str:
    """Return indented JSON."""
    return json.dumps(data, indent=2, ensure_ascii=False)


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
        shown.add_column(header, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    Console().print(shown)


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
        else:
            click.echo(f"{name.ljust(width)}  {_text(value)}")


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False) if value else "-"
    return str(value)


def clock_of(at: str | None) -> str:
    """Return the local date and time of an instant, to the second."""
    if at is None:
        return "-"
    from datetime import datetime

    return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


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
