"""hal0 under a real systemd: installed from its wheel, killed, hung, starved, stopped."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.systemd_box import LIMIT_S, Box, why_not

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(LIMIT_S + 60),
    pytest.mark.xdist_group("box"),  # two of them would take each other's time
]

SERVICES = {"hal0-engine", "hal0-api", "hal0-worker@1", "hal0-worker@2"}
Report = dict[str, Any]


reason = why_not()
needs_box = pytest.mark.skipif(
    reason is not None, reason=f"no systemd of its own can be booted here: {reason}"
)


@needs_box
def test_hal0_runs_under_systemd_as_it_promises(tmp_path: Path) -> None:
    os.umask(0o027)  # as hal0's own programs leave it, when a test runs one in this process
    with Box(tmp_path) as box:
        box.start()
        report = box.report()
        console = box.console()
    assert "broke" not in report, "\n".join([report["broke"], *report["log"], console])
    assert report["exit_code"] == 0
    what_is_installed_starts(report)
    a_hardened_engine_answers_and_the_journal_has_fields(report)
    a_worker_that_dies_or_hangs_is_started_again_and_its_load_ends_right(report)
    a_process_that_cannot_read_is_ended_by_its_watchdog_and_no_other(report)
    all_of_it_stops_in_good_order_and_nothing_is_left(report)


def what_is_installed_starts(report: Report) -> None:
    places = {Path(file["path"]).name: file["state"] for file in report["units"]["files"]}
    assert {"hal0.target", "hal0-api.service", "hal0-worker@.service"} <= places.keys()
    assert set(places.values()) == {"written"}
    assert not [line for line in report["units"]["next"] if "WARNING" in line]
    assert report["started"].keys() == SERVICES
    for service in report["started"].values():
        assert (service["SubState"], service["NRestarts"]) == ("running", "0")
    status = report["started"]["hal0-worker@1"]["StatusText"]
    assert status == "4 threads serve /var/lib/hal0/hal0.db"
    assert report["doctor"]["code"] == 0, report["doctor"]["said"]


def a_hardened_engine_answers_and_the_journal_has_fields(report: Report) -> None:
    assert len(report["chat"].split()) == 6
    journal = report["journal"]
    begun = next(entry for entry in journal["of_job"] if entry["MESSAGE"] == "load begins")
    assert begun["HAL0_SLOT"] == "smooth"
    assert begun["HAL0_ATTEMPT"] == "1"
    assert begun["HAL0_REQUEST_ID"] == "asked-by-the-box"
    assert begun["_SYSTEMD_UNIT"].startswith("hal0-worker@")
    assert (begun["PRIORITY"], begun["SYSLOG_IDENTIFIER"]) == ("6", "hal0-worker")
    assert journal["of_slot"] >= 4, "each job of the chain says its slot"
    assert journal["of_api"] > 0


def a_worker_that_dies_or_hangs_is_started_again_and_its_load_ends_right(report: Report) -> None:
    for slot in ("killed", "halted"):
        assert report[slot] == {
            "is_another_process": True,
            "attempts": ["interrupted", "done"],
            "became_ready": 1,
            "loads": 1,
        }


def a_process_that_cannot_read_is_ended_by_its_watchdog_and_no_other(report: Report) -> None:
    said = report["watchdog"]["said"]
    why = next(line for line in said if "the watchdog is not fed until this has passed" in line)
    assert "/var/lib/hal0/hal0.db" in why
    assert "Fatal Python error: Aborted" in said, "where each thread was is in the journal"
    assert report["watchdog"]["others_live"]
    assert report["watchdog"]["slots"] == 3


def all_of_it_stops_in_good_order_and_nothing_is_left(report: Report) -> None:
    assert report["stopped"].keys() == SERVICES
    for service in report["stopped"].values():
        assert service["ActiveState"] == "inactive"
        assert (service["Result"], service["ExecMainStatus"]) == ("success", "0")
    assert report["took_s"]["stop"] < 30, "no stop ran into its limit"
    assert report["left"] == []
    assert (report["unfinished"], report["not_ended"]) == (0, 0)


@needs_box
def test_a_box_that_is_given_up_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    with Box(tmp_path) as box:
        box.start()
        until = time.monotonic() + 60
        while not box.has_begun:
            assert time.monotonic() < until, "it does not boot"
            time.sleep(0.05)
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    assert not box.group.exists(), "no group, so no process either"
