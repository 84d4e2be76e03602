"""What an install of a Lemonade server leaves that is killed, or whose machine loses its power."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.fakes.source import Source
from tests.lemond_operator import Killer, Operator, names_in
from tests.power.disk import Disk
from tests.power.recorder import Kind, Recording, build_shim, read_log
from tests.tarballs import PROGRAM, server

pytestmark = pytest.mark.slow


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    with Source() as source:
        yield Operator(tmp_path, source)


@pytest.fixture
def killer(operator: Operator) -> Iterator[Killer]:
    made = Killer(operator)
    yield made
    made.close()


def ensure_whole(operator: Operator, versions: set[str]) -> None:
    """Whatever is current is one of these, and all that has a version's name is whole."""
    program = (operator.programs / "current" / "lemond").read_bytes()
    assert program in {PROGRAM % version.encode() for version in versions}
    for folder in (operator.programs / "versions").iterdir():
        if not folder.name.startswith("."):
            assert (folder / "lib" / "libserver.so").read_bytes().startswith(b"library")
            assert (folder / "resources" / "defaults.json").is_file()


@pytest.mark.timeout(300)
def test_killed_at_any_change_of_the_disk_an_install_leaves_a_whole_version_and_is_mended(
    operator: Operator, killer: Killer
) -> None:
    pins = {version: operator.pin(version, server(version)) for version in ("1", "2", "3")}
    for version in ("1", "2"):
        assert killer.run("lemond", "install", "--pin", pins[version]) == 0
    begun, deaths = operator.folder / "begun", 0
    operator.home.rename(begun)
    tarball_of_3 = begun / "lemond" / "downloads" / f"{operator.names['3']}.tar"
    tarball_of_3.write_bytes(server("3"))  # a download that is killed has tests of its own
    while True:
        shutil.copytree(begun, operator.home, symlinks=True)
        code = killer.run("lemond", "install", "--pin", pins["3"], kill_at=deaths + 1)
        ensure_whole(operator, {"2", "3"})
        if code == 0:
            break
        assert code == -9
        deaths += 1
        assert killer.run("lemond", "install", "--pin", pins["3"]) == 0
        ensure_whole(operator, {"3"})
        assert names_in(operator.programs / "versions") == {
            operator.names["2"],
            operator.names["3"],
        }
        assert names_in(operator.programs / "downloads") == set()
        assert (operator.programs / "previous").resolve().name == operator.names["2"]
        shutil.rmtree(operator.home)
    assert deaths > 30, deaths
    assert len(operator.asked()) == 2


def test_killed_at_any_change_of_the_disk_a_rollback_leaves_either_version(
    operator: Operator, killer: Killer
) -> None:
    for version in ("1", "2"):
        pin = operator.pin(version, server(version))
        assert killer.run("lemond", "install", "--pin", pin) == 0
    deaths = 0
    while killer.run("lemond", "rollback", kill_at=deaths + 1) == -9:
        deaths += 1
        ensure_whole(operator, {"1", "2"})
    assert deaths > 1
    assert operator.runs() == "lemond 1"


def test_a_power_cut_takes_nothing_of_a_version_that_is_current(operator: Operator) -> None:
    pin, disk = operator.pin("1"), Disk()
    recording = Recording(
        operator.folder, shim=build_shim(operator.folder), log=operator.folder / "log"
    )
    operator.settings |= recording.env
    operator.install(pin)
    records = read_log(recording.log)
    version = operator.programs / "versions" / operator.names["1"]
    renames = {one.other: at for at, one in enumerate(records) if one.kind is Kind.RENAME}
    made, current = renames[str(version)], renames[str(operator.programs / "current")]
    synced = [(one.name if one.kind is Kind.SYNCED else "") for one in records]
    named = synced.index(str(version.parent), made)
    assert named < current < synced.index(str(operator.programs), current)
    # The rules of `Disk` know no folder that moves: it is looked at where it was made.
    staged = Path(records[made].name)
    for record in [*records[:made], *records[made + 1 : named + 1]]:
        disk.take(record)
    whole = {
        str(staged / path.relative_to(version)): path.read_bytes()
        for path in version.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    assert len(whole) == 4
    for seed in range(100):
        left = disk.after_a_cut(Random(seed))
        assert {name: left.get(name) for name in whole} == whole
