"""A walk through a first run: what it was told to choose, whom it asks for the rest, how far it is.

On a terminal a question is asked; `--yes` takes the default; where nobody can be asked and nothing
was said, the walk ends and names the option that says it.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import click

from hal0.cli.client import Api, Json, Refused, path_of
from hal0.cli.exits import Exit, Failure
from hal0.masks import escaped


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options of the command; None = it was not said."""

    slot: str
    engine: str | None = None
    kind: str | None = None
    model: str | None = None
    token: str | None = None
    no_token: bool = False
    yes: bool = False


@dataclass(slots=True)
class Walk:
    """One walk; `done` is what `--json` prints of it."""

    api: Api
    wanted: Wanted
    done: Json = field(default_factory=dict)
    as_json: bool = False

    @property
    def can_ask(self) -> bool:
        """Whether somebody is there to answer."""
        return not self.wanted.yes and sys.stdin.isatty() and sys.stderr.isatty()

    def say(self, text: str) -> None:
        """Print a line, or some."""
        click.echo(escaped(text, keep="\n"))

    def there(self, *parts: str) -> Json | None:
        """Return what the API has at a path, None = nothing."""
        try:
            return self.api.get(path_of(*parts))
        except Refused as exc:
            if exc.exit is not Exit.NOT_FOUND:
                raise
            return None

    def agree(self, question: str, *, default: bool = True) -> bool:
        """Return whether somebody agrees; `--yes` does, to whatever is the default."""
        if self.wanted.yes:
            return default
        if not self.can_ask:
            raise Failure(f"{question} Nobody can be asked here; `--yes` agrees", Exit.USAGE)
        return click.confirm(question, default=default, err=True)

    def name_of(self, what: str, default: str) -> str:
        """Return what somebody calls a new thing."""
        name: str = click.prompt(f"Name of the {what}", default=default, err=True)
        return name

    def choose(self, what: str, names: Sequence[str], default: str) -> str:
        """Return one of these names; `--yes` takes the default."""
        if self.wanted.yes or names == [default]:
            return default
        if not self.can_ask:
            raise Failure(
                f"nobody can be asked here which {what} to take ({', '.join(names)}): name one "
                f"with --{what}, or take {default} with --yes",
                Exit.USAGE,
            )
        answer: str = click.prompt(
            f"Which {what}?", type=click.Choice(names), default=default, err=True
        )
        return answer
