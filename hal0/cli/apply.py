"""`hal0 apply`, `hal0 export`: slots and models as a file declares them."""

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import click

from hal0.cli.client import Api, Json, path_of
from hal0.cli.exits import Exit, Failure
from hal0.cli.show import emit, json_option
from hal0.declare.document import Document, read
from hal0.declare.plan import plan
from hal0.declare.steps import Act, Noun, Plan, Step, There
from hal0.declare.words import lines_of, title_of
from hal0.errors import InvalidRequest
from hal0.folders import sync_folder
from hal0.masks import escaped

COLOURS: Final = {Act.CREATE: "green", Act.CHANGE: "yellow", Act.DELETE: "red"}
DONE: Final = {Act.CREATE: "created", Act.CHANGE: "changed", Act.DELETE: "deleted"}
STDOUT: Final = "-"
FIELDS: Final = tuple(Document.model_fields)


@click.command(short_help="Bring about the slots and models that a file declares.")
@click.argument("file", type=click.File("rb"))
@click.option("--dry-run", is_flag=True, help="Tell what would be done, and do nothing.")
@click.option("--prune", is_flag=True, help="Delete slots, and forget models, that it leaves out.")
@click.option("--yes", is_flag=True, help="Do it without a question.")
@json_option
def apply(file: BinaryIO, dry_run: bool, prune: bool, yes: bool, as_json: bool) -> None:
    """Bring about the slots and models that FILE declares, after a look at what that changes.

    What is as declared is left as it is, so the same file can be applied again. Nothing is loaded,
    and nothing is done when a step of it is known to be refused. FILE is TOML, as `hal0 export`
    writes it; - is standard input.
    """
    document = _document(file)
    api = Api.from_settings()
    found = plan(document, _there(api), prune=prune)
    if found.refusals:
        raise Failure(
            f"{file.name} cannot be applied; nothing was changed",
            Exit.CONFLICT,
            [escaped(f"  {refusal}") for refusal in found.refusals],
        )
    if not as_json:
        _show(found)
    if found.steps and not dry_run:
        if not yes:
            _ask(as_json)
        _do(api, found.steps)
    emit(_as_json(found, dry_run), as_json, lambda: _tell(found, dry_run))


@click.command(short_help="Write the file that declares what is there.")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True), default=STDOUT)
@click.option("--force", is_flag=True, help="Write over FILE.")
def export(file: Path, force: bool) -> None:
    """Write all slots and models to FILE, or to standard output, as `hal0 apply` takes them.

    It says how they are set up, not what is loaded, and leaves out what is the default.
    """
    from hal0.declare.writing import text_of

    there = _there(Api.from_settings())
    text = text_of(there)
    if str(file) == STDOUT:
        click.echo(text, nl=False)
        return
    _write(file, text.encode(), force=force)
    click.echo(
        f"{file}: {_count(len(there.models), 'model')}, {_count(len(there.slots), 'slot')}",
        err=True,
    )


def _document(file: BinaryIO) -> Document:
    """Read the file; raises Failure that lists what is wrong with it."""
    try:
        return read(file.read().decode())
    except UnicodeDecodeError as exc:
        raise Failure(f"{file.name} is no UTF-8 text", Exit.USAGE) from exc
    except InvalidRequest as exc:
        fields = exc.evidence.get("fields", [])
        told = [": ".join(filter(None, (one["field"], one["problem"]))) for one in fields]
        if not told:
            raise Failure(escaped(f"{file.name}: {exc.detail}"), Exit.USAGE) from exc
        if any(one["field"] and one["field"].partition(".")[0] not in FIELDS for one in fields):
            told.append("settings stand in another file, hal0.toml of the home folder")
        lines = [escaped(f"  {line}") for line in told]
        raise Failure(f"{file.name} cannot be taken as it is", Exit.USAGE, lines) from exc


def _there(api: Api) -> There:
    return There.of(*(api.items(path_of(noun)) for noun in ("slots", "models", "engines")))


def _show(found: Plan) -> None:
    for step in found.steps:
        click.echo(click.style(escaped(title_of(step)), fg=COLOURS[step.act]))
        for line in lines_of(step):
            click.echo(escaped(f"    {line}"))
    left = [_count(len(names), noun) for noun, names in found.left_alone.items() if names]
    if left:
        click.echo(f"left alone, for the file does not name it: {', '.join(left)}", err=True)


def _ask(as_json: bool) -> None:
    """Ask whether to go on; raises UsageError where nobody can be asked, Failure for a no."""
    if as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError("nobody can be asked here: say --yes to do it, or --dry-run")
    if not click.confirm("Do this?", err=True):
        raise Failure("nothing was changed")


def _do(api: Api, steps: Sequence[Step]) -> None:
    """Do the steps in order; raises Failure that tells how far that came."""
    for position, step in enumerate(steps):
        try:
            answer = _send(api, step)
        except Failure as exc:
            told = [
                f"this was step {position + 1} of {len(steps)}: {title_of(step)}",
                *(f"done before it: {title_of(done)}" for done in steps[:position]),
                *(f"not done: {title_of(left)}" for left in steps[position + 1 :]),
                "what was done stays; the same command goes on from there",
            ]
            raise Failure(exc.text, exc.exit, [*exc.more, *(f"  {line}" for line in told)]) from exc
        for note in _notes(step, answer):
            click.echo(escaped(f"slot {step.name}: {note}"), err=True)


def _notes(step: Step, answer: Json) -> Iterator[str]:
    """Yield what is to be minded about a slot, by its JSON after a step."""
    if step.act is not Act.CREATE and answer.get("model") and "options" in (step.body or {}):
        yield f"its options take effect at the next `hal0 slot load {step.name}`"
    yield from answer.get("warnings", [])


def _send(api: Api, step: Step) -> Json:
    path = path_of(f"{step.noun}s")
    if step.act is Act.CREATE:
        return api.post(path, step.body)
    method = "PATCH" if step.act is Act.CHANGE else "DELETE"
    return api.ask(method, path_of(f"{step.noun}s", step.name), step.body)


def _tell(found: Plan, dry_run: bool) -> None:
    """Say what came of it."""
    if not found.steps:
        click.echo("nothing to do: all is as declared")
    elif dry_run:
        click.echo(f"{_count(len(found.steps), 'step')} to do; nothing was changed")
    else:
        named = {(step.noun, DONE[step.act], step.name) for step in found.steps}
        done = Counter((noun, what) for noun, what, _ in sorted(named))
        told = (f"{_count(number, noun)} {what}" for (noun, what), number in done.items())
        click.echo(", ".join(told))


def _as_json(found: Plan, dry_run: bool) -> Json:
    steps = [
        {
            "act": step.act,
            "noun": step.noun,
            "name": step.name,
            "changes": [
                {"field": change.field, "old": change.old, "new": change.new}
                for change in step.changes
            ],
        }
        for step in found.steps
    ]
    left = {f"{noun}s": list(found.left_alone.get(noun, ())) for noun in Noun}
    return {"dry_run": dry_run, "steps": steps, "left_alone": left}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _write(file: Path, content: bytes, *, force: bool) -> None:
    """Give `file` this content as a whole; raises Failure for one that is there, unless forced."""
    try:
        fd, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        candidate = Path(name)
        try:
            with os.fdopen(fd, "wb") as opened:
                os.fchmod(fd, 0o640)
                opened.write(content)
                opened.flush()
                os.fsync(fd)
            if force:
                candidate.replace(file)
            else:
                os.link(candidate, file)  # unlike a rename, never over what is there
        finally:
            candidate.unlink(missing_ok=True)
        sync_folder(file.parent)
    except FileExistsError as exc:
        raise Failure(f"{file} exists; --force writes over it", Exit.CONFLICT) from exc
    except OSError as exc:
        raise Failure(f"{file} cannot be written: {exc.strerror}") from exc
