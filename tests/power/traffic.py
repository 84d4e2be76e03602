"""A few seconds of what operators do, over several slots, against real processes that are recorded.

Pulls that break off, go on, are cancelled or bring the wrong bytes; loads, unloads, failed
validations, retries; what is asked twice, what replaces what; enough of it that SQLite moves the
write-ahead log into the database. Every answer becomes a note of the recording.
"""

import hashlib
import itertools
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx

from hal0.clock import utc_now
from tests.acceptance.house import House
from tests.fakes.source import Manner, Source
from tests.power.recorder import Recording
from tests.tiny_gguf import Size, tiny_gguf_bytes

SMALL: Final = Size(embd=32, layers=1, vocab=300, ctx=128)
ROUNDS: Final = 4
"""Loads and unloads of each of two slots: enough for SQLite to checkpoint in the middle."""
WAIT: Final = {"Prefer": "wait=30"}
HELD_BYTES: Final = 25_000
"""After so much of a download nothing comes for a while, and somebody thinks better of it."""
SETTINGS: Final = {"HAL0_PULL_PAUSE_S": "0.1", "HAL0_PULL_TRIES": "5"}


def model(seed: int) -> bytes:
    """Return a small model; another seed gives another content of the same length."""
    return tiny_gguf_bytes(seed, None, SMALL)


def sha256(content: bytes) -> str:
    """Return the digest as models are registered with it."""
    return hashlib.sha256(content).hexdigest()


LOCAL: Final = {name: model(seed) for seed, name in enumerate(("one", "two", "brief"))}
"""Models whose file lies on the disk already."""
REMOTE: Final = {
    name: model(seed)
    for seed, name in enumerate(("broken-off", "pair/main", "pair/mmproj", "wrong", "fickle"), 3)
}
"""Files of models that a source has; as they are called in the models folder, without `.gguf`."""
SPOILT: Final = "mended"
"""The model that is bad at first, as its source is."""


def serve(source: Source, name: str) -> str:
    """Have a source serve a file of `REMOTE`; return its URL."""
    source.put(f"{name}.gguf", REMOTE[name])
    return source.url(f"{name}.gguf")


class RecordedHouse(House):
    """A house whose folder hal0 makes itself, whose processes and answers are recorded."""

    def __init__(
        self, recording: Recording, engine_url: str, launcher: str | None, **env: str
    ) -> None:
        super().__init__(recording.folder, engine_url, **recording.env, **env)
        self.log = recording.log.with_name("hal0.log")
        self.models.rmdir()
        self.home.rmdir()
        self.sources.rmdir()
        recording.make_folder(self.sources)
        self._recording = recording
        self._launcher = launcher
        self._numbers = itertools.count(1)
        self.client.event_hooks = {"request": [self._asked], "response": [self._answered]}

    def start(self, *command: str, point: str | None = None) -> Any:
        """Start a process through the launcher, if there is one."""
        if self._launcher is not None:
            assert command[0] == "-m"
            command = ("-m", self._launcher, *command[1:])
        return super().start(*command, point=point)

    def _note(self, phase: str, request: httpx.Request, **fields: Any) -> None:
        at = utc_now().isoformat(timespec="microseconds").replace("+00:00", "Z")
        line = {"client": "traffic", "n": request.extensions["n"], "at": at, "phase": phase}
        self._recording.note(line | fields)

    def _asked(self, request: httpx.Request) -> None:
        request.extensions = {**request.extensions, "n": next(self._numbers)}
        body = json.loads(request.content) if request.content else None
        facts = {"path": request.url.path, "key": request.headers.get("Idempotency-Key")}
        self._note("asked", request, method=request.method, body=body, **facts)

    def _answered(self, response: httpx.Response) -> None:
        body = response.json() if response.read() else None
        self._note("answered", response.request, status=response.status_code, body=body)


class Traffic:
    """The scenes, each over slots and models of its own; `run` plays them all at once."""

    def __init__(self, house: RecordedHouse, source: Source, recording: Recording) -> None:
        self._house = house
        self._source = source
        self._recording = recording
        self._done = threading.Event()

    def run(self) -> None:
        """Play every scene to its end, while somebody reads the lists; raises what one raises."""
        scenes: list[Callable[[], object]] = [
            lambda: self.up_and_down("one"),
            lambda: self.up_and_down("two"),
            self.pulls_that_break_off,
            self.wrong_bytes,
            self.a_failed_validation,
            self.minds_are_changed,
            self.small_change,
        ]
        with ThreadPoolExecutor(len(scenes) + 1) as threads:
            reader = threads.submit(self.lists_are_read)
            playing = [threads.submit(scene) for scene in scenes]
            try:
                for one in playing:
                    one.result()
            finally:
                self._done.set()
            reader.result()
        self._house.wait_settled()
        self._read_lists()

    # -- how a scene asks ---------------------------------------------------------------------

    def _ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        response = self._house.client.request(
            method, f"/api/v1/{path}", json=body, headers=headers or None
        )
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.content else None

    def _order(self, slot: str, verb: str, **body: Any) -> Any:
        """Order and wait for the end."""
        return self._ask("POST", f"slots/{slot}/{verb}", body, **WAIT)

    def _add(self, name: str, source: str | Path, **body: Any) -> None:
        facts = {"name": name, "source": str(source)} | body
        self._ask("POST", "models", facts)
        self._ask("POST", "slots", {"name": name, "model": name})

    def _add_local(self, name: str, content: bytes, **body: Any) -> Path:
        path = self._recording.put(self._house.sources / f"{name}.gguf", content)
        self._add(name, path, **body)
        return path

    def _add_remote(self, name: str, *manners: Manner, **body: Any) -> None:
        url = serve(self._source, name)
        self._source.script(f"{name}.gguf", *manners)
        self._add(name, url, **body)

    def _wait_for_part(self, name: str, size_bytes: int) -> None:
        part = self._house.models / f"{name}.gguf.part"
        self._house.wait_for(lambda: part.exists() and part.stat().st_size >= size_bytes)

    # -- the scenes ---------------------------------------------------------------------------

    def up_and_down(self, name: str) -> None:
        """A linked model that is loaded and unloaded again and again; in the end it is loaded."""
        content = LOCAL[name]
        self._add_local(name, content, size_bytes=len(content), sha256=sha256(content))
        for _ in range(ROUNDS):
            assert self._order(name, "load")["state"] == "succeeded"
            self._ask("GET", f"slots/{name}")
            assert self._order(name, "unload")["state"] == "succeeded"
        self._order(name, "load")

    def pulls_that_break_off(self) -> None:
        """A download that loses its line twice, and one of two files."""
        content = REMOTE["broken-off"]
        breaks = Manner(drop_after=len(content) // 3, method="GET", times=2)
        self._add_remote("broken-off", breaks, sha256=sha256(content))
        assert self._order("broken-off", "load")["state"] == "succeeded"
        files = [
            {"role": role, "source": serve(self._source, f"pair/{role}")}
            for role in ("main", "mmproj")
        ]
        self._ask("POST", "models", {"name": "pair", "files": files})
        self._ask("POST", "slots", {"name": "pair", "model": "pair"})
        assert self._order("pair", "pull")["state"] == "succeeded"
        assert self._order("pair", "validate")["state"] == "succeeded"
        assert self._order("pair", "pull", again=True)["state"] == "succeeded"

    def wrong_bytes(self) -> None:
        """A download of a wrong digest is put aside; the retry brings the right one."""
        wrong = Manner(corrupt_at=1000, method="GET", times=1)
        self._add_remote("wrong", wrong, sha256=sha256(REMOTE["wrong"]))
        failed = self._order("wrong", "load")
        assert failed["state"] == "failed"
        self._ask("GET", f"chains/{failed['chain_id']}")
        retried = self._ask("POST", f"jobs/{failed['jobs'][0]}/retry", {}, **WAIT)
        assert retried["state"] == "succeeded"
        self._ask("GET", f"chains/{failed['chain_id']}")

    def a_failed_validation(self) -> None:
        """A corrupt file fails twice, is mended where it lies, and passes."""
        content = model(8)
        spoilt = content[:-1] + bytes([content[-1] ^ 1])
        path = self._add_local(SPOILT, spoilt, sha256=sha256(content))
        chain = self._order(SPOILT, "load")
        failed = next(job for job in chain["results"] if job["state"] == "failed")
        assert failed["kind"] == "validate"
        again = self._ask("POST", f"jobs/{failed['id']}/retry", {}, **WAIT)
        assert again["state"] == "failed"
        self._recording.put(path, content)
        self._ask("POST", "jobs/retry", {"filter": {"slot": SPOILT}})
        self._house.wait_until("ready", SPOILT)
        self._ask("GET", f"chains/{chain['chain_id']}")

    def minds_are_changed(self) -> None:
        """A pull that is cancelled, one that is replaced, an order that comes twice."""
        never = threading.Event()
        held = Manner(slow=100_000, hold=never, hold_at=HELD_BYTES, method="GET", times=1)
        self._add_remote("fickle", held, held)
        for number in (1, 2):
            asked = self._ask("POST", "slots/fickle/load", {})
            assert self._ask("POST", "slots/fickle/load", {})["deduplicated"]
            self._wait_for_part("fickle", HELD_BYTES * number)
            if number == 1:
                self._ask("POST", f"jobs/{asked['jobs'][0]}/cancel", {})
            else:
                self._order("fickle", "unload")
            self._ask("GET", f"chains/{asked['chain_id']}")
        self._ask("POST", "slots/fickle/load", {})
        self._ask("POST", "slots/fickle/unload", {})
        self._order("fickle", "load")

    def small_change(self) -> None:
        """Slots and models that come and go; requests with a key that are sent twice."""
        self._add_local("brief", LOCAL["brief"])
        for number in range(6):
            name, key = f"brief-{number}", {"Idempotency-Key": f"key-{number}"}
            body = {"name": name, "source": f"/none/{name}.gguf"}
            first = self._ask("POST", "models", body, **key)
            assert self._ask("POST", "models", body, **key) == first
            self._ask("POST", "slots", {"name": name, "model": name})
        for number in range(3):
            self._ask("DELETE", f"slots/brief-{number}")
            self._ask("DELETE", f"models/brief-{number}")
        key = {"Idempotency-Key": "pull-brief"}
        first = self._ask("POST", "slots/brief/pull", {}, **key)
        assert self._ask("POST", "slots/brief/pull", {}, **key) == first
        self._order("brief", "validate", rehash=True)

    def lists_are_read(self) -> None:
        """Somebody who looks at all lists again and again."""
        while not self._done.wait(1):
            self._read_lists()

    def _read_lists(self) -> None:
        for path in ("transitions?order=desc&limit=20", "jobs?limit=8", "slots", "models?limit=5"):
            self._ask("GET", path)
