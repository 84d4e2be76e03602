"""The options of a slot's setup and of a load, as the body that the API wants."""

import math
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from hal0.cli import known

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT: Final = "default"


class Seconds(click.ParamType[Any, Any]):
    """Seconds, or the word `default` for the setting's."""

    name = "seconds"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """Return the number, or `default`."""
        if value == DEFAULT:
            return value
        try:
            seconds = float(str(value))
        except ValueError:
            seconds = math.nan
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is no number of seconds, nor {DEFAULT!r}", param, ctx)
        return seconds


class Count(click.ParamType[Any, Any]):
    """A number of requests, or the word `default` for the setting's."""

    name = "number"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """Return the number, or `default`."""
        if value == DEFAULT:
            return value
        try:
            return int(str(value))
        except ValueError:
            self.fail(f"{value!r} is no whole number, nor {DEFAULT!r}", param, ctx)


LOAD_OPTIONS: Final = (
    click.option("--ctx-size", type=int, help="Context length in tokens."),
    click.option("--llamacpp-backend", metavar="NAME", help="Build of llama.cpp, or `default`."),
    click.option("--llamacpp-args", metavar="TEXT", help="Arguments of llama.cpp."),
)
SETUP_OPTIONS: Final = (
    click.option(
        "--engine",
        metavar="NAME",
        shell_complete=known.engines,
        help="The engine that loads its model.",
    ),
    click.option("--pinned/--not-pinned", default=None, help="Whether machines leave it loaded."),
    click.option("--priority", type=int, help="The higher, the sooner a machine loads it again."),
    click.option(
        "--idle-after", type=Seconds(), help="Unused so long is idle; 0 = never; or `default`."
    ),
    click.option(
        "--unload-after",
        type=Seconds(),
        help="Unused so long is unloaded; 0 = never; or `default`.",
    ),
    click.option("--load-timeout", type=Seconds(), help="How long a load may take; or `default`."),
    click.option(
        "--load-timeout-per-gb",
        type=Seconds(),
        help="So much longer for each GB of the model's files; or `default`.",
    ),
    click.option(
        "--wake",
        type=click.Choice(["always", "auto", "never"]),
        help="Whether a request loads it when it is offline; auto = unless somebody unloaded it.",
    ),
    click.option("--max-in-flight", type=Count(), help="Requests that run at once; or `default`."),
    click.option(
        "--max-waiting", type=Count(), help="Requests that wait for its model; or `default`."
    ),
)
_FIELDS: Final = {
    "idle_after": "idle_after_s",
    "unload_after": "unload_after_s",
    "load_timeout": "load_timeout_s",
    "load_timeout_per_gb": "load_timeout_s_per_gb",
}
_OF_LOAD: Final = ("ctx_size", "llamacpp_backend", "llamacpp_args")


def load_options(function: F) -> F:
    """Add the options of a load."""
    for option in reversed(LOAD_OPTIONS):
        function = option(function)
    return function


def setup_options(function: F) -> F:
    """Add the options of a setup, those of a load too."""
    for option in reversed((*SETUP_OPTIONS, *LOAD_OPTIONS)):
        function = option(function)
    return function


def body_of(given: dict[str, Any]) -> dict[str, Any]:
    """Return what was given on the command line as a body; `default` becomes null."""
    body: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        sent = None if value == DEFAULT and name != "engine" else value
        if name in _OF_LOAD:
            body.setdefault("options", {})[name] = sent
        else:
            body[_FIELDS.get(name, name)] = sent
    return body
