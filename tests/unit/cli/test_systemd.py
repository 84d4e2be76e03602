"""`hal0 systemd install`: which files it writes, with which paths, and what it says."""

import json
import re
import stat
import sys
from pathlib import Path

import pytest

from hal0.cli import units
from hal0.cli.exits import Failure
from hal0.settings import Settings
from hal0.where import PREFIX
from tests.unit.cli.conftest import Run
from tests.unit.cli.test_setup import Terminal

SYSTEM = "lib/systemd/system"
INSTALLED = {
    f"{SYSTEM}/hal0-api.service",
    f"{SYSTEM}/hal0-engine.service",
    f"{SYSTEM}/hal0-worker@.service",
    f"{SYSTEM}/hal0.target",
    f"{SYSTEM}/lemond.service",
    "lib/sysusers.d/hal0.conf",
    "lib/tmpfiles.d/hal0.conf",
    "share/hal0/hal0.env.example",
}


def below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def modes(folder: Path) -> set[tuple[bool, int]]:
    return {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in folder.rglob("*")}


def test_all_files_come_to_their_places_and_all_may_read_them(run: Run, tmp_path: Path) -> None:
    prefix = tmp_path / "usr" / "local"
    done = run("systemd", "install", "--prefix", prefix)
    assert done.code == 0, done.err
    assert below(prefix) == INSTALLED
    assert modes(tmp_path / "usr") == {(True, 0o755), (False, 0o644)}
    assert {line.split()[1] for line in done.out.splitlines()} == {
        str(prefix / name) for name in INSTALLED
    }


def test_the_units_run_the_hal0_that_wrote_them(run: Run, tmp_path: Path) -> None:
    run("systemd", "install", "--prefix", tmp_path, "--lemond", "/srv/lemonade/lemond")
    text = "".join((tmp_path / name).read_text() for name in INSTALLED)
    hal0 = Path(sys.executable).with_name("hal0")
    lemond = "/srv/lemonade/lemond /var/lib/hal0/lemonade --host 127.0.0.1 --port 13305"
    assert set(re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)) == {
        f"{hal0} api",
        f"{hal0} engine",
        f"{hal0} worker",
        f"{lemond} --no-broadcast",
    }
    assert not re.findall(r"@[A-Z0-9]+@", text), "nothing is left to be filled in"


def test_a_second_time_changes_only_what_was_changed(run: Run, tmp_path: Path) -> None:
    run("systemd", "install", "--prefix", tmp_path)
    api = tmp_path / SYSTEM / "hal0-api.service"
    good = api.read_text()
    api.write_text("[Service]\nof=another version\n")
    target = tmp_path / SYSTEM / "hal0.target"
    before = target.stat()
    done = run("systemd", "install", "--prefix", tmp_path, "--json")
    states = {Path(one["path"]): one["state"] for one in json.loads(done.out)["files"]}
    assert states.pop(api) == "written"
    assert set(states.values()) == {"unchanged"}
    assert api.read_text() == good
    assert (target.stat().st_ino, target.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert below(tmp_path) == INSTALLED


@pytest.mark.parametrize("leads_to", ["victim", "nowhere"])
def test_a_link_in_the_way_of_a_unit_is_replaced_and_not_followed(
    run: Run, tmp_path: Path, leads_to: str
) -> None:
    victim, prefix = tmp_path / "victim", tmp_path / "prefix"
    victim.write_text("precious")
    folder = prefix / SYSTEM
    folder.mkdir(parents=True)
    (folder / ".hal0.target.part").symlink_to(tmp_path / leads_to)
    (folder / ".lemond.service.part").write_text("of an install that was killed")
    assert run("systemd", "install", "--prefix", prefix).code == 0
    assert below(prefix) == INSTALLED
    assert not (folder / "hal0.target").is_symlink()
    assert victim.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("prefix", ["usr/local", ".", "/usr/../etc", ""])
def test_what_is_no_absolute_prefix_is_refused(run: Run, prefix: str) -> None:
    done = run("systemd", "install", "--prefix", prefix)
    assert done.code == 2
    assert "is no absolute path" in done.err


def test_a_prefix_that_is_a_file_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert run("systemd", "install", "--prefix", tmp_path / "file").code == 2
    below_it = run("systemd", "install", "--prefix", tmp_path / "file" / "deeper")
    assert below_it.code == 1
    assert "see to what is there, or name another --prefix" in below_it.err


def test_a_server_that_hal0_installed_comes_first_by_a_path_that_no_switch_changes(
    tmp_path: Path,
) -> None:
    elsewhere = units.found_lemond(tmp_path / "lemond")
    assert not elsewhere.is_relative_to(tmp_path)
    version = tmp_path / "lemond" / "versions" / "1"
    version.mkdir(parents=True)
    (version / "lemond").touch()
    (tmp_path / "lemond" / "current").symlink_to("versions/1")
    assert units.found_lemond(tmp_path / "lemond") == tmp_path / "lemond" / "current" / "lemond"


@pytest.mark.parametrize("lemond", ["lemond", "/opt/with space/lemond", "/opt/$HOME/lemond"])
def test_a_path_that_a_unit_cannot_hold_as_it_is_is_refused(
    run: Run, tmp_path: Path, lemond: str
) -> None:
    done = run("systemd", "install", "--prefix", tmp_path, "--lemond", lemond)
    assert done.code == 1
    assert lemond in done.err
    assert below(tmp_path) == set()


def test_a_dry_run_shows_the_files_and_writes_none(run: Run, tmp_path: Path) -> None:
    done = run("systemd", "install", "--prefix", tmp_path, "--dry-run")
    assert done.code == 0
    assert f"# {tmp_path}/{SYSTEM}/hal0-api.service\n[Unit]\n" in done.out
    assert f"systemd does not look below {tmp_path}" in done.err, "all that an install would say"
    assert below(tmp_path) == set()
    shown = json.loads(run("systemd", "install", "--prefix", tmp_path, "--dry-run", "--json").out)
    assert {Path(one["path"]) for one in shown["files"]} == {tmp_path / name for name in INSTALLED}


def test_what_is_to_be_done_next_is_said(run: Run, tmp_path: Path) -> None:
    said = run("systemd", "install", "--prefix", tmp_path).err
    for command in (
        "systemd-sysusers hal0.conf && systemd-tmpfiles --create hal0.conf",
        "systemctl daemon-reload",
        "systemctl enable hal0.target hal0-api hal0-worker@1 hal0-worker@2 hal0-engine",
        "systemctl restart hal0.target",
        f"see {tmp_path}/share/hal0/hal0.env.example",
        f"systemd does not look below {tmp_path}",
    ):
        assert command in said


def test_what_the_units_could_not_see_is_named() -> None:
    within, beside = Path("/home/one/venv/bin/hal0"), Path("/homes/bin/hal0")
    assert within in units.unseen(within)
    assert beside not in units.unseen(beside)


@pytest.mark.parametrize(
    ("answer", "more", "is_written"),
    [("n", (), False), ("y", (), True), ("", (), False), ("n", ("--yes",), True)],
)
def test_who_sits_at_a_terminal_is_asked_before_units_are_written_that_cannot_work(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    more: tuple[str, ...],
    is_written: bool,
) -> None:
    monkeypatch.setattr(sys, "prefix", "/home/one/venv")
    monkeypatch.setattr("sys.stdin", Terminal(f"{answer}\n"))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    done = run("systemd", "install", "--prefix", tmp_path, *more)
    assert (done.code, below(tmp_path) != set()) == (0 if is_written else 1, is_written)
    assert done.err.count("WARNING: the units see nothing of /home/one/venv: install") == 1


def test_a_script_is_not_asked(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/home/one/venv")
    done = run("systemd", "install", "--prefix", tmp_path)
    assert (done.code, below(tmp_path)) == (0, INSTALLED)
    assert "WARNING: the units see nothing of /home/one/venv" in done.err


def test_a_unit_of_lemonade_s_own_package_is_not_hidden(tmp_path: Path) -> None:
    place = tmp_path / "etc"
    place.mkdir()
    theirs = place / "lemond.service"
    assert units.anothers_lemond(tmp_path, (place,)) is None
    theirs.write_text("[Service]\nUser=lemonade\nExecStart=/usr/bin/lemond\n")
    assert units.anothers_lemond(tmp_path, (place,)) == theirs


def test_a_lemond_unit_of_an_earlier_install_is_ours(run: Run, tmp_path: Path) -> None:
    run("systemd", "install", "--prefix", tmp_path)
    assert units.anothers_lemond(tmp_path, (tmp_path / SYSTEM,)) is None


def test_a_package_s_unit_below_the_prefix_is_left_alone(run: Run, tmp_path: Path) -> None:
    theirs = tmp_path / SYSTEM / "lemond.service"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("[Service]\nUser=lemonade\n")
    done = run("systemd", "install", "--prefix", tmp_path)
    assert f"left out   {theirs}" in done.out
    assert f"lemond.service is left to {theirs}; --lemond PATH writes" in done.err
    assert theirs.read_text() == "[Service]\nUser=lemonade\n"


def test_every_setting_of_the_example_is_one() -> None:
    text = (units.templates() / "hal0.env.example").read_text()
    named = set(re.findall(rf"\b{PREFIX}([A-Z0-9_]+)", text))
    assert {name.lower() for name in named} - Settings.model_fields.keys() == set()
    assert re.findall(r"^[^#\n]", text, re.MULTILINE) == [], "an example sets nothing"


def test_an_installation_without_its_command_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(Failure, match="install hal0 into a venv of its own"):
        units.this_hal0()


def test_what_is_in_the_way_of_a_file_is_no_matter_of_being_root(run: Run, tmp_path: Path) -> None:
    (tmp_path / SYSTEM / "hal0-api.service").mkdir(parents=True)
    done = run("systemd", "install", "--prefix", tmp_path)
    assert done.code == 1
    assert "hal0-api.service cannot be written: Is a directory; see to what is" in done.err
    assert "as root" not in done.err
