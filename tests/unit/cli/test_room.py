"""What `hal0 doctor` says of a disk without room, seen on a disk of its own."""

from pathlib import Path

from hal0.cli.checks import machine
from hal0.settings import Settings
from tests.small_disk import MIB, filled, small_disk


def test_doctor_tells_of_a_disk_without_room_for_the_database(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    with small_disk(settings.home, 4 * MIB):
        assert machine.home(settings).verdict == "ok"
        with filled(settings.home):
            found = machine.home(settings)
    assert (found.verdict, found.to_do) == ("wrong", "make room")
    assert found.detail == f"the disk of {settings.home} is full"
