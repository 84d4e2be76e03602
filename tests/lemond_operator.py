"""Somebody at a shell who installs Lemonade servers, whole ones and ones that are killed."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.source import Source
from tests.tarballs import server, write_pin

PADDING = 200_000
"""So many bytes of a tarball cannot be compressed."""


@dataclass
class Operator:
    """Somebody at a shell, whose pins are of `source`."""

    folder: Path
    source: Source
    names: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def programs(self) -> Path:
        return self.home / "lemond"

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "HAL0_HOME": str(self.home),
            "HAL0_PULL_PRIVATE_HOSTS": "127.0.0.1",
            "HAL0_PULL_STALL_S": "20",
            **self.settings,
        }

    def pin(self, version: str, content: bytes | None = None) -> Path:
        """Have a version at the source, and its pin in a file."""
        content = content or server(version, padding=os.urandom(PADDING))
        name, file = f"{version}.tar.gz", self.folder / f"{version}.json"
        self.source.put(name, content)
        self.names[version] = write_pin(file, version, self.source.url(name), content)
        return file

    def start(self, *words: object) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "hal0", "lemond", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(),
        )

    def run(self, *words: object, exit_code: int = 0) -> tuple[str, str]:
        """Run a command to its end; return what it wrote to stdout and stderr."""
        with self.start(*words) as process:
            out, err = process.communicate(timeout=90)
        assert process.returncode == exit_code, err
        return out, err

    def install(self, pin: Path, *words: object) -> Any:
        out, _ = self.run("install", "--pin", pin, "--json", *words)
        return json.loads(out)

    def show(self) -> Any:
        return json.loads(self.run("show", "--json")[0])

    def runs(self) -> str:
        """Start what is current and return what it says."""
        program = self.programs / "current" / "lemond"
        return subprocess.run([program], check=True, capture_output=True, text=True).stdout.strip()

    def asked(self) -> list[tuple[str, int | None]]:
        """Return Range and status of every GET."""
        return [
            (one["headers"].get("range", ""), one["status"])
            for one in self.source.requests
            if one["method"] == "GET"
        ]


class Killer:
    """`tests/killer.py`: commands that die right before a change of the disk."""

    def __init__(self, operator: Operator) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.killer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=operator.environment() | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def run(self, *words: object, kill_at: int | None = None) -> int:
        assert self._process.stdin
        assert self._process.stdout
        order = {"words": [str(word) for word in words], "kill_at": kill_at}
        self._process.stdin.write(f"{json.dumps(order)}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=60)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
