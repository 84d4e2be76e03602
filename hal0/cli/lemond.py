"""`hal0 lemond …`: a Lemonade server of the vendor's, as a pinned part of this machine.

Nothing is started or stopped: what is to be done next is said.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from hal0.cli.exits import Failure
from hal0.cli.lines import screen
from hal0.cli.show import emit, json_option, table
from hal0.errors import SourceFault
from hal0.file_modes import let_others_read

if TYPE_CHECKING:
    from hal0.lemond.install import Installed
    from hal0.lemond.pin import Pin
    from hal0.lemond.places import Places
    from hal0.lemond.versions import Version
    from hal0.settings import Settings

URL: Final = "http://127.0.0.1:13305"
FLAGS: Final = "--host 127.0.0.1 --port 13305 --no-broadcast"
KEY_OF_UNITS: Final = Path("/etc/hal0/engine.key")
ENVIRONMENT_OF_UNIT: Final = Path("/etc/hal0/lemond.env")
WAITING: Final = "somebody else changes the versions: waiting for the end of it"

to_option: Final = click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the versions; default $HAL0_HOME/lemond. For the home of the units it is "
    "/usr/local/lib/hal0-lemond.",
)


@click.group()
def lemond() -> None:
    """Install a Lemonade server by its pin; go back to the version before."""


@lemond.command(short_help="Bring a version by its pin, and make it current.")
@click.option(
    "--pin",
    "pin_file",
    type=click.Path(path_type=Path),
    required=True,
    help="A JSON file: version, tarball_url, sha256.",
)
@to_option
@json_option
def install(pin_file: Path, to: Path | None, as_json: bool) -> None:
    """Fetch, verify and unpack a version, make it current, and say what to do next."""
    from hal0.lemond.pin import Pin
    from hal0.lemond.places import Places
    from hal0.lemond.versions import Versions
    from hal0.settings import Settings

    settings = Settings.load()
    pin = Pin.read(pin_file, settings)
    places = Places.of(settings, to)
    done = _install(pin, places, settings)
    to_do = list(_next(done, settings, places))
    data = {
        "state": done.state,
        "current": done.name,
        "previous": Versions(places.programs).previous,
        "program": str(places.program),
        "config": {"path": str(places.config), "state": done.config},
        "next": to_do,
    }
    emit(data, as_json, lambda: _tell(done, places))
    if to_do:
        click.echo("\n".join(to_do), err=True)


@lemond.command(short_help="Make the version before current again.")
@to_option
@json_option
def rollback(to: Path | None, as_json: bool) -> None:
    """Make the previous version current; the way forward is to install its pin again."""
    from hal0.lemond.install import roll_back

    places = _places(to)
    if places.are_open_to_all:
        let_others_read()
    name = roll_back(places.programs, _say_waiting)
    data = {"current": name, "program": str(places.program)}
    emit(data, as_json, lambda: click.echo(f"current  {name}"))
    click.echo(_restart(places), err=True)


@lemond.command()
@to_option
@json_option
def show(to: Path | None, as_json: bool) -> None:
    """Show which versions are here, and which one a start runs."""
    from hal0.lemond.versions import Versions

    versions = Versions(_places(to).programs)
    there = versions.all()
    data = {
        "folder": str(versions.folder),
        "current": versions.current,
        "previous": versions.previous,
        "items": [_as_json(one) for one in there],
    }
    rows = [[one.name, _role(one), one.pin and one.pin.tarball_url] for one in there]
    emit(data, as_json, lambda: table(["name", "is", "from"], rows))


def _install(pin: "Pin", places: "Places", settings: "Settings") -> "Installed":
    from hal0.lemond.install import install as install_pin
    from hal0.registry.part import Watcher

    if places.are_open_to_all:
        let_others_read()
    with screen() as shown:
        watcher = Watcher(
            on_progress=lambda phase, done, total: shown.progress(
                f"{phase} Lemonade {pin.version}", done, total
            ),
            reserve_bytes=settings.disk_reserve_bytes,
        )
        try:
            return install_pin(pin, places, settings, watcher, _say_waiting)
        except SourceFault as exc:
            again = "Run this again: it goes on behind what came."
            raise Failure(f"{exc.detail} [{exc.code}]", more=[again]) from exc


def _say_waiting() -> None:
    click.echo(WAITING, err=True)


def _places(to: Path | None) -> "Places":
    from hal0.lemond.places import Places
    from hal0.settings import Settings

    return Places.of(Settings.load(), to)


def _tell(done: "Installed", places: "Places") -> None:
    click.echo(f"{done.state.ljust(9)}  {done.name}")
    click.echo(f"{done.config.ljust(9)}  {places.config}")


def _role(version: "Version") -> str | None:
    if version.is_current:
        return "current"
    return "previous" if version.is_previous else None


def _as_json(version: "Version") -> dict[str, object]:
    pin = None if version.pin is None else version.pin.model_dump()
    return {"name": version.name, "is": _role(version), "path": str(version.path), "pin": pin}


def _restart(places: "Places") -> str:
    how = "systemctl restart lemond" if places.are_for_units else "start the server anew"
    return f"Next: {how}"


def _next(done: "Installed", settings: "Settings", places: "Places") -> Iterator[str]:
    """Yield the lines that say what is left to do, all of them when it was set up just now."""
    if done.config == "written":
        yield from _set_up_units(places) if places.are_for_units else _set_up(settings, places)
    elif done.state != "unchanged":
        yield _restart(places)


def _set_up(settings: "Settings", places: "Places") -> Iterator[str]:
    key = settings.engine_key_file or places.home / "engine.key"
    yield "Next, give the server a key that hal0 alone knows, and start it:"
    yield from _make_key(key)
    yield f"  export LEMONADE_API_KEY=$(cat {key}) RUNTIME_DIRECTORY={places.state}"
    yield f"  {places.program} {places.state} {FLAGS}"
    yield "Before the first start of hal0:"
    yield f"  export HAL0_ENGINE_URL={URL} HAL0_ENGINE_KEY_FILE={key}"


def _set_up_units(places: "Places") -> Iterator[str]:
    yield "Next, as root:"
    yield f"  hal0 systemd install --lemond {places.program}"
    yield "  systemd-sysusers hal0.conf && systemd-tmpfiles --create hal0.conf"
    yield from _make_key(KEY_OF_UNITS)
    if not ENVIRONMENT_OF_UNIT.exists():
        to = ENVIRONMENT_OF_UNIT
        yield f"  (umask 077; echo LEMONADE_API_KEY=$(cat {KEY_OF_UNITS}) > {to})"
        yield f"  chgrp hal0 {KEY_OF_UNITS} && chmod 0640 {KEY_OF_UNITS}"
    yield "  systemctl daemon-reload && systemctl enable lemond && systemctl restart lemond"
    yield "Before the first start of hal0, in /etc/hal0/hal0.env:"
    yield f"  HAL0_ENGINE_URL={URL}"
    yield f"  HAL0_ENGINE_KEY_FILE={KEY_OF_UNITS}"


def _make_key(key: Path) -> Iterator[str]:
    if not key.exists():
        yield f"  (umask 077; openssl rand -hex 32 > {key})"
