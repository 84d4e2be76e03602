"""`hal0 lemond …` as an operator runs it, against a server of tarballs."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from hal0.registry.download import STALL_BYTES
from tests.fakes.source import Manner, Source
from tests.ledger import eventually
from tests.lemond_operator import Operator, names_in
from tests.small_disk import MIB, small_disk
from tests.tarballs import PROGRAM, member, server, tarball

pytestmark = pytest.mark.slow

HALF = 100_000


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    with Source() as source:
        yield Operator(tmp_path, source)


def test_a_version_is_fetched_unpacked_made_current_and_configured(operator: Operator) -> None:
    pin = operator.pin("11.7.0")
    out, err = operator.run("install", "--pin", pin)
    name = operator.names["11.7.0"]
    config = operator.home / "lemonade" / "config.json"
    assert out.splitlines() == [f"installed  {name}", f"written    {config}"]
    assert f"{operator.programs}/current/lemond {operator.home}/lemonade --host 127.0.0.1" in err
    assert operator.runs() == "lemond 11.7.0"
    assert names_in(operator.programs / "current") == {
        *("lemond", "lib", "bin", "resources", "hal0-pin.json")
    }
    assert names_in(operator.programs / "downloads") == set()
    assert json.loads(config.read_text()) == {
        "host": "127.0.0.1",
        "max_loaded_models": -1,
        "auto_evict": False,
        "extra_models_dir": str(operator.home / "models"),
    }


def test_what_is_current_already_is_left_alone(operator: Operator) -> None:
    pin = operator.pin("1")
    operator.install(pin)
    asked = operator.asked()
    before = (operator.programs / "current").lstat()
    done = operator.install(pin)
    assert (done["state"], done["config"]["state"], done["next"]) == ("unchanged", "unchanged", [])
    assert operator.asked() == asked
    assert (operator.programs / "current").lstat().st_ino == before.st_ino
    assert operator.run("install", "--pin", pin)[1] == ""


def test_one_goes_back_and_forward_again_without_fetching(operator: Operator) -> None:
    first, second = operator.pin("1"), operator.pin("2")
    assert operator.install(first)["previous"] is None
    assert operator.install(second)["previous"] == operator.names["1"]
    asked = operator.asked()
    out, err = operator.run("rollback", "--json")
    assert json.loads(out)["current"] == operator.names["1"]
    assert "start the server anew" in err
    assert operator.runs() == "lemond 1"
    assert "[lemond.no_previous]" in operator.run("rollback", exit_code=5)[1]
    assert operator.runs() == "lemond 1"
    assert operator.install(second)["state"] == "switched"
    assert operator.runs() == "lemond 2"
    shown = operator.show()
    assert [(one["pin"]["version"], one["is"]) for one in shown["items"]] == [
        ("1", "previous"),
        ("2", "current"),
    ]
    assert shown["current"] == operator.names["2"]
    assert operator.asked() == asked


def test_another_tarball_of_the_same_version_is_another_version(operator: Operator) -> None:
    operator.install(operator.pin("1", server("1")))
    operator.install(operator.pin("1", server("1 anew")))
    assert operator.runs() == "lemond 1 anew"
    operator.run("rollback")
    assert operator.runs() == "lemond 1"


def test_a_download_that_was_cut_goes_on_where_it_broke_off(operator: Operator) -> None:
    pin = operator.pin("1")
    operator.source.script("1.tar.gz", Manner(drop_after=HALF, times=1))
    _, err = operator.run("install", "--pin", pin, exit_code=1)
    assert "[pull.source_unreachable]" in err
    assert "Run this again" in err
    assert not (operator.programs / "current").exists()
    operator.install(pin)
    assert [status for _, status in operator.asked()] == [200, 206]
    assert operator.asked()[1][0].startswith("bytes=")
    assert operator.runs() == "lemond 1"


def test_a_download_that_was_killed_goes_on_too(operator: Operator) -> None:
    pin, hold = operator.pin("1"), Event()
    operator.source.script("1.tar.gz", Manner(hold=hold, hold_at=HALF, times=1))
    part = operator.programs / "downloads" / f"{operator.names['1']}.tar.part"
    with operator.start("install", "--pin", pin) as process:
        eventually(lambda: part.exists() and part.stat().st_size == HALF)
        process.kill()
    hold.set()
    assert operator.install(pin)["state"] == "installed"
    assert operator.asked()[1] == (f"bytes={HALF}-", 206)
    assert operator.runs() == "lemond 1"


def test_a_source_that_next_to_nothing_comes_from_is_given_up(operator: Operator) -> None:
    pin = operator.pin("1")
    operator.source.script("1.tar.gz", Manner(stall_after=STALL_BYTES))
    operator.settings["HAL0_PULL_STALL_S"] = "0.3"
    _, err = operator.run("install", "--pin", pin, exit_code=1)
    assert "[pull.source_stalled]" in err


@pytest.mark.parametrize(
    ("code", "manner"),
    [
        ("pull.source_not_found", Manner(status=404)),
        ("pull.source_refused", Manner(status=403)),
        ("pull.host_not_allowed", Manner(redirect_to="http://10.255.255.1/server.tar.gz")),
        ("pull.bad_answer", Manner(encoding="gzip")),
    ],
)
def test_what_a_pull_refuses_an_install_does(operator: Operator, manner: Manner, code: str) -> None:
    operator.install(operator.pin("1"))
    pin = operator.pin("2")
    operator.source.script("2.tar.gz", manner)
    assert f"[{code}]" in operator.run("install", "--pin", pin, exit_code=1)[1]
    assert operator.runs() == "lemond 1"


def test_a_wrong_digest_is_fatal_and_what_came_is_kept_aside(operator: Operator) -> None:
    operator.install(operator.pin("1"))
    pin = operator.pin("2")
    operator.source.script("2.tar.gz", Manner(corrupt_at=HALF))
    for _ in range(2):
        _, err = operator.run("install", "--pin", pin, exit_code=1)
        bad = operator.programs / "downloads" / f"{operator.names['2']}.tar.bad"
        assert "[lemond.digest_mismatch]" in err
        assert str(bad) in err
        assert names_in(bad.parent) == {bad.name}
    assert names_in(operator.programs / "versions") == {operator.names["1"]}
    assert operator.runs() == "lemond 1"
    operator.source.script("2.tar.gz")
    operator.install(pin)
    assert operator.runs() == "lemond 2"


def test_a_tarball_that_leads_out_is_refused_whatever_its_pin_says(operator: Operator) -> None:
    operator.install(operator.pin("1"))
    evil = [member("lemond", PROGRAM, mode=0o755), member("../../../outside", b"x")]
    _, err = operator.run("install", "--pin", operator.pin("2", tarball(evil)), exit_code=1)
    assert "[lemond.bad_tarball]" in err
    assert not [*operator.folder.rglob("outside")]
    assert names_in(operator.programs / "versions") == {operator.names["1"]}
    assert operator.runs() == "lemond 1"


def test_a_bad_pin_is_a_slip_of_the_operator_and_touches_nothing(operator: Operator) -> None:
    pin = operator.pin("1")
    pin.write_text('{"version": "1", "tarball_url": "http://example.org/x.tar.gz", "size": 1}')
    _, err = operator.run("install", "--pin", pin, exit_code=2)
    assert "[lemond.bad_pin]" in err
    assert all(word in err for word in (str(pin), "sha256", "size"))
    assert not operator.home.exists()
    assert "--pin" in operator.run("install", exit_code=2)[1]


def test_programs_outside_of_the_home_can_be_run_by_every_user(operator: Operator) -> None:
    to = operator.folder / "opt" / "hal0" / "lemond"
    operator.install(operator.pin("1"), "--to", to)
    outside = {stat.S_IMODE(path.stat().st_mode) for path in [to, *to.parents[:2]]}
    inside = {stat.S_IMODE(path.stat().st_mode) for path in to.rglob("*") if path.is_dir()}
    assert outside | inside == {0o755}
    assert stat.S_IMODE((operator.home / "lemonade").stat().st_mode) == 0o750
    assert operator.run("show", "--to", to)[0].split()[3:5] == [operator.names["1"], "current"]


def test_nothing_is_there_before_the_first_install(operator: Operator) -> None:
    assert operator.show()["items"] == []
    assert operator.run("show")[0].split() == ["NAME", "IS", "FROM"]
    assert "[lemond.no_previous]" in operator.run("rollback", exit_code=5)[1]


def test_two_installs_at_once_fetch_once_and_both_succeed(operator: Operator) -> None:
    pin, hold = operator.pin("1"), Event()
    operator.source.script("1.tar.gz", Manner(hold=hold, times=1))
    with operator.start("install", "--pin", pin, "--json") as first:
        eventually(operator.asked)
        with operator.start("install", "--pin", pin, "--json") as second:
            assert second.stderr is not None
            assert "waiting" in second.stderr.readline()
            hold.set()
            states = [
                json.loads(one.communicate(timeout=90)[0])["state"] for one in (first, second)
            ]
    assert (first.returncode, second.returncode) == (0, 0)
    assert states == ["installed", "unchanged"]
    assert len(operator.asked()) == 1


def test_a_full_disk_leaves_the_old_version_and_no_rubbish(operator: Operator) -> None:
    with small_disk(operator.programs, 2 * MIB):
        operator.settings["HAL0_DISK_RESERVE_BYTES"] = "0"
        operator.install(operator.pin("1"))
        packed_large = operator.pin("2", server("2", padding=os.urandom(4 * MIB)))
        unpacked_large = operator.pin("3", server("3", padding=bytes(4 * MIB)))
        files = [member(f"{number}", b"x") for number in range(600)]  # a block for each byte
        many = operator.pin("4", tarball([member("lemond", PROGRAM, mode=0o755), *files]))
        for pin in (packed_large, unpacked_large, many):
            _, err = operator.run("install", "--pin", pin, exit_code=1)
            assert "[pull.disk_full]" in err
            assert names_in(operator.programs / "versions") == {operator.names["1"]}
        assert operator.runs() == "lemond 1"
