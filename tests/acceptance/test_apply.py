"""Slots and models in a file, as operators use it: asked on a terminal, taken to another home."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.house import ROOT, House

pytestmark = pytest.mark.slow
NOBODY = "http://127.0.0.1:9"
FILE = """
[models.tiny]
source = "hf://org/repo/tiny.gguf"

[models.seeing]
files = [
    {role = "shard", source = "/data/a-00001-of-00002.gguf", size_bytes = 7},
    {role = "shard", source = "/data/a-00002-of-00002.gguf"},
    {role = "mmproj", source = "/blobs/f00d", name = "mmproj.gguf"},
]
allow_copy = true

[slots.chat]
model = "tiny"
pinned = true
idle_after_s = 60
unload_after_s = 90.5
options = {ctx_size = 8192, llamacpp_args = "--threads 2"}

[slots.spare]
model = "seeing"
wake = "never"
"""


@pytest.fixture
def houses(tmp_path: Path) -> Iterator[list[House]]:
    with House(tmp_path / "old", NOBODY) as old, House(tmp_path / "new", NOBODY) as new:
        for house in (old, new):
            house.start_api()
        yield [old, new]


def hal0(house: House, *words: object, text: str = "") -> str:
    """Run a command that must succeed; return its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "hal0", *map(str, words)],
        cwd=ROOT,
        env=house.env,
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def answered(house: House, answer: str, *words: object) -> tuple[int, str]:
    """Run a command on a terminal, and answer its question; return its exit code and the screen."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "hal0", *map(str, words)]
    env = {name: value for name, value in house.env.items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=env, stdin=theirs, stdout=theirs, stderr=theirs
    )
    house.processes.append(process)
    os.close(theirs)
    screen, is_answered = b"", False
    try:
        while part := os.read(ours, 4096):
            screen += part
            if b"[y/N]" in screen and not is_answered:
                is_answered = True
                os.write(ours, f"{answer}\n".encode())
    except OSError:
        pass  # a terminal that nobody has open any more cannot be read
    os.close(ours)
    return process.wait(60), screen.decode()


def test_slots_and_models_are_applied_exported_and_the_same_in_a_new_home(
    houses: list[House], tmp_path: Path
) -> None:
    old, new = houses
    file = tmp_path / "slots.toml"
    file.write_text(FILE)
    code, screen = answered(old, "n", "apply", file)
    assert (code, "nothing was changed" in screen) == (1, True)
    assert old.get("/api/v1/models")["items"] == []
    code, screen = answered(old, "y", "apply", file)
    assert code == 0
    assert "2 models created, 2 slots created" in screen
    assert "\x1b[32m+ slot chat" in screen, "what comes is green"
    assert hal0(old, "apply", file, "--prune") == "nothing to do: all is as declared\n"

    exported = hal0(old, "export")
    assert "2 slots created" in hal0(new, "apply", "-", "--yes", text=exported)
    assert hal0(new, "export") == exported
    for noun in ("models", "slots"):
        there, here = (house.get(f"/api/v1/{noun}")["items"] for house in houses)
        told = [
            [{k: v for k, v in one.items() if k not in ("since", "files")} for one in items]
            for items in (there, here)
        ]
        assert told[0] == told[1]
