"""What is done inside the box: hal0 is installed, run, killed, starved and stopped; all is noted.

`inside.py WHEEL` runs as root under a systemd of its own and needs the standard library alone. What
it saw is written to /box/report.json; the tests read that.
"""

import json
import pwd
import shutil
import sqlite3
import subprocess
import sys
import time
import traceback
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

BOX = Path("/box")
HOME = Path("/var/lib/hal0")
HAL0 = "/opt/hal0/bin/hal0"
API, ENGINE = "http://127.0.0.1:13310", "http://127.0.0.1:13311"
SERVICES = ("hal0-engine", "hal0-api", "hal0-worker@1", "hal0-worker@2")
DROP_INS = Path("/run/systemd/system")
LIMIT_S = 40.0

report: dict[str, Any] = {"took_s": {}}


def run(*command: str) -> str:
    """Run a command, which must succeed, and return what it wrote."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def show(unit: str) -> dict[str, str]:
    """Return what systemd knows of a unit."""
    wanted = "ActiveState,SubState,MainPID,NRestarts,Result,ExecMainStatus,StatusText"
    lines = run("systemctl", "show", unit, f"--property={wanted}").splitlines()
    return dict(line.split("=", 1) for line in lines)


def wait_for(is_so: Callable[[], Any], what: str) -> Any:
    """Poll until something holds, and return it."""
    until = time.monotonic() + LIMIT_S
    while not (found := is_so()):
        if time.monotonic() > until:
            raise TimeoutError(f"not within {LIMIT_S} s: {what}")
        time.sleep(0.05)
    return found


def ask(url: str, body: Any = None, **headers: str) -> Any:
    """GET, or POST what is given; return the answer."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(url, data, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def slot_is(name: str, state: str) -> bool:
    return bool(ask(f"{API}/api/v1/slots/{name}")["state"] == state)


def drop_in(unit: str, name: str, *lines: str) -> None:
    """Add to the [Service] of a unit, or take away what was added."""
    path = DROP_INS / f"{unit}.service.d" / f"{name}.conf"
    path.unlink(missing_ok=True)
    if lines:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(["[Service]", *lines, ""]))
    run("systemctl", "daemon-reload")


def entries(*matches: str) -> list[dict[str, Any]]:
    """Return what the journal has of this."""
    run("journalctl", "--sync")
    lines = run("journalctl", "--output=json", "--all", *matches).splitlines()
    return [json.loads(line) for line in lines]


def loads_sent() -> list[str]:
    """Return the models that the engine was asked to load."""
    log = Path("/var/log/hal0/engine-calls.ndjson")
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    return [
        call["body"]["model_name"].removeprefix("extra.")
        for call in calls
        if call["path"].endswith("/v1/load") and call["phase"] == "begin"
    ]


def job(job_id: int) -> Any:
    return ask(f"{API}/api/v1/jobs/{job_id}")


def became_ready(slot: str) -> int:
    """Return how often the audit says that a slot became ready."""
    items = ask(f"{API}/api/v1/transitions?slot={slot}")["items"]
    return sum(item["to"] == "ready" for item in items)


# -- the story -------------------------------------------------------------------------------------


def install(wheel: str) -> None:
    """Do what README says: a venv, the wheel, the units, the user, the settings."""
    for leftover in (HOME, Path("/etc/hal0"), Path("/opt/hal0")):
        shutil.rmtree(leftover, ignore_errors=True)
    run("/usr/bin/python3", "-m", "venv", "--without-pip", "/opt/hal0")
    (site,) = Path("/opt/hal0/lib").glob("python3*/site-packages")
    (site / "dependencies.pth").write_text("/opt/dependencies\n")
    install_wheel = ("-m", "pip", "install", "--no-deps", "--no-index", "--ignore-installed")
    run("/opt/hal0/bin/python", *install_wheel, wheel)
    report["units"] = json.loads(run(HAL0, "systemd", "install", "--json"))
    run("systemd-sysusers", "hal0.conf")
    run("systemd-tmpfiles", "--create", "hal0.conf")
    settings = Path("/etc/hal0/hal0.env")
    settings.write_text(
        "HAL0_ENGINE_CALL_LOG=/var/log/hal0/engine-calls.ndjson\n"
        "HAL0_BEAT_S=0.5\nHAL0_SILENCE_S=2\n"
    )
    run("chown", "root:hal0", str(settings))
    settings.chmod(0o640)
    drop_in("hal0-", "quick", "RestartSec=200ms")


def start() -> None:
    """Enable and start all of it."""
    run("systemctl", "enable", "hal0.target", *SERVICES)
    run("systemctl", "daemon-reload")
    run("systemctl", "start", "hal0.target")
    wait_for(lambda: all(show(one)["ActiveState"] == "active" for one in SERVICES), "all active")
    report["started"] = {one: show(one) for one in SERVICES}


def add_slots() -> None:
    """Register three real tiny models, which lie where the units can link them."""
    sources = HOME / "sources"
    sources.mkdir()
    for name in ("smooth", "killed", "halted"):
        source = shutil.copy(BOX / f"{name}.gguf", sources)
        ask(f"{API}/api/v1/models", {"name": name, "source": source})
        ask(f"{API}/api/v1/slots", {"name": name, "model": name})
    run("chown", "-R", "hal0:hal0", str(sources))


def load_and_chat() -> None:
    """The hardened engine loads a model and answers; the journal knows the load by its fields."""
    asked = ask(f"{API}/api/v1/slots/smooth/load", {}, **{"X-Request-ID": "asked-by-the-box"})
    wait_for(lambda: slot_is("smooth", "ready"), "slot smooth is ready")
    question = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 6}
    answer = ask(f"{ENGINE}/v1/chat/completions", {"model": "smooth", **question})
    report["chat"] = answer["choices"][0]["message"]["content"]
    report["journal"] = {
        "of_job": entries(f"HAL0_JOB_ID={asked['jobs'][-1]}"),
        "of_slot": len(entries("HAL0_SLOT=smooth")),
        "of_api": len(entries("--unit=hal0-api", "SYSLOG_IDENTIFIER=hal0-api")),
    }


def let_a_worker_die(slot: str, how: str) -> None:
    """Arm worker 1 to die, or to lie stopped, when its load was sent; a worker must finish it."""
    run("systemctl", "stop", "hal0-worker@2")
    drop_in("hal0-worker@1", "point", f"Environment=HAL0_POINT=load.sent:{how}")
    run("systemctl", "restart", "hal0-worker@1")
    before = show("hal0-worker@1")
    job_id = ask(f"{API}/api/v1/slots/{slot}/load", {})["jobs"][-1]
    if how == "stop":
        process = Path(f"/proc/{before['MainPID']}/stat")
        wait_for(lambda: process.read_text().rpartition(")")[2].split()[0] == "T", "it is stopped")
        run("systemctl", "start", "hal0-worker@2")
    wait_for(lambda: slot_is(slot, "ready"), f"slot {slot} is ready")
    wait_for(lambda: show("hal0-worker@1")["NRestarts"] == "1", "worker 1 is started again")
    report[slot] = {
        "is_another_process": show("hal0-worker@1")["MainPID"] != before["MainPID"],
        "attempts": [one["outcome"] for one in job(job_id)["attempts"]],
        "became_ready": became_ready(slot),
        "loads": loads_sent().count(slot),
    }


def starve_a_watchdog() -> None:
    """No database is where it should be: the API is killed, and comes back with the database."""
    drop_in("hal0-api", "watchdog", "WatchdogSec=2")
    run("systemctl", "restart", "hal0-api")
    others = {one: show(one)["MainPID"] for one in SERVICES if one != "hal0-api"}
    database = HOME / "hal0.db"
    database.rename(HOME / "aside")
    database.mkdir()  # else the API, once it is started again, would make a new one
    wait_for(lambda: int(show("hal0-api")["NRestarts"]) > 0, "the watchdog bites")
    database.rmdir()
    (HOME / "aside").rename(database)
    wait_for(lambda: show("hal0-api")["ActiveState"] == "active", "the API is back")
    report["watchdog"] = {
        "said": [one["MESSAGE"] for one in entries("--unit=hal0-api")],
        "others_live": all(show(one)["MainPID"] == pid for one, pid in others.items()),
        "slots": len(ask(f"{API}/api/v1/slots")["items"]),
    }


def look_as_an_operator() -> None:
    """Ask hal0 itself whether anything is wrong, as its user."""
    as_hal0 = ("runuser", "-u", "hal0", "--", "env", f"HAL0_HOME={HOME}", HAL0)
    done = subprocess.run([*as_hal0, "doctor"], capture_output=True, text=True, check=False)
    report["doctor"] = {"code": done.returncode, "said": done.stdout + done.stderr}


def stop() -> None:
    """Stop all of it; nothing of it may be left."""
    run("systemctl", "stop", "hal0.target", "hal0-*")
    report["stopped"] = {one: show(one) for one in SERVICES}
    user = pwd.getpwnam("hal0").pw_uid
    processes = [path for path in Path("/proc").iterdir() if path.name.isdecimal()]
    report["left"] = [path.name for path in processes if path.stat().st_uid == user]
    with closing(sqlite3.connect(HOME / "hal0.db")) as connection:
        report["unfinished"] = connection.execute(
            "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')"
        ).fetchone()[0]
        report["not_ended"] = connection.execute(
            "SELECT count(*) FROM owners WHERE ended_at IS NULL AND kind = 'worker'"
        ).fetchone()[0]


def timed(name: str, step: Callable[[], None]) -> None:
    begun = time.monotonic()
    step()
    report["took_s"][name] = round(time.monotonic() - begun, 2)


def main() -> int:
    """Tell the story; what breaks it off is noted too."""
    try:
        timed("install", lambda: install(sys.argv[1]))
        timed("start", start)
        timed("add_slots", add_slots)
        timed("load_and_chat", load_and_chat)
        timed("kill", lambda: let_a_worker_die("killed", "kill"))
        timed("stop_signal", lambda: let_a_worker_die("halted", "stop"))
        timed("watchdog", starve_a_watchdog)
        timed("doctor", look_as_an_operator)
        timed("stop", stop)
    except Exception:  # noqa: BLE001 - whatever it is, the report tells it
        report["broke"] = traceback.format_exc()
        report["log"] = [
            f"{one.get('_SYSTEMD_UNIT')}: {one.get('MESSAGE')}" for one in entries("--lines=60")
        ]
        report["log"] += [run("systemctl", "list-jobs"), run("systemctl", "list-units", "hal0*")]
    (BOX / "report.json").write_text(json.dumps(report, indent=1, default=str))
    return 1 if "broke" in report else 0


if __name__ == "__main__":
    sys.exit(main())
