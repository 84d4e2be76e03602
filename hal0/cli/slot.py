"""`hal0 slot …`: see slots, set them up, order work on them."""

from typing import Any, Final

import click

from hal0.cli import follow
from hal0.cli.client import Api, Json, path_of
from hal0.cli.outcome import with_names
from hal0.cli.setup_options import body_of, load_options, setup_options
from hal0.cli.show import clock_of, emit, facts, json_option, table
from hal0.cli.waiting import WaitingCommand, wait_option

WISHERS: Final = {
    "nobody": "for nobody has asked for it",
    "operator": "by an operator",
    "wake": "by a request",
    "idle": "by a machine, for nobody used it",
    "elsewhere": "by somebody in the engine's own app",
}


@click.group()
def slot() -> None:
    """Named places that hold one model each."""


@slot.command("list")
@json_option
def list_slots(as_json: bool) -> None:
    """Show all slots."""
    slots = list(Api.from_settings().items(path_of("slots")))
    emit({"items": slots}, as_json, lambda: table(*_columns(slots)))


def _columns(slots: list[Json]) -> tuple[list[str], list[list[object]]]:
    headers = ["name", "state", "model", "req", "tok/s", "since", "cause", "job", "error", "about"]
    rows = [
        [
            one["name"],
            one["state"],
            one["model"] or one["wanted_model"],
            one["in_flight"] or None,
            _rate(one["speed"]),
            clock_of(one["since"]),
            one["cause"],
            one["job_id"],
            one["error"]["code"] if one["state"] == "error" else None,
            _about(one),
        ]
        for one in slots
    ]
    return headers, rows


def _rate(speed: Json | None) -> str | None:
    """Return tokens per second of the last requests; None = nobody told any."""
    rate = None if speed is None else speed["tokens_per_s"]
    return None if rate is None else f"{rate:.1f}"


def _about(one: Json) -> str | None:
    """Say what a machine is to do about a slot, else how much `slot show` has to say."""
    restore, warnings = one["restore"] or {}, one["warnings"]
    if restore.get("is_parked"):
        return "parked"
    if restore.get("cause"):
        opens_at = restore["opens_at"]
        return f"loads again, not before {clock_of(opens_at)}" if opens_at else "loads again"
    if not warnings:
        return None
    return "1 warning" if len(warnings) == 1 else f"{len(warnings)} warnings"


def _tell(one: Json, done: str) -> None:
    """Say what was done to a slot, and on stderr what is to be minded."""
    click.echo(f"slot {one['name']}: {done}")
    for warning in one["warnings"]:
        click.echo(f"slot {one['name']}: {warning}", err=True)


@slot.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show one slot with all that is known of it."""
    shown = Api.from_settings().get(path_of("slots", name))
    error = shown["error"]
    if error and not as_json:
        error["detail"] = with_names(error["detail"], {"slot": name, "id": error["job_id"]})
    emit(shown, as_json, lambda: facts(_in_words(shown)))


def _in_words(shown: Json) -> Json:
    """Say in one line what is wanted of a slot, and who said so."""
    wish = f"{shown['desired']}, {WISHERS[shown['desired_by']]}"
    told = {**shown, "desired": wish}
    del told["desired_by"]
    return told


@slot.command()
@click.argument("name")
@click.option("--model", metavar="NAME", help="The model that it is for.")
@setup_options
@json_option
def create(name: str, as_json: bool, **given: Any) -> None:
    """Create a slot; nothing is loaded."""
    made = Api.from_settings().post(path_of("slots"), {"name": name, **body_of(given)})
    emit(made, as_json, lambda: _tell(made, "created, offline"))


@slot.command("set")
@click.argument("name")
@click.option("--model", metavar="NAME", help="The model that it is for; needs an offline slot.")
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
@click.argument("name")
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
@click.argument("name")
@click.option("--model", metavar="NAME", help="Load this model; it becomes the slot's.")
@load_options
@click.option("--force", is_flag=True, help="Hash the files again, unchanged ones too.")
@wait_option
@json_option
def load(name: str, force: bool, wait_s: float | None, as_json: bool, **given: Any) -> int:
    """Load a slot's model."""
    return _order(name, "load", {**body_of(given), "rehash": force}, wait_s, as_json)


@slot.command(cls=WaitingCommand)
@click.argument("name")
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
@click.argument("name")
@click.option("--force", is_flag=True, help="Hash the files again, unchanged ones too.")
@wait_option
@json_option
def validate(name: str, force: bool, wait_s: float | None, as_json: bool) -> int:
    """Check the files of a slot's model without loading it."""
    return _order(name, "validate", {"rehash": force}, wait_s, as_json)


@slot.command(cls=WaitingCommand)
@click.argument("name")
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
