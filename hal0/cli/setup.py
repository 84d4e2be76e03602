"""`hal0 setup`: from nothing to an answer of a model, for who has never seen hal0.

Each step is an ordinary request of the API, which guards it as any other. What is there already is
said and passed by, so a walk that broke off is taken up by the same command. What the steps do is
in `first_steps.py` and `first_model.py`.
"""

import contextlib
import sys
from typing import Any

import click

from hal0.cli import first_steps, known
from hal0.cli.client import Api
from hal0.cli.exits import Exit
from hal0.cli.first_model import choose_model
from hal0.cli.show import as_json_text, json_option
from hal0.cli.walk import Walk, Wanted


@click.command()
@click.option(
    "--engine",
    metavar="NAME|URL",
    shell_complete=known.engines,
    help="The engine that the slot is to use; default: one that answers.",
)
@click.option("--kind", metavar="KIND", help="Of an engine by its URL: lemonade or llamacpp.")
@click.option("--model", metavar="NAME", help="A model that is offered, or registered already.")
@click.option(
    "--slot", metavar="NAME", default="chat", show_default=True, shell_complete=known.slots
)
@click.option("--token", metavar="NAME", help="Make a token of this name, with the role writer.")
@click.option("--no-token", is_flag=True, help="Do not ask whether to make one.")
@click.option("--yes", is_flag=True, help="Ask nothing, take the defaults.")
@json_option
def setup(as_json: bool, **given: Any) -> int:
    """Walk through a first run: look, choose, bring, load, say hello.

    hal0 must run (`hal0 up` in another terminal). Given again it goes on from where it is.
    """
    wanted = Wanted(**given)
    if wanted.token and wanted.no_token:
        raise click.UsageError("--token does not go with --no-token")
    walk = Walk(Api.from_settings(), wanted, as_json=as_json)
    if not as_json:
        return _run(walk)
    with contextlib.redirect_stdout(sys.stderr):  # that is for what is said on the way
        code = _run(walk)
    with first_steps.token_is_read(walk):
        click.echo(as_json_text(walk.done))
    return code


def _run(walk: Walk) -> int:
    """Take all steps; return how the walk ended."""
    engines = first_steps.look_around(walk)
    slot = walk.there("slots", walk.wanted.slot)
    engine = first_steps.choose_engine(walk, slot, engines)
    model = choose_model(walk, slot)
    code = first_steps.load(walk, slot or first_steps.make_slot(walk, engine, model), model)
    if code != Exit.OK:
        return code
    first_steps.say_hello(walk)
    first_steps.offer_token(walk)
    _say_what_next(walk)
    return Exit.OK


def _say_what_next(walk: Walk) -> None:
    name = walk.wanted.slot
    walk.say(
        "\ndone. Next:\n"
        f"  {walk.api.url}/  is the page; {walk.api.url}/v1 is for clients of OpenAI's API, "
        f'with the model "{name}"\n'
        f"  hal0 slot show {name}  tells all of the slot, hal0 model add registers other models\n"
        "  hal0 systemd install  makes services of what `hal0 up` runs"
    )
    if walk.api.token is None and "token" not in walk.done:
        walk.say(
            "  hal0 token create NAME --role writer  closes this hal0 to all on this machine who "
            "have no token"
        )
