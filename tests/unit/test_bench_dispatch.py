"""The arithmetic of the bench of inference: what it compares, what it judges, what it counts."""

import sqlite3
import time
from contextlib import closing
from os import getpid
from pathlib import Path

import pytest

from tests.bench.dispatch_serving import commits_in
from tests.bench.dispatch_streams import growth_of
from tests.bench.dispatch_systems import BARE, DIRECT, GO, HAL0, NGINX, OTHER_CLIENTS, STARLETTE
from tests.bench.dispatch_table import Figures, Took, rows_of
from tests.bench.dispatch_wire import cpu_s
from tests.bench.table import Row, Verdict

KINDS = ("c=1", "c=8", "c=64", "streams")


def took(**hal0: float) -> Took:
    """Three rounds in which every proxy shows the same, but for hal0's figures given."""
    usual = {"cpu_us": 100.0, "p50_ms": 2.0, "p99_ms": 4.0, "chunks_s": 1000.0}
    names = (HAL0, DIRECT, BARE, STARLETTE, GO, NGINX)
    shown = {name: usual | (hal0 if name == HAL0 else {}) for name in names}
    shown[DIRECT] = usual | {"p50_ms": 1.0}
    return {
        (name, kind): Figures(**{part: [value] * 3 for part, value in shown[name].items()})
        for name in names
        for kind in KINDS
    }


def rows(of: Took) -> dict[str, Row]:
    """What is made of it where no other client than hal0's is here."""
    return {row.what: row for row in rows_of(of, dict.fromkeys(OTHER_CLIENTS, "not installed"))}


def test_latency_is_compared_by_what_is_added_to_the_median_without_a_proxy() -> None:
    found = rows(took(p50_ms=2.4, p99_ms=7.0))
    assert found[f"p50 added, c=8 / {BARE}"].figure == "1.40 x"
    assert found[f"p99 added, c=8 / {BARE}"].figure == "2.00 x"


@pytest.mark.parametrize(
    ("what", "just_good", "too_bad"),
    [
        (f"CPU of a request, c=64 / {BARE}", {"cpu_us": 150.0}, {"cpu_us": 151.0}),
        (f"CPU of a request, c=8 / {STARLETTE}", {"cpu_us": 20.0}, {"cpu_us": 21.0}),
        (f"p50 added, c=1 / {BARE}", {"p50_ms": 2.5}, {"p50_ms": 2.6}),
        (f"p99 added, c=8 / {BARE}", {"p99_ms": 5.5}, {"p99_ms": 5.6}),
        (f"chunks a second, 64 streams / {BARE}", {"chunks_s": 800.0}, {"chunks_s": 799.0}),
    ],
)
def test_each_limit_is_met_up_to_its_edge_and_not_beyond(
    what: str, just_good: dict[str, float], too_bad: dict[str, float]
) -> None:
    assert rows(took(**just_good))[what].verdict is Verdict.OK
    assert rows(took(**too_bad))[what].verdict is Verdict.SHORT


def test_ratios_are_those_of_one_round_not_of_medians() -> None:
    of = took()
    of[HAL0, "c=8"].cpu_us[:] = [100.0, 200.0, 900.0]
    of[BARE, "c=8"].cpu_us[:] = [100.0, 400.0, 300.0]
    assert rows(of)[f"CPU of a request, c=8 / {BARE}"].figure == "1.00 x"


def test_a_proxy_that_is_not_here_has_a_row_that_says_why() -> None:
    here = {at: figures for at, figures in took().items() if at[0] != NGINX}
    why = {NGINX: "nginx not installed"} | dict.fromkeys(OTHER_CLIENTS, "not installed")
    found = [row for row in rows_of(here, why) if NGINX in row.what]
    assert [(row.verdict, row.how) for row in found] == [(Verdict.NOT_HERE, "nginx not installed")]


def test_growth_is_of_the_last_three_rounds_over_the_first_three() -> None:
    assert growth_of([10, 11, 99, 50, 50, 50, 50, 13, 14, 99]) == 3


def test_commits_are_counted_in_the_log_since_it_began_anew(tmp_path: Path) -> None:
    path, log = tmp_path / "a.db", tmp_path / "a.db-wal"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE t (x BLOB)")
        for _ in range(3):
            db.execute("INSERT INTO t VALUES (zeroblob(20000))")  # several frames a commit
        assert commits_in(log) == 4
        db.execute("PRAGMA wal_checkpoint(RESTART)")
        db.execute("INSERT INTO t VALUES (1)")
        assert commits_in(log) == 1


def test_cpu_time_of_a_process_is_that_of_its_threads() -> None:
    before_s, began_s = cpu_s(getpid()), time.process_time()
    while time.process_time() < began_s + 0.1:
        pass
    assert 0.08 < cpu_s(getpid()) - before_s < time.process_time() - began_s + 0.02
