"""`hal0 db …`: the database of this home, opened directly."""

from typing import TYPE_CHECKING

import click

from hal0.cli.exits import Exit, Failure
from hal0.cli.show import emit, facts, json_option

if TYPE_CHECKING:
    from hal0.settings import Settings


@click.group()
def db() -> None:
    """The database: upgrade, info."""


@db.command(short_help="Bring it to this version's schema.")
@json_option
def upgrade(as_json: bool) -> None:
    """Create the database, or bring it to this version's schema; an older one is copied first."""
    from hal0.db import open_database, prepare_home, revision
    from hal0.settings import Settings
    from hal0.tables import REVISION

    settings = Settings.load()
    prepare_home(settings)
    before = revision(settings.database)
    ensure_unowned(settings)
    open_database(settings, upgrade=True).close()
    done = {"path": str(settings.database), "before": before, "after": REVISION}
    emit(
        done,
        as_json,
        lambda: click.echo(f"{settings.database}: schema {before or 'none'} → {REVISION}"),
    )


def ensure_unowned(settings: "Settings") -> None:
    """Raise Failure while a process lives that works by an older schema: it is not to be changed.

    Belongs before each upgrade.
    """
    from hal0.db import Database, revision
    from hal0.jobs.owners import is_alive, living_rows
    from hal0.tables import REVISION

    before = revision(settings.database)
    if before is None or before >= REVISION:
        return
    database = Database(settings.database, settings.busy_timeout_s)
    try:
        with database.read() as tx:
            rows = living_rows(tx)
    finally:
        database.close()
    living = [row for row in rows if is_alive(row, settings.run)]
    if living:
        pids = ", ".join(str(row.pid) for row in living)
        raise Failure(
            f"{settings.database} is in use (pid {pids}); stop hal0, then upgrade", Exit.CONFLICT
        )


@db.command()
@json_option
def info(as_json: bool) -> None:
    """Show where the database is and which schema it has."""
    from hal0.db import revision
    from hal0.settings import Settings
    from hal0.tables import REVISION

    settings = Settings.load()
    path = settings.database
    shown = {
        "path": str(path),
        "size_bytes": path.stat().st_size if path.exists() else None,
        "schema_revision": revision(path),
        "expected_revision": REVISION,
        "models": str(settings.models),
    }
    emit(shown, as_json, lambda: facts(shown))
