"""Where the demo happens: a home of its own, processes on free ports that all end."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from hal0.cli.client import Api
from hal0.cli.processes import Children, Program
from hal0.where import PREFIX

READY_S: Final = 60.0


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on now."""
    listeners = [socket.socket() for _ in range(count)]
    try:
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()


@contextmanager
def house(home: Path) -> Iterator[tuple[Children, Api]]:
    """Start engine and API on free ports over this home; all processes end with the block."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]  # the demo has a home of its own and shares nothing with another
    engine_port, api_port = free_ports(2)
    os.environ |= {
        "HAL0_HOME": str(home),
        "HAL0_BIND": f"127.0.0.1:{api_port}",
        "HAL0_ENGINE_BIND": f"127.0.0.1:{engine_port}",
        "HAL0_ENGINE_CALL_LOG": str(home / "engine-calls.ndjson"),
    }
    from hal0.db import open_database
    from hal0.settings import Settings

    settings = Settings.load()
    open_database(settings, upgrade=True).close()
    with Children() as children:
        children.start(
            program(home, "engine", "hal0.embedded", f"http://{settings.engine_bind}/live")
        )
        children.start(program(home, "api", "hal0", f"http://{settings.bind}/livez", "api"))
        children.wait_ready("engine", READY_S)
        children.wait_ready("api", READY_S)
        click.echo(f"engine  http://{settings.engine_bind}  pid {children.pid('engine')}")
        click.echo(f"API     http://{settings.bind}  pid {children.pid('api')}")
        yield children, Api(settings.api_url)


def program(
    home: Path, name: str, module: str, ready_url: str | None = None, *args: str
) -> Program:
    """Return a child that logs into the demo's home."""
    argv = (sys.executable, "-m", module, *args)
    return Program(name, argv, ready_url, log_file=home / f"{name}.log")
