"""`hal0 slot …`: see slots, set them up, order work on them."""

from functools import partial
from typing import Any, Final

import click

from hal0.cli import follow, known
from hal0.cli.client import Api, Json, path_of
from hal0.cli.glance import coming_back
from hal0.cli.setup_options import body_of, load_options, setup_options
from hal0.cli.show import emit, emit_list, facts, json_option, list_options, table
from hal0.cli.slot_story import story
from hal0.cli.status import rate_of
from hal0.cli.times import clock_of, in_local_time
from hal0.cli.waiting import WaitingCommand, wait_option
from hal0.masks import escaped

WISHERS: Final = {
    "nobody": "for nobody has asked for it",
    "operator": "by an operator",
    "wake": "by a request",
    "idle": "by a machine, for nobody used it",
    "elsewhere": "by somebody in the engine's own app",
}
IN_STORY: Final = frozenset(
    {"name", "state", "since", "cause", "job_id", "error", "warnings", "desired_by"}
)
"""Fields that the lines above the others tell."""


@click.group()
def slot() -> None:
    """Named places that hold one model each."""


@slot.command("list")
@list_options
def list_slots(as_json: bool, is_quiet: bool) -> None:
    """Show all slots."""
    slots = list(Api.from_settings().items(path_of("slots")))
    show = partial(table, *_columns(slots))
    emit_list(slots, "name", show, as_json=as_json, is_quiet=is_quiet)


def _columns(slots: list[Json]) -> tuple[list[str], list[list[object]]]:
    headers = ["name", "state", "model", "req", "tok/s", "since", "cause", "job", "error", "about"]
    rows = [
        [
            one["name"],
            one["state"],
            one["model"] or one["wanted_model"],
            one["in_flight"] or None,
            rate_of(one),
            clock_of(one["since"]),
            one["cause"],
            one["job_id"],
            one["error"]["code"] if one["state"] == "error" else None,
            _about(one),
        ]
        for one in slots
    ]
    return headers, rows


def _about(one: Json) -> str | None:
    """Say what a machine is to do about a slot, else how much `slot show` has to say."""
    back, warnings = coming_back(one), one["warnings"]
    if back is not None or not warnings:
        return back
    return "1 warning" if len(warnings) == 1 else f"{len(warnings)} warnings"


def _tell(one: Json, done: str) -> None:
    """Say what was done to a slot, and on stderr what is to be minded."""
    click.echo(f"slot {one['name']}: {done}")
    for warning in one["warnings"]:
        click.echo(in_local_time(f"slot {one['name']}: {warning}"), err=True)


@slot.command(short_help="Show one slot: how it is, why, who loaded it, how long that took.")
@click.argument("name", shell_complete=known.slots)
@json_option
def show(name: str, as_json: bool) -> None:
    """Show one slot: since when and why it is so, what mends it, its last load, all its settings.

    How long loads take is the median of the last 20 with this model.
    """
    api = Api.from_settings()
    shown = api.get(path_of("slots", name))

    def tell() -> None:
        for line in story(api, shown):
            click.echo(in_local_time(escaped(line)))
        click.echo()
        facts(_in_words(shown))

    emit(shown, as_json, tell)


def _in_words(shown: Json) -> Json:
    """Say in one line what is wanted of a slot, and who said so; leave out what the story has."""
    wish = f"{shown['desired']}, {WISHERS[shown['desired_by']]}"
    left = {name: value for name, value in shown.items() if name not in IN_STORY}
    return {**left, "desired": wish}


@slot.command()
@click.argument("name")
@click.option(
    "--model", metavar="NAME", shell_complete=known.models, help="The model that it is for."
)
@setup_options
@json_option
def create(name: str, as_json: bool, **given: Any) -> None:
    """Create a slot; nothing is loaded.

    \b
    hal0 slot create chat --model qwen --pinned
    """
    made = Api.from_settings().post(path_of("slots"), {"name": name, **body_of(given)})
    emit(made, as_json, lambda: _tell(made, "created, offline"))


@slot.command("set")
@click.argument("name", shell_complete=known.slots)
@click.option(
    "--model",
    metavar="NAME",
    shell_complete=known.models,
    help="The model that it is for; needs an offline slot.",
)
@click.option("--no-model", is_flag=True, help="Take its model away.")
@setup_options
@json_option
def set_slot(name: str, as_json: bool, no_model: bool, **given: Any) -> None:
    """Change how a slot is set up."""
    body = body_of(given)
    if no_model:
        body["model"] = None
    if not body:
        raise click.UsageError("nothing to change is given; see `hal0 slot set --help`")
    changed = Api.from_settings().ask("PATCH", path_of("slots", name), body)
    is_later = "options" in body and changed["model"] is not None
    when = f"; takes effect at the next `hal0 slot load {name}`" if is_later else ""
    emit(changed, as_json, lambda: _tell(changed, f"changed{when}"))


@slot.command()
@click.argument("name", shell_complete=known.slots)
@click.option(
    "--force",
    is_flag=True,
    help="Cancel its queued jobs first; leave in the engine what it may have there in error.",
)
@json_option
def delete(name: str, force: bool, as_json: bool) -> None:
    """Delete a slot that holds nothing; its audit stays."""
    query = "?force=true" if force else ""
    Api.from_settings().ask("DELETE", path_of("slots", name) + query)
    emit({"deleted": name}, as_json, lambda: click.echo(f"slot {name}: deleted"))


@slot.command(cls=WaitingCommand)
@click.argument("name", shell_complete=known.slots)
@click.option(
    "--model",
    metavar="NAME",
    shell_complete=known.models,
    help="Load this model; it becomes the slot's.",
)
@load_options
@click.option("--force", is_flag=True, help="Hash the files again, unchanged ones too.")
@wait_option
@json_option
def load(name: str, force: bool, wait_s: float | None, as_json: bool, **given: Any) -> int:
    """Load a slot's model.

    \b
    hal0 slot load chat --wait
    hal0 slot load chat --model qwen --ctx-size 8192
    """
    return _order(name, "load", {**body_of(given), "rehash": force}, wait_s, as_json)


@slot.command(cls=WaitingCommand)
@click.argument("name", shell_complete=known.slots)
@click.option("--force", is_flag=True, help="Do not wait for running requests.")
@click.option("--even-if-pinned", is_flag=True, help="Unload a pinned slot too.")
@click.option(
    "--drain",
    "drain_timeout_s",
    type=float,
    metavar="SECONDS",
    help="How long to wait for running requests.",
)
@wait_option
@json_option
def unload(name: str, wait_s: float | None, as_json: bool, **given: Any) -> int:
    """Empty a slot."""
    return _order(name, "unload", body_of(given), wait_s, as_json)


@slot.command(cls=WaitingCommand)
@click.argument("name", shell_complete=known.slots)
@click.option("--force", is_flag=True, help="Hash the files again, unchanged ones too.")
@wait_option
@json_option
def validate(name: str, force: bool, wait_s: float | None, as_json: bool) -> int:
    """Check the files of a slot's model without loading it."""
    return _order(name, "validate", {"rehash": force}, wait_s, as_json)


@slot.command(cls=WaitingCommand)
@click.argument("name", shell_complete=known.slots)
@click.option("--again", is_flag=True, help="Fetch, or copy, what is there already, too.")
@wait_option
@json_option
def pull(name: str, again: bool, wait_s: float | None, as_json: bool) -> int:
    """Bring the files of a slot's model to the models folder."""
    return _order(name, "pull", {"again": again}, wait_s, as_json)


def _order(name: str, verb: str, body: Json, wait_s: float | None, as_json: bool) -> int:
    api = Api.from_settings()
    watch = follow.start(api, name, wait_s, as_json)
    return follow.finish(watch, api.post(path_of("slots", name, verb), body))
