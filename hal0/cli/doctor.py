"""`hal0 doctor`: what is wrong on this machine, and what to do about each."""

import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click

from hal0.cli.client import Api, ApiDown, Refused, path_of
from hal0.cli.exits import Exit
from hal0.cli.findings import Finding, Verdict
from hal0.cli.show import emit, json_option
from hal0.cli.times import in_local_time
from hal0.errors import SettingsError
from hal0.masks import escaped
from hal0.where import home, whereabouts

SIGNS: Final = {"ok": "ok     ", "note": "note   ", "wrong": "WRONG  ", "unknown": "unknown"}

ADVICE: Final = {
    "db.locked": "end the program that holds it; reading goes on meanwhile",
    "db.full": "make room on its disk: all goes on by itself",
    "db.unwritable": "look into the kernel's log (dmesg), and at the rights of the file",
    "db.older": "run `hal0 db upgrade`",
    "db.newer": "install the newer hal0",
    "db.corrupt": "stop hal0, put the file aside and a copy in its place",
}
"""What to do about an API that is not ready, by the code that it gives for it."""


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Find what is wrong on this machine; exit code 1 when something is."""
    found = list(_findings())

    def show() -> None:
        for one in found:
            click.echo(in_local_time(escaped(f"{SIGNS[one.verdict]}  {one.check}: {one.detail}")))
            if one.to_do:
                click.echo(f"         → {one.to_do}")

    is_well = all(one.verdict != "wrong" for one in found)
    emit({"well": is_well, "findings": [asdict(one) for one in found]}, as_json, show)
    return Exit.OK if is_well else Exit.FAILED


def _findings() -> Iterator[Finding]:
    from hal0.cli.checks import database, engines, machine, slots, workers
    from hal0.db import revision
    from hal0.errors import Hal0Error
    from hal0.settings import Settings
    from hal0.tables import REVISION

    yield machine.python()
    try:
        settings = Settings.load()
    except Hal0Error as exc:
        yield Finding("settings", "wrong", exc.detail, "correct the environment or hal0.toml")
        return
    if settings.engine_url is None:
        yield from machine.embedded_engine()
    yield machine.home(settings)
    yield machine.models(settings)
    yield from token_file(settings.token_file)
    yield api()
    of_database: list[Callable[[Settings], Iterator[Finding]]] = [
        database.database,
        database.clock,
        workers.workers,
        workers.beats,
        workers.leftovers,
        slots.parked,
        engines.engines,
    ]
    for check in of_database:
        try:
            if check is not database.database and revision(settings.database) != REVISION:
                return
            yield from check(settings)
        except Hal0Error as exc:
            yield Finding(check.__name__, "wrong", exc.detail)
            return  # the others would say the same


def token_file(path: Path | None) -> Iterator[Finding]:
    """Look who can read the token of this command, if it has one."""
    if path is None:
        return
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as exc:
        detail = f"HAL0_TOKEN_FILE={path} cannot be read: {exc.strerror}"
        yield Finding("token file", "wrong", detail, "put a token there, or unset it")
        return
    if mode & stat.S_IRWXO:
        detail = f"{path} is open to every user of this machine (mode {mode:o})"
        to_do = f"run `chmod o= {path}`; who may have read it has the token, so make another"
        yield Finding("token file", "wrong", detail, to_do)
    else:
        yield Finding("token file", "ok", f"{path} is closed to other users")


def api() -> Finding:
    """Ask the API whether it is ready."""
    url = whereabouts().url
    try:
        ready = Api(url).get("/readyz")
    except ApiDown as exc:
        verdict: Verdict = "unknown" if "did not answer" in exc.text else "wrong"
        return Finding("api", verdict, exc.text, "start `hal0 up`, or set HAL0_URL to where it is")
    except Refused as exc:
        to_do = ADVICE.get(str(exc.problem.get("code")), "look into its log, then restart it")
        return Finding("api", "wrong", exc.text, to_do)
    except SettingsError as exc:
        return Finding("api", "wrong", exc.detail, "correct it, or unset it")
    return _serves_us(url, ready.get("version"))


def _serves_us(url: str, version: object) -> Finding:
    """Ask the API, which is ready, for its home: with the token that every command has."""
    try:
        api = Api.from_settings()
    except SettingsError as exc:
        return Finding("api", "wrong", exc.detail, "correct it, or unset HAL0_TOKEN_FILE")
    try:
        serves = api.get(path_of("meta"))["home"]
    except Refused as exc:
        to_do = "set HAL0_TOKEN_FILE to a file with a valid token; `hal0 token create` makes one"
        what = exc.text if api.token else f"{url} is closed, and this command has no token"
        return Finding("api", "wrong", what, to_do)
    if Path(serves) != home():
        to_do = "set HAL0_BIND to a port of this home, or HAL0_HOME to that one"
        return Finding("api", "wrong", f"what answers at {url} serves {serves}", to_do)
    return Finding("api", "ok", f"hal0 {version} answers at {url}")
