"""`hal0 demo` as `make demo` runs it, on the embedded engine with a tiny model."""

import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.acceptance.house import ROOT
from tests.tiny_gguf import write_tiny_gguf

pytestmark = pytest.mark.slow
README = (ROOT / "README.md").read_text(encoding="utf-8")


def without_what_varies(output: str) -> list[str]:
    """Return the lines of a demo without its numbers and words that are of one model or run."""
    steps = [
        line for line in output.splitlines() if not re.search(r"hash(?:ing:)? [\d.]+ \w+ of", line)
    ]
    same = re.sub(r"(?<=A: ).*|(?<=answers: ).*|\S+(?= as model)", "...", "\n".join(steps))
    same = re.sub(r"\b[0-9a-f]{64}\b", "<sha256>", same)
    same = re.sub(r"(?<=\d )(?:B|[KMG]iB)\b", "<unit>", same)
    same = re.sub(r"(?<=\d\.\d{3} )[A-Z]+ +", "<zone> ", same)
    return [re.sub(r"\d[\d,.:]*", "<n>", " ".join(line.split())) for line in same.splitlines()]


def test_the_demo_shows_the_main_job_and_leaves_no_process_behind(tmp_path: Path) -> None:
    model = write_tiny_gguf(tmp_path / "tiny.gguf")
    command = [sys.executable, "-m", "hal0", "demo", "--model", str(model)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    in_order = [
        "chat: starting → warming  load_sent",
        "chat: warming → ready  loaded",
        "A: ",
        "chat: ready → serving  request_started",
        "chat: serving → ready  requests_done",
        "refused: preload.checksum_mismatch",
        "POST /v1/load for it in the engine's own log: 0",
        "slot chat still answers: ",
        "spare: error → starting  checked",
        "armed to die at load.sent",
        "load attempt 1: interrupted",
        "load attempt 2: done",
        "POST /v1/load for it in the engine's own log: 1",
        "unloading  offline    unloaded",
    ]
    places = [said.find(text) for text in in_order]
    assert -1 not in places, said
    assert places == sorted(places)
    shown = re.search(r"<!-- demo output -->\n```\n(.+?)```", README, re.DOTALL)
    assert shown
    assert without_what_varies(said) == without_what_varies(shown[1]), said
    pids = [int(found) for found in re.findall(r"  pid (\d+)", said)]
    assert len(pids) == 5, "engine, API and three workers"
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_a_demo_without_its_model_says_so_before_it_starts_anything(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hal0", "demo", "--model", str(tmp_path / "none.gguf")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "none.gguf is no file" in done.stderr
