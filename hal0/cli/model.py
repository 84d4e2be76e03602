"""`hal0 model …`: register the files that slots load."""

import sys
from pathlib import Path, PurePath
from typing import Any, Final

import click

from hal0.cli import known
from hal0.cli.client import Api, Json, path_of
from hal0.cli.exits import Exit, Failure
from hal0.cli.lines import screen
from hal0.cli.show import (
    emit,
    emit_list,
    facts,
    json_option,
    list_options,
    size_of,
    table,
)
from hal0.cli.times import clock_of
from hal0.registry.names import name_for
from hal0.registry.sources import Source, checked_source
from hal0.where import whereabouts

MAGIC: Final = b"GGUF"


@click.group()
def model() -> None:
    """Registered models and their files."""


@model.command("list")
@list_options
def list_models(as_json: bool, is_quiet: bool) -> None:
    """Show all models."""
    models = list(Api.from_settings().items(path_of("models")))
    headers = ["name", "format", "files", "size", "verified", "path"]
    rows = [
        [
            one["name"],
            one["format"],
            len(one["files"]),
            size_of(_sum(one["files"])),
            clock_of(one["files"][0]["verified_at"]),
            one["files"][0]["path"],
        ]
        for one in models
    ]
    emit_list(models, "name", lambda: table(headers, rows), as_json=as_json, is_quiet=is_quiet)


def _sum(files: list[Json]) -> int | None:
    sizes = [file["size_bytes"] for file in files]
    return None if None in sizes else sum(sizes)


@model.command()
@click.argument("name", shell_complete=known.models)
@json_option
def show(name: str, as_json: bool) -> None:
    """Show one model with its files, and the slots that hold or want it."""
    api = Api.from_settings()
    shown = api.get(path_of("models", name))

    def show() -> None:
        users = [
            f"{slot['name']} ({slot['state']})"
            for slot in api.items(path_of("slots"))
            if name in (slot["model"], slot["wanted_model"])
        ]
        facts({**shown, "slots": ", ".join(users) or None})

    emit(shown, as_json, show)


@model.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--name", help="What it is called; default: as its file.")
@click.option("--mmproj", metavar="SOURCE", help="The projector that belongs to it.")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["gguf", "other"]),
    default="gguf",
    show_default=True,
    help="Whether its header is checked before a load.",
)
@click.option("--sha256", metavar="HEX", help="The digest that it must have; of one file.")
@click.option("--size", "size_bytes", type=click.IntRange(0), help="Its size; of one file.")
@click.option("--hash", "to_hash", is_flag=True, help="Register the digest that it has now.")
@click.option("--copy", "allow_copy", is_flag=True, help="Copy it when it cannot be linked.")
@json_option
def add(sources: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Register a model: one file, or all its shards in order.

    A SOURCE is a file of this machine, which stays where it is and is linked into the models
    folder; or an https:// or http:// URL, or hf://org/repo/file[@revision], which is downloaded.
    Either happens when a slot first pulls it.

    \b
    hal0 model add /data/tiny.gguf --hash
    hal0 model add hf://org/repo/tiny.gguf@main --name tiny
    """
    told = [name for name in ("sha256", "size_bytes") if given[name] is not None]
    if told and (given["mmproj"] or len(sources) > 1):
        raise click.UsageError("--sha256 and --size are for one file")
    if given["sha256"] and given["to_hash"]:
        raise click.UsageError("--sha256 does not go with --hash")
    role = "main" if len(sources) == 1 else "shard"
    files = [_file(source, role) for source in sources]
    if given["mmproj"]:
        files.append(_file(given["mmproj"], "mmproj"))
    local = [Path(file["source"]) for file in files if file["source"].startswith("/")]
    if given["to_hash"] and len(local) < len(files):
        raise click.UsageError("--hash reads files of this machine; a download is hashed anyway")
    if given["file_format"] == "gguf":
        _warn_of_others(local)
    copied = given["allow_copy"] or _is_copy_wanted(local)
    for file in files:
        if given["to_hash"]:
            file["sha256"] = _digest(file)
        file |= {name: given[name] for name in told}
    body = {
        "name": given["name"] or name_for(PurePath(_name_of(files[0]))),
        "format": given["file_format"],
        "files": files,
        "allow_copy": copied,
    }
    made = Api.from_settings().post(path_of("models"), body)
    emit(made, as_json, lambda: click.echo(f"model {made['name']}: registered"))


def _name_of(file: Json) -> str:
    return str(file.get("name") or Source.parse(file["source"]).file_name)


def _file(source: str, role: str) -> Json:
    """Return the body of a file of the network, or of one that exists and can be read.

    A worker follows no link, so links are followed here; the file keeps the name of the link, which
    may be all that says what it is, as in the cache of a hub.
    """
    if "://" in source:
        parsed = Source.parse(source)
        if parsed.path is None:
            return {"role": role, "source": parsed.text}
        source = parsed.text
    absolute = Path(source).absolute()
    try:
        if not absolute.is_file():
            raise Failure(f"{absolute} is no file", Exit.NOT_FOUND)
        real = absolute.resolve()
        with real.open("rb"):
            size_bytes = real.stat().st_size
    except OSError as exc:
        raise Failure(f"{absolute} cannot be read: {exc.strerror}") from exc
    file = {"role": role, "source": checked_source(str(real)), "size_bytes": size_bytes}
    return file if real.name == absolute.name else {**file, "name": absolute.name}


def _warn_of_others(sources: list[Path]) -> None:
    """Say of each file that is no GGUF that no load will take it; it may be one by then."""
    for source in sources:
        with source.open("rb") as file:
            is_gguf = file.read(len(MAGIC)) == MAGIC
        if not is_gguf:
            click.echo(
                f"hal0: {source} does not begin as a GGUF file does, so a load will refuse it "
                "(preload.not_a_gguf)",
                err=True,
            )


def _digest(file: Json) -> str:
    from hal0.registry.checksum import sha256

    name, total = Path(file["source"]).name, file["size_bytes"]
    with Path(file["source"]).open("rb") as opened, screen() as shown:
        return sha256(
            opened.fileno(),
            on_progress=lambda done: shown.progress(f"hashing {name}", done, total),
        )


def _is_copy_wanted(sources: list[Path]) -> bool:
    """Ask before bytes are copied to another disk; raises Failure where nobody can be asked."""
    models = whereabouts().models
    folder = next((one for one in (models, *models.parents) if one.is_dir()), None)
    if folder is None:
        return False
    here = folder.stat().st_dev
    apart = [source for source in sources if source.resolve().stat().st_dev != here]
    if not apart:
        return False
    size = size_of(sum(source.stat().st_size for source in apart))
    what = f"{apart[0]} lies on another disk than {models}, so it is copied ({size})"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Failure(
            f"{what}: allow that with --copy, or put it on that disk, or set HAL0_MODELS_DIR to "
            f"a folder on the disk of {apart[0].parent}"
        )
    if not click.confirm(f"{what}. Copy it when it is pulled?", err=True):
        raise Failure("nothing was registered")
    return True


@model.command()
@click.argument("name", shell_complete=known.models)
@json_option
def delete(name: str, as_json: bool) -> None:
    """Forget a model that no slot holds or wants; its files stay."""
    api = Api.from_settings()
    kept = [file["path"] for file in api.get(path_of("models", name))["files"]]
    api.ask("DELETE", path_of("models", name))
    told = "\n  ".join([f"model {name}: forgotten; what lies there is kept:", *kept])
    emit({"deleted": name, "kept": kept}, as_json, lambda: click.echo(told))
