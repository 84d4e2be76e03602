"""What comes back by itself, and when it stops to: after a reboot (D14), and behind a breaker."""

import itertools
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from hal0.clock import utc_now
from tests.acceptance.house import ROOT, House
from tests.acceptance.seen import add_slots, loads_sent
from tests.acceptance.shared_house import loads_of, restores_asked, scans_pass
from tests.fakes.lemond import Lemond

pytestmark = pytest.mark.slow


@pytest.fixture
def house(tmp_path: Path, lemond: Lemond) -> Iterator[House]:
    with House(tmp_path, lemond.url, HAL0_SCAN_S="0.9") as house:
        yield house


# -- reboot ----------------------------------------------------------------------------------------


class Host:
    """The machine that engine, API and worker run on; it can be started again."""

    def __init__(self, house: House, lemond: Lemond) -> None:
        self.house, self.lemond = house, lemond
        self._boots = itertools.count(1)

    def go_down(self) -> None:
        """Take everything away; what the rows call this boot is another one from now on."""
        for process in self.house.processes:
            if process.poll() is None:
                self.house.stop(process, signal.SIGKILL)
        self.lemond.kill()
        earlier = f"boot {next(self._boots)} of this host"
        with closing(sqlite3.connect(self.house.home / "hal0.db")) as database, database:
            ((this,),) = database.execute("SELECT boot_id FROM boots ORDER BY epoch DESC LIMIT 1")
            for table, column in BOOT_COLUMNS:
                change = f"UPDATE {table} SET {column} = ? WHERE {column} = ?"
                database.execute(change, (earlier, this))

    def start(self, what: str) -> None:
        """Start one of the three."""
        if what == "engine":
            self.lemond.start()
        elif what == "API":
            self.house.start_api()
        else:
            self.house.start_worker()


BOOT_COLUMNS = [
    ("boots", "boot_id"),
    ("owners", "boot_id"),
    ("periodic", "next_boot"),
    ("engines", "healthy_boot_id"),
    ("engines", "unreachable_boot"),
    ("engines", "scanned_boot"),
    ("idle_windows", "since_boot"),
    ("breakers", "sent_boot"),
]


def test_after_a_reboot_what_is_wanted_comes_back_in_whatever_order_its_parts_start(
    house: House, lemond: Lemond
) -> None:
    """D14; the most important slot first, one by one; what nobody wants stays away."""
    host = Host(house, lemond)
    house.start_api()
    house.start_worker()
    names = ["low", "high", "unwanted"]
    add_slots(house, *names)
    house.client.patch("/api/v1/slots/high", json={"priority": 5}).raise_for_status()
    for name in names:
        house.load(name)
        house.wait_until("ready", name)
    house.post("/api/v1/slots/unwanted/unload")
    house.wait_until("offline", "unwanted")
    for order in (
        ("API", "worker", "engine"),
        ("worker", "engine", "API"),
        ("engine", "API", "worker"),
    ):
        rows, calls = len(house.edges("high")), len(lemond.calls())
        host.go_down()
        for what in order:
            host.start(what)
        house.wait_for(lambda: [house.slot(name)["state"] for name in names[:2]] == ["idle"] * 2)
        new = house.edges("high")[rows:]
        assert new[0][1:] == ("offline", "host_rebooted"), order
        assert [edge[2] for edge in new[1:]] == ["checked", "load_sent", "loaded"], order
        assert house.path_of("unwanted")[-1] == "offline"
        house.wait_settled()
        asked = lemond.calls()[calls:]
        first_post = next(n for n, call in enumerate(asked) if call["method"] == "POST")
        healths = [n for n, call in enumerate(asked) if call["path"] == "/v1/health"]
        assert healths[0] < first_post, "nothing is asked of it before its first good health"
        sent = [call["body"]["model_name"] for call in asked if call["path"] == "/v1/load"]
        assert sorted(sent) == ["m-high", "m-low"], order
        assert restores_asked(house)[-2:] == ["high", "low"], order
    house.check_audit()


# -- the breaker -----------------------------------------------------------------------------------


def test_a_slot_that_keeps_losing_its_model_is_restored_ever_later_and_then_parked(
    house: House, lemond: Lemond
) -> None:
    """Each failing load of the culprit costs the victim its model. Nobody waits for the pauses."""
    house.start_api()
    house.start_worker()
    add_slots(house, "victim", "culprit")
    lemond.script(models={"m-culprit": {"load_fail": "llama-server failed to start"}})
    house.load("victim")
    house.wait_until("ready", "victim")
    pauses: list[float] = []
    for _ in range(5):
        fail(house)
        check_pause_is_told(house, pauses)
        if pauses:  # the first is sent at once: its own pause must not be ended here
            let_through(house)
        house.wait_until("idle", "victim")
        ((pause_ms,),) = house.sql("SELECT opens_ms - sent_ms FROM breakers")
        pauses.append(pause_ms / 1000)
    assert pauses == [10, 20, 40, 80, 160]
    fail(house)
    check_parking_is_told(house)
    sent = len(loads_sent(lemond))
    rows = house.edges("victim")
    let_through(house)
    scans_pass(house, lemond)
    assert len(loads_sent(lemond)) == sent, "no machine loads it any more"
    assert house.edges("victim") == rows, "and a refusal writes no row"
    house.load("victim")
    house.wait_until("ready", "victim")
    assert house.slot("victim")["restore"] is None
    assert house.sql("SELECT * FROM breakers") == []
    assert loads_of(lemond, "m-victim") == 7


def fail(house: House) -> None:
    """Let the culprit's load fail, which costs the victim its model."""
    lost = len(house.edges("victim"))
    chain = house.load("culprit")["chain_id"]
    house.wait_for(lambda: house.chain(chain)[-1]["state"] == "failed")
    house.wait_for(lambda: len(house.edges("victim")) > lost)
    assert house.edges("victim")[lost][2] == "evicted_by_engine"


def let_through(house: House) -> None:
    """End the pause, if there is one."""
    with closing(sqlite3.connect(house.home / "hal0.db", timeout=10)) as database, database:
        database.execute("UPDATE breakers SET opens_ms = 0")


def check_pause_is_told(house: House, pauses: list[float]) -> None:
    """The first time it is brought back at once; later the slot says when it will be."""
    if len(pauses) > 1:  # ten seconds may pass before this is read
        slot: Any = house.slot("victim")
        assert (slot["state"], slot["restore"]["cause"]) == ("offline", "evicted_by_engine")
        opens_at = datetime.fromisoformat(slot["restore"]["opens_at"])
        assert 0 < (opens_at - utc_now()).total_seconds() <= pauses[-1]
        assert any("again no earlier than" in text for text in slot["warnings"])


def check_parking_is_told(house: House) -> None:
    """REST and command line say that no machine loads it any more, and what to do."""
    slot: Any = house.slot("victim")
    assert (slot["state"], slot["desired"]) == ("offline", "loaded")
    restore = slot["restore"]
    assert (restore["model"], restore["sent"], restore["is_parked"]) == ("m-victim", 5, True)
    assert restore["opens_at"] is None
    assert any("parked after 5 automatic loads" in text for text in slot["warnings"])
    shown = [sys.executable, "-m", "hal0", "slot", "list"]
    told = subprocess.run(
        shown, cwd=ROOT, env=house.env, capture_output=True, text=True, check=True
    )
    (line,) = [line for line in told.stdout.splitlines() if line.startswith("victim")]
    assert line.endswith("parked: no machine loads it again")
