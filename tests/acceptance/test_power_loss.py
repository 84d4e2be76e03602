"""Power loss under real processes: what a client was told survives it, whole.

An API and two workers are recorded once (`tests/power/`), every write and sync of theirs and every
answer of a few seconds of traffic. Each seed then cuts the power somewhere, rebuilds what the disk
could hold, opens it with hal0's own `db.py` and looks for what is lost. A second recording is of a
hal0 that cheats: without FULL syncs in its database, and on a disk that ignores syncs of downloads.
The same look must find that out.

    POWER_SEEDS=3000        more seeds than the 300 of CI
    POWER_SEED=17           this seed alone
    POWER_RECORDING=DIR     over a recording that an earlier run left, instead of a new one
"""

import json
import os
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.acceptance.house import ROOT
from tests.power.losses import losses
from tests.power.recorded import Left, Recorded, record
from tests.power.recorder import Kind, build_shim
from tests.power.recover import Plan

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("power"),  # two recordings serve them all
]

SEEDS = range(int(os.environ.get("POWER_SEEDS", "300")))
RECOVERED = 8
AT_ONCE = 2
NAMESPACES = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
RECOVERY_S = 240


def seeds(wanted: range = SEEDS) -> list[int]:
    alone = os.environ.get("POWER_SEED")
    return list(wanted) if alone is None else [int(alone)]


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_shim(tmp_path_factory.mktemp("recorder"))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, recorder: Path) -> Recorded:
    kept = os.environ.get("POWER_RECORDING")
    if kept is not None:
        return Recorded(Path(kept))
    return record(tmp_path_factory.mktemp("power"), recorder)


@pytest.fixture(scope="module")
def cheated(tmp_path_factory: pytest.TempPathFactory, recorder: Path) -> Recorded:
    base = tmp_path_factory.mktemp("cheat")
    return record(base, recorder, launcher="tests.power.half_synced", swallowed=".part")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder for thousands of files that nobody will look at, on no disk where that can be."""
    shared = Path("/dev/shm")
    place = shared if os.access(shared, os.W_OK) else tmp_path
    with TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


def lost(recorded: Recorded, folder: Path) -> Iterator[tuple[Left, list[str]]]:
    """Yield each cut with what it lost, until somebody has seen enough."""
    for left in recorded.cuts(seeds()):
        evidence = left.lay_out(folder)
        yield left, losses(evidence, recorded.folder / "home")


def report(left: Left, found: list[str]) -> str:
    """Say what was lost, and how to see it again."""
    recorded = left.recorded
    where = f"seed {left.seed}, power lost after record {left.cut} of {len(recorded.records)}:"
    knobs = f"POWER_SEED={left.seed} POWER_RECORDING={recorded.base}"
    command = f".venv/bin/pytest {Path(__file__).relative_to(ROOT)} -k 'told or goes_on'"
    return "\n  ".join([where, *found[:10], f"again: {knobs} {command}"])


def test_the_recorder_missed_nothing(recorded: Recorded) -> None:
    """Else the cuts would be of another history than that of these processes."""
    there = [path for path in (recorded.folder / "home").rglob("*") if path.is_file()]
    files = recorded.files()
    assert {str(path) for path in there} == {name for name in files if "/home/" in name}
    assert [path.name for path in there if path.read_bytes() != files[str(path)]] == []
    records = recorded.records
    synced = Counter(Path(one.name).suffix for one in records if one.kind is Kind.SYNCED)
    assert all(synced[suffix] for suffix in (".db-wal", ".db", ".part", "")), synced
    told = [at for at, one in enumerate(records) if one.kind is Kind.NOTE]
    moved = [
        at
        for at, one in enumerate(records[: told[-1]])
        if one.kind is Kind.WRITE and one.name.endswith("hal0.db") and at > told[len(told) // 10]
    ]
    assert moved, "the traffic was too little for SQLite to checkpoint in the middle of it"


def test_no_power_cut_takes_what_a_client_was_told(recorded: Recorded, memory: Path) -> None:
    reports = [report(left, found) for left, found in lost(recorded, memory) if found]
    assert not reports, f"{len(reports)} of {len(seeds())} cuts lost something\n" + reports[0]


def test_a_home_whose_making_was_cut_short_is_made_anew(recorded: Recorded, memory: Path) -> None:
    found = {
        left.cut: losses(left.lay_out(memory), recorded.folder / "home")
        for left in recorded.makings()
    }
    assert len(found) > 5
    assert {cut: lost for cut, lost in found.items() if lost} == {}


def to_recover(recorded: Recorded) -> Iterator[Left]:
    """Choose cuts from beginning to end, half of them in the middle of a download."""
    fetching: dict[bool, list[int]] = {True: [], False: []}
    for left in recorded.cuts(seeds()[: 10 * RECOVERED]):
        parts = (content for name, content in left.files.items() if name.endswith(".part"))
        fetching[any(parts)].append(left.seed)
    half = RECOVERED // 2
    return recorded.cuts(seed for some in fetching.values() for seed in spread(some, half))


def spread(some: list[int], count: int) -> list[int]:
    """Take so many of a list, as far from each other as can be."""
    return some[:: max(1, -(-len(some) // count))]


def test_hal0_goes_on_after_a_power_cut(recorded: Recorded, tmp_path: Path) -> None:
    """On another boot, with the same path and ports: each cut in namespaces of its own."""
    possible = subprocess.run(
        ["unshare", *NAMESPACES, "true"], capture_output=True, text=True, check=False
    )
    if possible.returncode != 0:
        pytest.skip(f"only root can make namespaces here: {possible.stderr.strip()}")

    def recover(left: Left) -> tuple[Left, list[str]]:
        to = tmp_path / str(left.seed)
        to.mkdir()
        left.lay_out(to)
        plan = Plan(
            left=str(to),
            was=str(recorded.folder),
            boot_id=str(uuid.UUID(int=left.seed)),
            engine_port=recorded.ports["engine"],
            source_port=recorded.ports["source"],
        )
        done = subprocess.run(
            ["unshare", *NAMESPACES, sys.executable, "-m", "tests.power.recover", plan.write()],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=RECOVERY_S,
            check=False,
        )
        return left, json.loads(done.stdout) if done.returncode == 0 else [done.stderr]

    with ThreadPoolExecutor(AT_ONCE) as threads:
        done = list(threads.map(recover, to_recover(recorded)))
    assert done
    reports = [report(left, found) for left, found in done if found]
    assert not reports, "\n".join(reports)


def test_a_hal0_that_spares_syncs_is_caught(cheated: Recorded, memory: Path) -> None:
    """The look itself is tested: what it was told is lost, and a download is half there."""
    to_find = {"is lost", "is not as it was shown", "has its final name and is not whole"}
    for _, found in lost(cheated, memory):
        to_find -= {sign for sign in to_find for one in found if sign in one}
        if not to_find:
            break
    assert to_find == set()
