"""How results look: JSON, a table for people, plain columns for pipes."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from hal0.cli.times import in_local_time
from hal0.masks import escaped

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

F = TypeVar("F", bound=Callable[..., Any])

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
quiet_option: Final = click.option(
    "--quiet", "-q", "is_quiet", is_flag=True, help="Print names alone; of jobs and incidents ids."
)


def list_options(function: F) -> F:
    """Add how a list is printed."""
    return quiet_option(json_option(function))


def as_json_text(data: object) -> str:
    """Return indented JSON that does nothing to a terminal."""
    return escaped(json.dumps(data, indent=2, ensure_ascii=False), keep="\n")


def emit(data: object, as_json: bool, show: Callable[[], None]) -> None:
    """Print `data` as JSON, or call what shows it to people."""
    if as_json:
        click.echo(as_json_text(data))
    else:
        show()


def emit_list(
    items: Sequence[Mapping[str, Any]],
    key: str,
    show: Callable[[], None],
    *,
    as_json: bool,
    is_quiet: bool,
) -> None:
    """Print a list as JSON, or the field `key` of each a line, or call what shows it to people."""
    if as_json or not is_quiet:
        emit({"items": items}, as_json, show)
        return
    for item in items:
        click.echo(escaped(str(item[key])))


def console(*, stderr: bool = False) -> "Console":
    """Return the terminal, without colours where NO_COLOR or --no-color says so."""
    from rich.console import Console

    context = click.get_current_context(silent=True)
    is_plain = context is not None and context.color is False
    return Console(stderr=stderr, no_color=is_plain or None)


def knows_its_width() -> bool:
    """Whether standard output is a terminal with lines of a known length, where colours show."""
    if not sys.stdout.isatty() or console().is_dumb_terminal:
        return False
    return "COLUMNS" in os.environ or os.get_terminal_size(sys.stdout.fileno()).columns > 0


def table(headers: Sequence[str], rows: Sequence[Row]) -> None:
    """Print rows: as they fit on a terminal, else columns of plain text that nothing cuts."""
    if knows_its_width():
        terminal = console()
        terminal.print(rich_table(headers, rows, terminal.width))
        return
    texts = [[text_of(cell) for cell in row] for row in rows]
    widths = [
        max(len(line[column]) for line in [list(headers), *texts]) for column in range(len(headers))
    ]
    for line in [[header.upper() for header in headers], *texts]:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def rich_table(headers: Sequence[str], rows: Sequence[Row], width: int) -> "RenderableType":
    """Return rows as a terminal of this width shows them."""
    from hal0.cli.layout import laid_out

    texts = [[text_of(cell) for cell in row] for row in rows]
    return laid_out(headers, texts, width, COLOURS)


def facts(data: Mapping[str, Any]) -> None:
    """Print one thing, a field a line; what is nested, indented. Bytes are said as sizes."""
    width = max((len(_name_of(name)) for name in data), default=0)
    for name, value in data.items():
        inner = list(_lines_of(value))
        if inner:
            click.echo(f"{name}:")
            for line in inner:
                click.echo(f"  {line}")
        else:
            click.echo(f"{_name_of(name).ljust(width)}  {_value_of(name, value)}")


def _lines_of(value: object) -> Iterator[str]:
    """Yield what stands below a field: nothing for what fits beside its name."""
    if isinstance(value, dict):
        yield from (f"{_name_of(name)}: {_value_of(name, of)}" for name, of in value.items())
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for entry in value:
            told = (f"{_name_of(name)}={_value_of(name, of)}" for name, of in entry.items())
            yield ", ".join(told)
    elif isinstance(value, list) and value and isinstance(value[0], str):
        yield from map(text_of, value)


def _name_of(field: str) -> str:
    return field.removesuffix("_bytes").removesuffix("_bytes_s")


def _value_of(field: str, value: object) -> str:
    if field.endswith("_bytes") and isinstance(value, int):
        return size_of(value)
    if field.endswith("_bytes_s") and isinstance(value, int):
        return f"{size_of(value)}/s"
    return text_of(value)


def text_of(value: object) -> str:
    """Return what a cell or a field says: nothing that acts on a terminal, times local."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict | list):
        text = json.dumps(value, ensure_ascii=False) if value else "-"
    else:
        text = str(value)
    return in_local_time(escaped(text))


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
