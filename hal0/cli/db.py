"""`hal0 db …`: the database of this home, opened directly."""

import click

from hal0.cli.show import emit, facts, json_option


@click.group()
def db() -> None:
    """The database: upgrade, info."""


@db.command()
@json_option
def upgrade(as_json: bool) -> None:
    """Create the database, or bring it to this version's schema."""
    from hal0.db import open_database, revision
    from hal0.settings import Settings
    from hal0.tables import REVISION

    settings = Settings.load()
    before = revision(settings.database)
    open_database(settings, upgrade=True).close()
    done = {"path": str(settings.database), "before": before, "after": REVISION}
    emit(
        done,
        as_json,
        lambda: click.echo(f"{settings.database}: schema {before or 'none'} → {REVISION}"),
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
