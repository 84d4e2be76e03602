"""What each process says that cannot begin: exit code, what is wrong, what to do, and no traceback.

A fault is shown to several commands at once, as processes of their own over one home. What is said
of an upgrade is in tests/unit/cli/test_db_upgrade.py.
"""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from hal0.db import prepare_home, revision
from hal0.settings import Settings
from hal0.tables import REVISION
from tests.acceptance.house import free_port
from tests.older import FIRST, make_first_schema
from tests.powerless import without_powers
from tests.rows import contents

pytestmark = pytest.mark.slow
MEND = "stop hal0, put it aside for whoever may mend it, and put a copy in its place"
ALL = ("api", "worker", "up", "db info", "doctor")
Done = Mapping[str, tuple[int, str]]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / "home"
    yield home
    for path in [home, *home.rglob("*")] if home.is_dir() else []:
        path.chmod(0o700)


def run_all(home: Path, *commands: str, **env: str) -> Done:
    """Run these commands at once; return of each its exit code and what it wrote."""
    started = {}
    for line in commands:
        settings = {
            "HAL0_HOME": str(home),
            "HAL0_BIND": f"127.0.0.1:{free_port()}",
            **({} if "HAL0_ENGINE_BIND" in env else {"HAL0_ENGINE_URL": "http://127.0.0.1:9"}),
            "HAL0_BUSY_TIMEOUT_S": "0.2",
        }
        started[line] = subprocess.Popen(
            [sys.executable, "-m", "hal0", *line.split()],
            env={**os.environ, **settings, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=without_powers,  # noqa: PLW1509  (one thread; nothing is imported in it)
        )
    said = {}
    try:
        for line, process in started.items():
            output = process.communicate(timeout=60)[0]
            said[line] = (process.returncode, output)
    finally:
        for process in started.values():
            process.kill()
            process.wait()
    assert not [text for _, text in said.values() if "Traceback" in text], said
    return said


def codes(done: Done) -> list[int]:
    return [code for code, _ in done.values()]


def every(done: Done, *words: str) -> bool:
    return all(word in text for _, text in done.values() for word in words)


def garbage(database: Path) -> None:
    database.write_bytes(b"\xff" * 20_000)


def damaged(database: Path) -> None:
    whole = database.read_bytes()
    database.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))


def of_another_program(database: Path) -> None:
    database.unlink()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")


@pytest.mark.parametrize(
    ("spoil", "to_do", "commands"),
    [
        (garbage, MEND, ALL),
        (damaged, MEND, ("worker", "doctor")),
        (of_another_program, "not one of hal0; set HAL0_HOME to another", ("up", "doctor")),
    ],
)
def test_a_database_that_is_none_is_named_and_left_alone(
    home: Path,
    migrated_file: Path,
    spoil: Callable[[Path], None],
    to_do: str,
    commands: tuple[str, ...],
) -> None:
    prepare_home(Settings(home=home))
    database = Path(shutil.copy(migrated_file, home / "hal0.db"))
    spoil(database)
    before = database.read_bytes()
    done = run_all(home, *commands)
    assert set(codes(done)) == {1}
    assert every(done, str(database), to_do), done
    assert all("db.corrupt" in done[line][1] for line in commands[:-1])
    assert database.read_bytes() == before


def test_a_database_of_a_newer_hal0_is_left_to_that(home: Path, migrated_file: Path) -> None:
    prepare_home(Settings(home=home))
    database = Path(shutil.copy(migrated_file, home / "hal0.db"))
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = contents(database)
    done = run_all(home, "api", "worker", "up", "db upgrade", "doctor")
    assert codes(done) == [1, 1, 1, 1, 1]
    assert every(done, f"{database} has schema 9999, this hal0 knows {REVISION}")
    assert every(done, "install the newer hal0")
    assert run_all(home, "db info")["db info"][0] == 0
    assert contents(database) == before


def test_who_looks_at_an_older_database_is_told_what_to_do_and_changes_nothing(home: Path) -> None:
    settings = Settings(home=home)
    make_first_schema(settings)
    before = contents(settings.database)
    done = run_all(home, "db info", "doctor")
    assert codes(done) == [0, 1]
    assert every(done, str(settings.database), FIRST, REVISION)
    assert "run `hal0 db upgrade`" in done["doctor"][1]
    assert contents(settings.database) == before


def test_a_database_of_a_schema_that_never_was_is_not_upgraded(
    home: Path, migrated_file: Path
) -> None:
    prepare_home(Settings(home=home))
    database = Path(shutil.copy(migrated_file, home / "hal0.db"))
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0000'")
    done = run_all(home, "db upgrade", "up")
    assert codes(done) == [1, 1]
    assert every(
        done, f"{database} has schema 0000, which no hal0 up to this one wrote; put a copy"
    )
    assert revision(database) == "0000"


def test_a_database_that_another_program_holds_is_waited_for_and_then_named(
    home: Path, migrated_file: Path
) -> None:
    prepare_home(Settings(home=home))
    database = Path(shutil.copy(migrated_file, home / "hal0.db"))
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        done = run_all(home, "api", "worker", "up")
        assert codes(done) == [1, 1, 1]
        assert every(done, f"another process holds {database}: database is locked; end it, or try")
        assert run_all(home, "db info")["db info"][0] == 0


def not_writable(home: Path) -> Path:
    home.chmod(0o500)
    return home


def database_of_another(home: Path) -> Path:
    (home / "hal0.db").chmod(0o400)
    return home / "hal0.db"


def lock_of_another(home: Path) -> Path:
    (home / "migrate.lock").touch(mode=0)
    return home / "migrate.lock"


def bells_of_another(home: Path) -> Path:
    (home / "run" / "bells").mkdir(mode=0o500)
    return home / "run" / "bells"


@pytest.mark.parametrize(
    "spoil", [not_writable, database_of_another, lock_of_another, bells_of_another]
)
def test_what_of_a_home_cannot_be_written_is_named(
    home: Path, migrated_file: Path, spoil: Callable[[Path], Path]
) -> None:
    prepare_home(Settings(home=home))
    shutil.copy(migrated_file, home / "hal0.db")
    named = spoil(home)
    if is_all_powerful(named):
        pytest.skip("this root cannot give up its powers, so nothing is unwritable to it")
    done = run_all(home, "worker", "up", "doctor")
    assert codes(done) == [1, 2, 1]
    is_folder = named == home
    to_do = "set HAL0_HOME to a folder you own" if is_folder else "give it to them (chown), or run"
    assert every(done, str(named), to_do), done


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for home in (tmp_path / "file", tmp_path / "file" / "below"):
        done = run_all(home, "api", "db upgrade", "doctor")
        assert codes(done) == [2, 2, 1]
        assert every(done, f"{home} cannot be made: ", "set HAL0_HOME to a folder you own")


def is_all_powerful(path: Path) -> bool:
    probe = f"import os; print(os.access({str(path)!r}, os.R_OK | os.W_OK))"
    done = subprocess.run(
        [sys.executable, "-c", probe],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=without_powers,
    )
    return done.stdout.strip() == "True"


def test_a_model_file_that_may_not_be_read_is_named(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "secret.gguf"
    file.write_bytes(b"GGUF")
    file.chmod(0)
    if is_all_powerful(file):
        pytest.skip("this root cannot give up its powers, so nothing is unreadable to it")
    code, said = run_all(home, f"model add {file}")[f"model add {file}"]
    assert (code, said) == (1, f"hal0: {file} cannot be read: Permission denied\n")


def test_a_port_that_is_taken_is_named_with_the_setting_to_change(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        api = run_all(home, "api", "up", HAL0_BIND=bind)
        engine = run_all(home, "engine", "up", HAL0_ENGINE_BIND=bind)
    why = f"BIND={bind}: cannot listen there: Address already in use; stop what does, or set HAL0_"
    assert codes(api) == [2, 2]
    assert every(api, f"HAL0_{why}BIND to another port")
    assert codes(engine) == [2, 2]
    assert every(engine, f"HAL0_ENGINE_{why}ENGINE_BIND to another port")
    assert not (home / "hal0.db").exists()


def test_a_slip_in_a_setting_is_named_and_nothing_is_made(home: Path) -> None:
    done = run_all(home, *ALL, "engine", HAL0_LOAD_TIMOUT_S="5")
    assert codes(done) == [2, 1, 2, 2, 1, 2]
    assert every(done, "HAL0_LOAD_TIMOUT_S is no setting of hal0; did you mean HAL0_LOAD_TIMEOUT_S")
    assert not home.exists()
