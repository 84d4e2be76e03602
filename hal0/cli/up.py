"""`hal0 up`: engine, API and one worker in the foreground, each started again when it dies."""

import fcntl
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

import click

from hal0.cli.exits import Exit, Failure
from hal0.cli.processes import Children, DidNotStart, Program
from hal0.settings import Settings, cannot_listen

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
READY_S: Final = 60.0
TEND_EVERY_S: Final = 0.1


@click.command()
def up() -> int:
    """Run engine, API and worker until Ctrl-C; start again whichever dies."""
    from hal0 import logs
    from hal0.api.address import ensure_closed
    from hal0.cli.db import ensure_unowned
    from hal0.db import open_database, prepare_home

    settings = Settings.load()
    logs.set_up(settings.log_level)
    prepare_home(settings)
    with only_one(settings):
        ensure_free(settings)
        ensure_unowned(settings)
        with closing(open_database(settings, upgrade=True)) as db:
            ensure_closed(settings.bind, db)
        return keep(settings)


def programs(settings: Settings) -> list[Program]:
    """Return what belongs to a home, in the order of starting."""
    python = (sys.executable, "-m")
    api = Program("api", (*python, "hal0", "api"), f"http://{settings.bind}/livez")
    worker = Program("worker", (*python, "workers"))
    if settings.engine_url is not None:
        return [api, worker]
    engine = Program("engine", (*python, "hal0.embedded"), f"{settings.default_engine_url}/live")
    return [engine, api, worker]


def ensure_free(settings: Settings) -> None:
    """Raise SettingsError when another process listens where a child is to."""
    binds = {"HAL0_BIND": settings.bind}
    if settings.engine_url is None:
        binds["HAL0_ENGINE_BIND"] = settings.engine_bind
    for name, bind in binds.items():
        host, _, port = bind.rpartition(":")
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host.strip("[]"), int(port)))
            except OSError as exc:
                raise cannot_listen(name, bind, exc) from exc


@contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Hold `up.lock` of this home; raises Failure when another process does."""
    with (settings.home / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise Failure(
                f"`hal0 up` runs already for {settings.home}; stop that one, or set HAL0_HOME to "
                "another folder",
                Exit.CONFLICT,
            ) from exc
        yield


def keep(settings: Settings) -> int:
    """Start all, say where they listen, and tend them until a signal comes."""
    stopping = threading.Event()
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: stopping.set())
    with Children() as children:
        try:
            for program in programs(settings):
                children.start(program)
                children.wait_ready(program.name, READY_S)
                _say(settings, program, children.pid(program.name))
        except DidNotStart as exc:
            raise Failure(f"{exc}; its last lines above say why, and so may `hal0 doctor`") from exc
        while not stopping.wait(TEND_EVERY_S):
            children.tend()
        click.echo("stopping", err=True)
    return Exit.OK


def _say(settings: Settings, program: Program, pid: int) -> None:
    where = {"api": f" at http://{settings.bind}", "engine": f" at {settings.default_engine_url}"}
    click.echo(f"{program.name} runs{where.get(program.name, '')} (pid {pid})", err=True)
