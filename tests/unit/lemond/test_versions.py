"""Which version is current, to which one goes back, and what is taken away."""

import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from hal0.errors import NoPreviousVersion
from hal0.lemond.pin import Pin
from hal0.lemond.versions import Versions
from tests.ledger import eventually


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    return Versions(tmp_path / "lemond")


def pin_of(version: str) -> Pin:
    url = f"https://example.org/{version}.tar.gz?signature=secret"
    return Pin(version=version, tarball_url=url, sha256=version * 64)


def add(versions: Versions, version: str) -> str:
    pin = pin_of(version)
    with versions.lock(pytest.fail):
        made = versions.staging_of(pin.name)
        made.mkdir()
        (made / "lemond").write_text(version)
        versions.add(pin, made)
    return pin.name


def use(versions: Versions, version: str) -> str:
    name = add(versions, version)
    with versions.lock(pytest.fail):
        versions.switch_to(name)
        versions.drop_others()
    return name


def roles(versions: Versions) -> dict[str, str]:
    """What each version that is there is, by its first letter."""
    return {
        one.name[0]: "current" if one.is_current else "previous" if one.is_previous else ""
        for one in versions.all()
    }


def test_nothing_is_current_where_nothing_is_and_looking_makes_nothing(versions: Versions) -> None:
    assert (versions.current, versions.previous, versions.all()) == (None, None, [])
    assert not versions.folder.exists()


def test_the_version_before_is_kept_and_the_one_before_that_is_not(versions: Versions) -> None:
    for version, expected in {
        "1": {"1": "current"},
        "2": {"1": "previous", "2": "current"},
        "3": {"2": "previous", "3": "current"},
    }.items():
        use(versions, version)
        assert roles(versions) == expected
        assert (versions.folder / "current" / "lemond").read_text() == version


def test_what_made_a_version_is_noted_without_what_may_be_a_secret(versions: Versions) -> None:
    use(versions, "1")
    (only,) = versions.all()
    assert only.pin is not None
    assert only.pin.sha256 == "1" * 64
    assert "secret" not in (only.path / "hal0-pin.json").read_text()


def test_going_back_cannot_be_repeated_and_keeps_the_way_forward(versions: Versions) -> None:
    first, second = use(versions, "1"), use(versions, "2")
    assert versions.roll_back() == first
    assert roles(versions) == {"1": "current", "2": ""}
    with pytest.raises(NoPreviousVersion):
        versions.roll_back()
    assert roles(versions) == {"1": "current", "2": ""}
    versions.switch_to(second)
    assert roles(versions) == {"1": "previous", "2": "current"}


def test_with_one_version_there_is_nothing_to_go_back_to(versions: Versions) -> None:
    use(versions, "1")
    with pytest.raises(NoPreviousVersion, match="no version to go back to"):
        versions.roll_back()


def test_after_a_switch_that_was_cut_short_the_old_version_is_current_alone(
    versions: Versions,
) -> None:
    use(versions, "1")
    second = use(versions, "2")
    add(versions, "3")
    (versions.folder / "previous").unlink()
    (versions.folder / "previous").symlink_to(Path("versions", second))
    assert roles(versions) == {"1": "", "2": "current", "3": ""}


@pytest.mark.parametrize("to", ["elsewhere", "versions/../elsewhere", "versions/gone"])
def test_a_link_of_somebody_else_names_no_version(versions: Versions, to: str) -> None:
    use(versions, "1")
    (versions.folder / "elsewhere").mkdir()
    (versions.folder / "current").unlink()
    (versions.folder / "current").symlink_to(to)
    assert versions.current is None
    assert use(versions, "2") == versions.current


def test_what_a_dead_process_left_is_taken_away_and_shown_to_nobody(versions: Versions) -> None:
    use(versions, "1")
    rubbish = versions.folder / "versions" / ".2-222222222222.new"
    (rubbish / "half").mkdir(parents=True)
    assert roles(versions) == {"1": "current"}
    with versions.lock(pytest.fail):
        assert not rubbish.exists()


def test_a_version_that_still_runs_is_not_taken_away(versions: Versions) -> None:
    first = use(versions, "1")
    program = versions.path_of(first) / "cat"
    shutil.copy(str(shutil.which("cat")), program)
    with subprocess.Popen([program], stdin=subprocess.PIPE) as running:
        eventually(lambda: Path(f"/proc/{running.pid}/exe").resolve() == program)
        use(versions, "2")
        use(versions, "3")
        assert roles(versions) == {"1": "", "2": "previous", "3": "current"}
    use(versions, "4")
    assert roles(versions) == {"3": "previous", "4": "current"}


def test_only_one_at_a_time_changes_anything_and_the_other_is_told(versions: Versions) -> None:
    waits, has_it = threading.Event(), threading.Event()

    def second() -> None:
        with versions.lock(waits.set):
            has_it.set()

    with versions.lock(pytest.fail):
        other = threading.Thread(target=second)
        other.start()
        assert waits.wait(30)
        assert not has_it.is_set()
    other.join(30)
    assert has_it.is_set()
