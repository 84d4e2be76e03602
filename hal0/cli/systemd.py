"""`hal0 systemd install`: hal0 as services of this machine.

Nothing is enabled or started, and nothing outside of the prefix is written: what is to be done next
is said.
"""

import errno
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from hal0.cli import units
from hal0.cli.exits import Failure
from hal0.cli.show import emit, json_option


def _absolute(_ctx: click.Context, _option: click.Parameter, prefix: Path) -> Path:
    if not prefix.is_absolute() or ".." in prefix.parts:
        raise click.BadParameter(f"{prefix} is no absolute path")
    return prefix


@click.group()
def systemd() -> None:
    """Write the units that run hal0 as services."""


@systemd.command(short_help="Write the units; say what to do next.")
@click.option(
    "--prefix",
    type=click.Path(file_okay=False, path_type=Path),
    default=units.LIVE[0],
    show_default=True,
    callback=_absolute,
    help="Below which folder, as in /usr/local/lib/systemd/system.",
)
@click.option("--lemond", type=Path, help="Where the Lemonade server is, if not in PATH.")
@click.option("--dry-run", is_flag=True, help="Write nothing; print what would be written.")
@click.option("--yes", is_flag=True, help="Ask nothing; in a script nothing is asked anyway.")
@json_option
def install(prefix: Path, lemond: Path | None, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Write the units for the hal0 that you call, and say what to do next."""
    hal0 = units.this_hal0()
    files = list(units.files(prefix, hal0, units.plain(lemond) if lemond else units.found_lemond()))
    anothers = None if lemond else units.anothers_lemond(prefix)
    warnings = list(_warnings(hal0))
    for line in warnings:
        click.echo(line, err=True)
    to_do = list(_next(prefix, anothers))
    if dry_run:
        shown = [{"path": str(file.path), "text": file.text} for file in files]
        emit({"files": shown, "warnings": warnings, "next": to_do}, as_json, lambda: _print(files))
        click.echo("\n".join(to_do), err=True)
        return
    can_ask = sys.stdin.isatty() and sys.stderr.isatty()
    if warnings and can_ask and not yes and not click.confirm("Write them?", err=True):
        raise Failure("nothing was written")
    states = {str(file.path): _write(file, anothers) for file in files}
    listed = [{"path": path, "state": state} for path, state in states.items()]
    emit({"files": listed, "warnings": warnings, "next": to_do}, as_json, lambda: _tell(states))
    click.echo("\n".join(to_do), err=True)


def _write(file: units.InstalledFile, anothers_lemond: Path | None) -> units.State:
    if anothers_lemond is not None and file.path.name == units.LEMOND:
        return "left out"
    try:
        return file.write()
    except OSError as exc:
        is_denied = exc.errno in (errno.EACCES, errno.EPERM)
        to_do = "run this as root" if is_denied else "see to what is there"
        raise Failure(
            f"{exc.filename or file.path} cannot be written: {exc.strerror}; {to_do}, or name "
            "another --prefix"
        ) from exc


def _print(files: list[units.InstalledFile]) -> None:
    for file in files:
        click.echo(f"# {file.path}\n{file.text}")


def _tell(states: dict[str, units.State]) -> None:
    for path, state in states.items():
        click.echo(f"{state.ljust(9)}  {path}")


def _warnings(hal0: Path) -> Iterator[str]:
    """Yield why the units would not work."""
    for path in units.unseen(hal0):
        yield (
            f"WARNING: the units see nothing of {path}: install hal0 elsewhere, with a Python "
            "that lies elsewhere too, and call this again from there"
        )


def _next(prefix: Path, anothers_lemond: Path | None) -> Iterator[str]:
    """Yield the lines that say what is left to do."""
    if anothers_lemond is not None:
        yield f"{units.LEMOND} is left to {anothers_lemond}; --lemond PATH writes hal0's own"
    if prefix not in units.LIVE:
        yield f"systemd does not look below {prefix}: bring the files to /usr/local or /usr"
    yield "Next, as root:"
    yield "  systemd-sysusers hal0.conf && systemd-tmpfiles --create hal0.conf"
    yield "  systemctl daemon-reload"
    yield "  systemctl enable hal0.target hal0-api hal0-worker@1 hal0-worker@2 hal0-engine"
    yield "  systemctl restart hal0.target"
    yield "For a Lemonade server: enable lemond instead of hal0-engine, set HAL0_ENGINE_URL, and"
    yield "write LEMONADE_API_KEY=KEY into /etc/hal0/lemond.env: without it lemond does not start."
    yield f"Settings go to /etc/hal0/hal0.env; see {prefix / units.PLACES['hal0.env.example']}"
