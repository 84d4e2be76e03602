"""Where programs, settings and models are, for the home of the units and for any other."""

from pathlib import Path

from hal0.lemond.places import HOME_OF_UNITS, Places
from hal0.settings import Settings


def test_the_units_run_programs_that_their_user_cannot_change() -> None:
    places = Places.of(Settings(home=HOME_OF_UNITS))
    assert places == Places(
        HOME_OF_UNITS, Path("/usr/local/lib/hal0-lemond"), HOME_OF_UNITS / "models"
    )
    assert str(places.program) == "/usr/local/lib/hal0-lemond/current/lemond"
    assert str(places.config) == "/var/lib/hal0/lemonade/config.json"
    assert places.are_for_units
    assert places.are_open_to_all


def test_any_other_home_has_all_of_it_in_itself(tmp_path: Path) -> None:
    places = Places.of(Settings(home=tmp_path / "home", models_dir=tmp_path / "models"))
    assert places == Places(tmp_path / "home", tmp_path / "home" / "lemond", tmp_path / "models")
    assert not places.are_for_units
    assert not places.are_open_to_all


def test_programs_elsewhere_are_open_to_all(tmp_path: Path) -> None:
    places = Places.of(Settings(home=tmp_path / "home"), tmp_path / "opt")
    assert places.programs == tmp_path / "opt"
    assert places.are_open_to_all


def test_a_place_is_absolute_wherever_the_server_is_started() -> None:
    places = Places.of(Settings(home=Path("home")), Path("programs"))
    assert all(path.is_absolute() for path in (places.programs, places.state, places.models))
