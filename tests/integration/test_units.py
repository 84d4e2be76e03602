"""The units as `hal0 systemd install` writes them: what systemd says, and what they promise."""

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hal0.api.app import STOP_WITHIN_S
from hal0.embedded.process import GRACE_S as CHILD_GRACE_S
from hal0.embedded.server import GRACE_S
from hal0.settings import Settings
from workers.process import LONGEST_STOP_S

OURS = ("hal0-api.service", "hal0-worker@.service", "hal0-engine.service")
SERVICES = (*OURS, "lemond.service")
BUSY_S: float = Settings.model_fields["busy_timeout_s"].default
PULSE_S = 10
"""How long the API waits for its pulse to end (hal0.api.pulse)."""
MOST_EXPOSED = "20"
"""Tenths: what `systemd-analyze security` may give at most."""

needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="there is no systemd-analyze here (Debian: systemd), so nothing was verified",
)


class Unit(configparser.RawConfigParser):
    """A unit file; of a name that is given twice, both values are kept."""

    def __init__(self, path: Path) -> None:
        super().__init__(strict=False, delimiters=("=",), comment_prefixes=("#",))
        self.optionxform = str  # type: ignore[assignment]
        self.read_string(path.read_text())
        self.lines = path.read_text().splitlines()

    def seconds(self, name: str) -> float:
        return float(self["Service"][name])


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("prefix")
    command = [sys.executable, "-m", "hal0", "systemd", "install", "--prefix", str(prefix)]
    # /bin/true is there everywhere; a real Lemonade server is not.
    subprocess.run([*command, "--lemond", "/bin/true"], check=True, capture_output=True)
    return prefix / "lib" / "systemd" / "system"


def analyze(*args: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["systemd-analyze", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@needs_analyze
def test_systemd_finds_nothing_wrong_with_any_unit(units: Path) -> None:
    instances = [path.name.replace("@.", "@1.") for path in units.iterdir()]
    assert len(instances) == 5
    done = analyze("verify", "--recursive-errors=no", *(str(units / name) for name in instances))
    assert (done.stdout, done.returncode) == ("", 0)


@needs_analyze
@pytest.mark.parametrize("name", OURS)
def test_a_service_is_hardly_exposed(units: Path, name: str) -> None:
    threshold = f"--threshold={MOST_EXPOSED}"
    done = analyze("security", "--offline=true", "--no-pager", threshold, str(units / name))
    assert done.returncode == 0, done.stdout


@needs_analyze
def test_what_is_exposed_would_be_noticed(units: Path, tmp_path: Path) -> None:
    """The two above are no tests if systemd-analyze passes everything here."""
    unit = tmp_path / "hal0-api.service"
    text = (units / unit.name).read_text()
    unit.write_text(text.replace("ProtectSystem=strict\n", "").replace("PrivateDevices=yes\n", ""))
    unit.write_text(unit.read_text().replace("CapabilityBoundingSet=\n", "").replace("User=", "#"))
    assert analyze("security", "--offline=true", "--threshold=20", str(unit)).returncode != 0
    unit.write_text(text.replace("WatchdogSec=60", "WatchdogSek=60"))
    assert "WatchdogSek" in analyze("verify", "--recursive-errors=no", str(unit)).stdout


@pytest.mark.parametrize(
    ("name", "takes_s"),
    [
        ("hal0-worker@.service", LONGEST_STOP_S + BUSY_S),
        ("hal0-api.service", STOP_WITHIN_S + PULSE_S + BUSY_S),
        ("hal0-engine.service", GRACE_S + CHILD_GRACE_S),
    ],
)
def test_nobody_is_killed_while_it_still_stops_in_good_order(
    units: Path, name: str, takes_s: float
) -> None:
    assert Unit(units / name).seconds("TimeoutStopSec") > takes_s + 5


@pytest.mark.parametrize("name", OURS)
def test_a_database_that_is_locked_for_long_starves_no_watchdog(units: Path, name: str) -> None:
    assert Unit(units / name).seconds("WatchdogSec") >= 6 * BUSY_S


@pytest.mark.parametrize("name", OURS)
def test_whoever_dies_or_cannot_start_is_started_again_for_ever(units: Path, name: str) -> None:
    unit = Unit(units / name)
    assert unit["Service"]["Type"] == "notify"
    assert unit["Service"]["Restart"] == "always"
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"


@pytest.mark.parametrize("name", SERVICES)
def test_services_stop_with_the_target_and_start_with_it_when_enabled(
    units: Path, name: str
) -> None:
    unit = Unit(units / name)
    assert unit["Unit"]["PartOf"] == "hal0.target"
    assert unit["Install"]["WantedBy"] == "hal0.target"


def test_the_two_engines_never_run_together_and_workers_stop_before_either(units: Path) -> None:
    assert Unit(units / "hal0-engine.service")["Unit"]["Conflicts"] == "lemond.service"
    assert Unit(units / "lemond.service")["Unit"]["Conflicts"] == "hal0-engine.service"
    after = Unit(units / "hal0-worker@.service")["Unit"]["After"].split()
    assert {"hal0-engine.service", "lemond.service"} <= set(after)


@pytest.mark.parametrize("name", SERVICES)
def test_all_run_as_one_user_over_one_home(units: Path, name: str) -> None:
    unit = Unit(units / name)
    assert (unit["Service"]["User"], unit["Service"]["Group"]) == ("hal0", "hal0")
    if name in OURS:
        assert "Environment=HAL0_HOME=/var/lib/hal0" in unit.lines
        assert unit["Service"]["EnvironmentFile"] == "-/etc/hal0/hal0.env"


@pytest.mark.parametrize("name", ["hal0-worker@.service", "lemond.service"])
def test_workers_can_look_at_the_processes_of_their_engines(units: Path, name: str) -> None:
    """By them they tell a restart: in a user namespace of its own neither would show itself."""
    unit = Unit(units / name)
    assert "PrivateUsers" not in unit["Service"]
    assert "AmbientCapabilities" not in unit["Service"]


def test_another_s_engine_writes_in_its_own_folder_alone_and_has_no_capability(
    units: Path,
) -> None:
    service = Unit(units / "lemond.service")["Service"]
    assert service["StateDirectory"] == "hal0/lemonade"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""


def test_another_s_engine_speaks_to_this_machine_alone_and_has_a_key_and_a_place_to_run(
    units: Path,
) -> None:
    service = Unit(units / "lemond.service")["Service"]
    assert " --host 127.0.0.1 " in service["ExecStart"]
    assert service["ExecStart"].endswith("--no-broadcast")
    assert service["EnvironmentFile"] == "/etc/hal0/lemond.env", "without, it would start open"
    assert (service["RuntimeDirectory"], service["RuntimeDirectoryMode"]) == ("lemonade", "0700")


def test_files_and_memory_are_bounded_where_strangers_ask_for_them(units: Path) -> None:
    api = Unit(units / "hal0-api.service")["Service"]
    worker = Unit(units / "hal0-worker@.service")["Service"]
    assert (api["LimitNOFILE"], worker["LimitNOFILE"]) == ("8192", "8192")
    assert api["MemoryMax"] == "1G"
    assert "MemoryMax" not in worker, "a pull's page cache would count"
