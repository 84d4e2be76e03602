"""`hal0 api`, `hal0 worker`, `hal0 version`: one process in the foreground."""

import gc
import os
import sys

import click

from hal0 import __version__
from hal0.cli.show import emit, json_option


@click.command()
def api() -> int:
    """Run the API in the foreground."""
    gc.disable()  # what is imported stays: to search it for garbage is in vain
    from hal0.api.app import serve
    from hal0.settings import Settings

    gc.enable()
    return serve(Settings.load())


@click.command()
def worker() -> None:
    """Run a worker in the foreground."""
    os.execv(sys.executable, [sys.executable, "-m", "workers"])  # noqa: S606


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Show the version of this command."""
    emit({"version": __version__}, as_json, lambda: click.echo(f"hal0 {__version__}"))
