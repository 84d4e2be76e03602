"""`make nuclear`: why no bad file may reach Lemonade, which answers one by dropping every model.

Three models are loaded, and a broken one is asked for: refused, and nothing else happens. Then the
same with a worker that believes every file (`blind_worker.py`). Each claim is checked as it is
shown; the first that does not hold ends the show with exit code 1.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hal0.cli.client import Api, path_of
from hal0.cli.demo_house import free_ports, program
from hal0.cli.processes import Children
from hal0.db import open_database
from hal0.settings import Settings
from hal0.where import PREFIX
from tests.tiny_gguf import write_tiny_gguf

GOOD: Final = {"chat": "amber", "code": "birch", "draft": "cedar"}
"""slot → model"""
READY_S: Final = 60.0


class DoesNotHold(Exception):  # noqa: N818 - what the reader sees is the text
    """Something that the show claims is not so."""


def main() -> int:
    """Show it in a home of its own; nothing is left behind."""
    home = Path(tempfile.mkdtemp(prefix="hal0-nuclear-"))
    try:
        with stage(home) as (children, api):
            Show(home, children, api).run()
    except DoesNotHold as exc:
        sys.stderr.write(f"the show failed: {exc}\n")
        return 1
    finally:
        shutil.rmtree(home)
    return 0


@contextmanager
def stage(home: Path) -> Iterator[tuple[Children, Api]]:
    """Start a double of Lemonade and the API over this home; all processes end with the block."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    engine_port, api_port = free_ports(2)
    engine_url = f"http://127.0.0.1:{engine_port}"
    os.environ |= {
        "HAL0_HOME": str(home),
        "HAL0_BIND": f"127.0.0.1:{api_port}",
        "HAL0_ENGINE_URL": engine_url,
        "PYTHONUNBUFFERED": "1",
    }
    settings = Settings.load()
    open_database(settings, upgrade=True).close()
    arguments = ["--models", str(settings.models), "--port", str(engine_port)]
    arguments += ["--call-log", str(home / "calls.ndjson"), "--max-loaded-models", "-1"]
    lemond = program(home, "engine", "tests.fakes.lemond", f"{engine_url}/live", *arguments)
    api = program(home, "api", "hal0", f"http://{settings.bind}/livez", "api")
    with Children() as children:
        for child in (lemond, api):
            children.start(child)
        for child in (lemond, api):
            children.wait_ready(child.name, READY_S)
        yield children, Api(settings.api_url)


class Show:
    """The acts, in order."""

    def __init__(self, home: Path, children: Children, api: Api) -> None:
        self.home = home
        self.children = children
        self.api = api

    def run(self) -> None:
        """Show everything."""
        self.load_three()
        self.refuse()
        self.let_it_through()

    # -- the acts -----------------------------------------------------------------------------

    def load_three(self) -> None:
        """Load three good models through hal0."""
        say("== Three slots are loaded, a fourth is for a model whose file is cut off")
        self.start_worker("workers")
        for seed, (slot, model) in enumerate(GOOD.items()):
            self.register(model, write_tiny_gguf(self.home / f"{model}.gguf", seed=seed))
            self.api.post(path_of("slots"), {"name": slot, "model": model})
            self.api.post(path_of("slots", slot, "load"))
            self.wait_for(slot, "ready")
        self.register("broken", write_tiny_gguf(self.home / "broken.gguf", broken="truncate"))
        self.api.post(path_of("slots"), {"name": "spare", "model": "broken"})
        self.hal0("slot list")
        self.show_loads(amber=1, birch=1, cedar=1)

    def refuse(self) -> None:
        """Ask for the broken model: refused before the engine hears of it."""
        say("\n== The broken model is asked for: refused, and nothing else happens")
        self.hal0("slot load spare --wait 30", exits=1)
        self.hal0("slot list")
        for slot in GOOD:
            must(self.state(slot) == "ready", f"slot {slot} is {self.state(slot)}")
        must(self.api.get(path_of("incidents"))["items"] == [], "there was an incident")
        self.show_loads(amber=1, birch=1, cedar=1)

    def let_it_through(self) -> None:
        """Ask for it again, with a worker that validates nothing."""
        say("\n== The same with a worker that believes every file: the engine gets it")
        self.children.stop("worker")
        self.start_worker("tests.nuclear.blind_worker")
        self.hal0("slot load spare --wait 30", exits=1)
        for slot in GOOD:
            self.wait_for(slot, "idle")
        say("\n== It dropped every model. One incident says so, and all three came back")
        self.hal0("incident list")
        (incident,) = self.api.get(path_of("incidents"))["items"]
        self.hal0(f"incident show {incident['id']}")
        self.hal0("slot list")
        must(self.state("spare") == "error", f"the culprit is {self.state('spare')}")
        self.show_loads(amber=2, birch=2, broken=1, cedar=2)

    # -- asking and looking -------------------------------------------------------------------

    def start_worker(self, module: str) -> None:
        """Start a worker."""
        self.children.start(program(self.home, "worker", module))

    def register(self, model: str, source: Path) -> None:
        """Register a file with the size and digest that it has."""
        content = source.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        body = {"name": model, "source": str(source), "size_bytes": len(content), "sha256": digest}
        self.api.post(path_of("models"), body)

    def hal0(self, line: str, exits: int = 0) -> None:
        """Run a command as an operator would, and show it with what it says."""
        command = [sys.executable, "-m", "hal0", *line.split()]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        say(f"$ hal0 {line}\n{done.stdout.replace(str(self.home), '$HAL0_HOME').rstrip()}")
        must(done.returncode == exits, f"hal0 {line} ended with {done.returncode}")

    def state(self, slot: str) -> str:
        """Return where a slot is."""
        return str(self.api.get(path_of("slots", slot))["state"])

    def wait_for(self, slot: str, state: str) -> None:
        """Poll until a slot is there."""
        until = time.monotonic() + READY_S
        while self.state(slot) != state:
            must(time.monotonic() < until, f"slot {slot} is {self.state(slot)}, not {state}")
            time.sleep(0.05)

    def show_loads(self, **expected: int) -> None:
        """Show how many loads the engine says it was sent so far; they must be so many."""
        log = (self.home / "calls.ndjson").read_text(encoding="utf-8").splitlines()
        calls = [call for call in map(json.loads, log) if call["phase"] == "begin"]
        sent = Counter(call["body"]["model_name"] for call in calls if call["path"] == "/v1/load")
        told = ", ".join(f"{model} {times}" for model, times in sorted(sent.items()))
        say(f"POST /v1/load in the engine's own log: {told}")
        must(sent == expected, f"not {expected}")


def say(text: str) -> None:
    """Print some lines now."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def must(holds: bool, otherwise: str) -> None:
    """End the show when what it shows is not so."""
    if not holds:
        raise DoesNotHold(otherwise)


if __name__ == "__main__":
    sys.exit(main())
