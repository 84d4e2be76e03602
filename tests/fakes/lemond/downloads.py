"""What the fake downloads, and how it tells of it; every byte comes from the fake itself.

A download is a series of progress reports. What was fetched stays in a `.part` file, with which the
next download of the same file goes on.
"""

import asyncio
import re
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.lemond.backend import LoadError
from tests.fakes.lemond.catalog import Catalog, Definition
from tests.fakes.lemond.script import Told
from tests.tiny_gguf import tiny_gguf_bytes

NO_HOST = "CURL error: Couldn't resolve host name"

Progress = dict[str, Any]


class HubError(Exception):
    """The hub did not give the file."""


@dataclass
class Job:
    """A pull that nobody waits for."""

    model: str
    status: str = "downloading"
    is_running: bool = True
    last: Progress = field(default_factory=lambda: report("", 0, 0, files=0))

    @property
    def id(self) -> str:
        """Return the key in `/v1/downloads`."""
        return f"model:{self.model}"

    def as_json(self) -> dict[str, Any]:
        """Return the entry in `/v1/downloads`."""
        return self.last | {
            "id": self.id,
            "type": "model",
            "model_name": self.model,
            "status": self.status,
            "running": self.is_running,
            "complete": self.status == "completed",
            "completed_files_bytes": 0,
            "cumulative_bytes_downloaded": self.last["bytes_downloaded"],
            "overall_bytes_downloaded": self.last["bytes_downloaded"],
        }


class Downloads:
    """Fetches files into the cache."""

    def __init__(self, catalog: Catalog, told: Told) -> None:
        self.jobs: dict[str, Job] = {}
        self._catalog = catalog
        self._told = told
        self._tasks: set[asyncio.Task[None]] = set()

    async def for_load(self, definition: Definition) -> None:
        """Fetch what a load needs; raises LoadError."""
        try:
            await self.whole(definition)
        except HubError as exc:
            raise LoadError(str(exc)) from exc

    async def whole(self, definition: Definition) -> None:
        """Fetch the file, and return when it is there; raises HubError."""
        async for _ in self.reports(definition):
            pass

    def begin(self, definition: Definition, model: str) -> Job:
        """Fetch the file in a job of its own."""
        job = self.jobs[f"model:{model}"] = Job(model)
        task = asyncio.create_task(self._run(job, definition))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    async def _run(self, job: Job, definition: Definition) -> None:
        try:
            async for job.last in self.reports(definition):
                if job.status != "downloading":
                    return
            job.status = "completed"
        except HubError:
            job.status = "error"
        finally:
            job.is_running = False

    async def reports(self, definition: Definition) -> AsyncIterator[Progress]:
        """Fetch the file and yield how far it is; raises HubError before the first report."""
        name, data = self._look_up(definition)
        path = self._catalog.path(definition)
        part = path.with_suffix(".part")
        path.parent.mkdir(parents=True, exist_ok=True)
        yield report(name, 0, len(data))
        if path.exists():
            yield report(name, len(data), len(data), before=len(data))
            return
        before = done = part.stat().st_size if part.exists() else 0
        step = -(-len(data) // self._told.script.download_chunks)
        while done < len(data):
            await asyncio.sleep(self._told.script.download_chunk_delay_s)
            with part.open("ab") as file:
                file.write(data[done : done + step])
            done = part.stat().st_size
            yield report(name, done, len(data), before=before)
        part.replace(path)

    def _look_up(self, definition: Definition) -> tuple[str, bytes]:
        script = self._told.script
        if script.offline or not script.hub or definition.source != "huggingface":
            raise HubError(NO_HOST)
        repository, _, variant = definition.checkpoint.partition(":")
        if repository not in script.hub:
            message = "Hugging Face repository not found or not accessible"
            raise HubError(f"{message}: {repository}")
        for name, kind in script.hub[repository].items():
            if variant in {name, variant_of(name)}:
                data = tiny_gguf_bytes(zlib.crc32(repository.encode()) % 1000)
                return name, data if kind == "good" else data[: len(data) * 2 // 3]
        raise HubError(f"No file of variant {variant} in {repository}")


def variant_of(name: str) -> str:
    """Return the quantisation that a file's name ends with, as `Q4_K_M`."""
    found = re.search(r"-(I?Q\w+|F16|BF16|F32)\.gguf$", name)
    return found[1] if found else name.removesuffix(".gguf")


def report(file: str, done: int, total: int, *, before: int = 0, files: int = 1) -> Progress:
    """Return how far a download is, with lemond's keys."""
    return {
        "file": file,
        "file_index": files,
        "total_files": files,
        "bytes_downloaded": done,
        "bytes_total": total,
        "total_download_size": total,
        "bytes_previously_downloaded": before,
        "percent": done * 100 // total if total else 0,
    }


DONE: Progress = report("", 0, 0) | {"percent": 100}
"""The last report of a stream: without a file, without bytes."""
