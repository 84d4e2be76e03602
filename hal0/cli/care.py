"""`hal0 backup`, `hal0 restore`, `hal0 prune`: the database of this home, opened directly."""

from contextlib import closing
from pathlib import Path

import click

from hal0.access.roles import LOCAL
from hal0.cli.exits import Exit, Failure
from hal0.cli.show import emit, json_option, size_of, table
from hal0.settings import Settings


@click.command(short_help="Copy the database while hal0 runs.")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def backup(file: Path, as_json: bool) -> None:
    """Copy the database to FILE, a new one, while hal0 runs, and look through the copy.

    A copy has all rows and no model: those are files that can be pulled again.
    """
    from hal0.care.copies import back_up

    settings = Settings.load()
    _ensure_there(settings)
    copy = back_up(settings.database, file)
    shown = {
        "path": str(copy.path),
        "size_bytes": copy.size_bytes,
        "schema_revision": copy.schema_revision,
        "rows": copy.rows,
    }
    emit(
        shown,
        as_json,
        lambda: click.echo(_told(f"{copy.path}: verified", copy.size_bytes, copy.rows)),
    )


@click.command(short_help="Put a copy in the place of the database.")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def restore(file: Path, as_json: bool) -> None:
    """Put the copy FILE in the place of the database, when hal0 is stopped.

    The copy is looked through first. What was there is kept beside it; an older schema is brought
    to this one at the next start.
    """
    from hal0.care.copies import aside_of
    from hal0.care.copies import restore as put_back
    from hal0.cli.up import only_one
    from hal0.clock import utc_now
    from hal0.db import prepare_home

    settings = Settings.load()
    prepare_home(settings)
    aside = aside_of(settings.database, utc_now())
    with only_one(settings):
        _ensure_unused(settings)
        copy = put_back(file, settings.database, aside)
    kept = str(aside) if aside.exists() else None
    shown = {"path": str(copy.path), "kept": kept, "schema_revision": copy.schema_revision}

    def show() -> None:
        click.echo(_told(f"{copy.path}: as in {file}", copy.size_bytes, copy.rows))
        if kept is not None:
            click.echo(f"what was there is {kept}")

    emit(shown, as_json, show)


@click.command(short_help="Delete finished jobs, and audit rows, that are old.")
@click.option("--dry-run", is_flag=True, help="Tell what would go, and delete nothing.")
@json_option
def prune(dry_run: bool, as_json: bool) -> None:
    """Delete what is older than HAL0_KEEP_JOBS_DAYS and HAL0_KEEP_TRANSITIONS_DAYS say.

    Workers do the same once a day. What a slot may still need stays, however old.
    """
    from hal0.care.pruning import Retention, would_prune
    from hal0.care.pruning import prune as delete_old
    from hal0.db import open_database

    settings = Settings.load()
    _ensure_there(settings)
    keep = Retention.of(settings)
    with closing(open_database(settings)) as db:
        if dry_run:
            with db.read() as tx:
                gone = would_prune(tx, keep).rows
        else:
            gone = delete_old(db, keep, LOCAL).rows

    def show() -> None:
        if gone:
            table(["table", "would go" if dry_run else "deleted"], sorted(gone.items()))
        else:
            click.echo("nothing is older than it may be")

    emit({"dry_run": dry_run, "rows": gone}, as_json, show)


def _ensure_there(settings: Settings) -> None:
    if not settings.database.exists():
        raise Failure(f"there is no {settings.database}; is HAL0_HOME right?", Exit.NOT_FOUND)


def _ensure_unused(settings: Settings) -> None:
    """Raise Failure while a process of this home lives: it would go on with the old database."""
    from hal0.db import Database
    from hal0.errors import DatabaseError
    from hal0.jobs.owners import is_alive, living_rows

    if not settings.database.exists():
        return
    with closing(Database(settings.database, settings.busy_timeout_s)) as db:
        try:
            with db.read() as tx:
                rows = living_rows(tx)
        except DatabaseError:
            return  # nobody works with one that cannot be read
    living = [str(row.pid) for row in rows if is_alive(row, settings.run)]
    if living:
        raise Failure(
            f"{settings.database} is in use (pid {', '.join(living)}); stop hal0, then restore",
            Exit.CONFLICT,
        )


def _told(what: str, size_bytes: int, rows: dict[str, int]) -> str:
    counted = ", ".join(f"{count} {name}" for name, count in rows.items())
    return f"{what}, {size_of(size_bytes)}: {counted}"
