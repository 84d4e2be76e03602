"""`hal0 setup` from nothing to an answer: real processes, the embedded engine, a real model."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from hal0.firstrun.starters import PACKAGED
from tests.acceptance.house import ROOT, free_port
from tests.fakes.source.hub import Hub
from tests.tiny_gguf import write_tiny_gguf

pytestmark = pytest.mark.slow
TINY = """
[[starter]]
name = "tiny"
about = "tests"
parameters = "1M"
licence = "none"
source = "hf://org/repo/tiny.gguf"
"""


class FirstRun:
    """A hal0 that somebody has just started for the first time."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        starters = folder / "starters.toml"
        starters.write_text(PACKAGED.read_text() + TINY)
        self.log = folder / "up.log"
        self.env = {
            **os.environ,
            "HAL0_HOME": str(folder / "home"),
            "HAL0_BIND": f"127.0.0.1:{free_port()}",
            "HAL0_ENGINE_BIND": f"127.0.0.1:{free_port()}",
            "HAL0_HUB_ENDPOINT": hub.origin,
            "HAL0_PULL_PRIVATE_HOSTS": "127.0.0.1",
            "HAL0_STARTERS_FILE": str(starters),
        }
        with self.log.open("wb") as log:
            self.up = subprocess.Popen(
                [sys.executable, "-m", "hal0", "up"], cwd=ROOT, env=self.env, stdout=log, stderr=log
            )
        self.url = f"http://{self.env['HAL0_BIND']}"

    def wait_until_it_works(self, limit_s: float = 40) -> None:
        """Poll until the API answers and a worker is there."""
        until = time.monotonic() + limit_s
        while not self._works():
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)

    def _works(self) -> bool:
        try:
            return bool(httpx.get(f"{self.url}/readyz").json()["workers"])
        except (httpx.TransportError, KeyError):
            return False

    def setup(self, *args: str, token: str | None = None) -> "subprocess.CompletedProcess[str]":
        """Walk, with nobody to ask."""
        env = dict(self.env)
        if token is not None:
            file = Path(self.env["HAL0_HOME"]) / "token"
            file.write_text(token)
            env["HAL0_TOKEN_FILE"] = str(file)
        return subprocess.run(
            [sys.executable, "-m", "hal0", "setup", "--yes", *args],
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def first_run(tmp_path: Path) -> Iterator[FirstRun]:
    with Hub() as hub:
        content = write_tiny_gguf(tmp_path / "tiny.gguf").read_bytes()
        hub.commit("org/repo", {"tiny.gguf": content})
        run = FirstRun(tmp_path, hub)
        try:
            run.wait_until_it_works()
            yield run
        finally:
            run.up.terminate()
            run.up.wait(30)


def test_a_newcomer_comes_from_nothing_to_an_answer_and_goes_on_from_there(
    first_run: FirstRun, tmp_path: Path
) -> None:
    done = first_run.setup()
    assert done.returncode == 0, done.stdout + done.stderr
    in_order = [
        "processor ",
        "engine default: embedded",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "model smollm2-135m: registered",
        "slot chat: created, for model smollm2-135m on engine default",
        "slot chat: ready (smollm2-135m)",
        "Q: Say hello.\nA: ",
        "done. Next:",
        "hal0 token create",
    ]
    places = [done.stdout.find(text) for text in in_order]
    assert -1 not in places, done.stdout
    assert places == sorted(places)
    assert "chat: warming → ready (loaded)" in done.stderr

    other = first_run.setup("--slot", "other", "--model", "tiny", "--token", "me", "--json")
    assert other.returncode == 0, other.stdout + other.stderr
    told = json.loads(other.stdout)
    digest = hashlib.sha256((tmp_path / "tiny.gguf").read_bytes()).hexdigest()
    assert (told["slot"]["model"], told["model"]) == ("tiny", "tiny")
    assert digest in other.stderr
    assert (tmp_path / "home/models/tiny.gguf").is_file()
    token = told["token"]["token"]

    assert first_run.setup().returncode == 4
    again = first_run.setup("--slot", "other", token=token)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "slot other: there already, for model tiny" in again.stdout
    assert "slot other: has model tiny already" in again.stdout
    asked = {"slot": "other", "order": "asc"}
    bearer = {"Authorization": f"Bearer {token}"}
    rows = httpx.get(f"{first_run.url}/api/v1/transitions", params=asked, headers=bearer).json()
    causes = [row["cause"] for row in rows["items"]]
    assert causes.count("load_sent") == 1
