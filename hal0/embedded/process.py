"""How a child process is started, watched and stopped, seen from the engine."""

import asyncio
import json
import logging
import os
import secrets
import sys
from typing import Final, Self

from hal0.embedded.catalog import ModelFiles
from hal0.embedded.options import LoadOptions

log = logging.getLogger(__name__)

GRACE_S: Final = 2.0
"""Seconds between SIGTERM, which a child does not catch, and SIGKILL."""
KEPT_BYTES: Final = 8192
REASON: Final = "error loading model: "


class StartError(Exception):
    """The child did not come to serve its model; the text is its own reason."""


class Child:
    """A living process that serves one model at `url` to whoever has `key`."""

    def __init__(self, process: asyncio.subprocess.Process, key: str) -> None:
        """Start to read the process's stderr; `start` is how to get one that serves."""
        self._process = process
        self._last_words = bytearray()
        self._reader = asyncio.create_task(self._keep_last_words())
        self.key = key
        self.url = ""

    @classmethod
    async def start(cls, files: ModelFiles, options: LoadOptions) -> Self:
        """Start a process and wait until it serves; raises StartError.

        Has no deadline. Cancelling it kills the process.
        """
        key = secrets.token_hex(16)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hal0.embedded.child"),
            *("--parent", str(os.getpid()), "--alias", files.name, "--model", str(files.main)),
            *(("--mmproj", str(files.mmproj)) if files.mmproj else ()),
            *options.as_arguments(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal is for the engine, which stops children
        )
        child = cls(process, key)
        try:
            child.url = await child._listening_url()
        except BaseException:
            process.kill() if process.returncode is None else None
            raise
        return child

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process runs, as far as the event loop has heard."""
        return self._process.returncode is None

    async def wait(self) -> int:
        """Return the exit code when the process has ended."""
        return await self._process.wait()

    async def stop(self) -> None:
        """End the process and return when it is gone."""
        if self.is_alive:
            self._process.terminate()
        try:
            async with asyncio.timeout(GRACE_S):
                await self._process.wait()
        except TimeoutError:
            log.warning("child %s does not end; killing it", self.pid)
            self._process.kill()
            await self._process.wait()
        await self._reader

    def last_words(self) -> str:
        """Return what the process wrote to stderr at last, at most 8 KiB."""
        return self._last_words.decode(errors="replace")

    async def _listening_url(self) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{self.key}\n".encode())
        line = await self._process.stdout.readline()
        if line:
            said: dict[str, str] = json.loads(line)
            if "url" in said:
                return said["url"]
        else:
            said = {}
        code = await self._process.wait()
        await self._reader
        reason = _reason(self.last_words()) or said.get("error")
        raise StartError(reason or f"llama.cpp ended with exit code {code}")

    async def _keep_last_words(self) -> None:
        assert self._process.stderr is not None
        while some := await self._process.stderr.read(KEPT_BYTES):
            self._last_words += some
            del self._last_words[:-KEPT_BYTES]


def _reason(words: str) -> str | None:
    """Return what llama.cpp names as the cause, else its first line of level E."""
    lines = words.splitlines()
    for line in lines:
        if REASON in line:
            return line.partition(REASON)[2].strip()
    errors = [line.partition(" E ")[2].strip() for line in lines if " E " in line]
    return errors[0] if errors else None
