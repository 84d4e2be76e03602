"""Run the revisions on hal0's database; `hal0.db.migrate` is the one caller besides Alembic's CLI."""

from alembic import context
from sqlalchemy import URL, create_engine, event

from hal0.settings import Settings
from hal0.tables import metadata


def run() -> None:
    settings = context.config.attributes.get("settings") or Settings.load()
    engine = create_engine(URL.create("sqlite", database=str(settings.database)))

    @event.listens_for(engine, "connect")
    def _connect(connection, _record) -> None:  # type: ignore[no-untyped-def]
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection) -> None:  # type: ignore[no-untyped-def]
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    context.config.attributes["settings"] = settings
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=metadata,
            render_as_batch=True,
            compare_type=True,
            transaction_per_migration=False,  # a cut between two would leave a new home half made
            transactional_ddl=True,
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run()
