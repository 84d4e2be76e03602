"""How a story is played against the fake: one method a word of the stories.

A story is a list of steps. A number is a captured request that is sent, and its answer compared;
any other step is a word and its arguments, as `hold gb` or `until loading gb`. Order is never
measured in time: a load is held until the story frees it, a stream talks until it is hushed, and
what ended before what stands in the fake's call log.
"""

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
import pytest

from tests.fakes.lemond import Lemond
from tests.integration.lemonade_contract.wire import CAPTURES, Folders, check, request_of
from tests.tiny_gguf import write_tiny_gguf

LIMIT_S = 60


class Stage:
    """A fake on which a story is played."""

    def __init__(self, lemond: Lemond, folders: Folders) -> None:
        self.lemond = lemond
        self.folders = folders
        self.client = httpx.Client(base_url=lemond.url, timeout=LIMIT_S)
        self._threads = ThreadPoolExecutor(8)
        self._begun: dict[str, tuple[int, Future[httpx.Response]]] = {}
        self._heard: dict[str, list[bytes]] = {}
        self._opened_before = len(lemond.calls(phase="opened"))

    def close(self) -> None:
        """End the threads; every request has been answered."""
        self._threads.shutdown()
        self.client.close()

    def play(self, steps: list[str]) -> None:
        """Do the steps in order."""
        for step in steps:
            if step in CAPTURES:
                check(step, self._send(step), self.folders)
            else:
                word, *arguments = step.split()
                getattr(self, word)(*arguments)

    def _send(self, number: str) -> httpx.Response:
        return self.client.send(request_of(self.client, number, self.folders))

    def _listen(self, number: str, heard: list[bytes]) -> httpx.Response:
        request = request_of(self.client, number, self.folders)
        answer = self.client.send(request, stream=True)
        for piece in answer.iter_bytes():
            heard.append(piece)  # noqa: PERF402 - `hear` looks on
        return httpx.Response(answer.status_code, headers=answer.headers, content=b"".join(heard))

    def begin(self, number: str) -> None:
        """Send a captured request and go on once it has reached the server."""
        before = len(self.lemond.calls())
        heard = self._heard[number] = []
        future = self._threads.submit(self._listen, number, heard)
        self._until(lambda: len(self.lemond.calls()) > before)
        self._begun[number] = self.lemond.calls()[-1]["call"], future

    def hear(self, number: str, events: str) -> None:
        """Wait until so many events of a stream that was begun have come."""
        heard = self._heard[number]
        self._until(lambda: b"".join(heard).count(b"\n\n") >= int(events))

    def end(self, number: str) -> None:
        """Wait for the answer of a request that was begun, and compare it."""
        check(number, self._begun[number][1].result(LIMIT_S), self.folders)

    def pending(self, *numbers: str) -> None:
        """These have no answer yet, though the server answers others."""
        assert self.client.get("/live").status_code == 200
        assert [number for number in numbers if self._begun[number][1].done()] == []

    def order(self, *numbers: str) -> None:
        """The server ended these in this order."""
        ended = [line["call"] for line in self.lemond.calls(phase="end")]
        places = [ended.index(self._begun[number][0]) for number in numbers]
        assert places == sorted(places), dict(zip(numbers, places, strict=True))

    def leave(self, number: str) -> None:
        """Send a request and give up waiting, as the captured client did."""
        assert CAPTURES[number]["response"]["client_error"] == "ReadTimeout"
        request = request_of(self.client, number, self.folders)
        request.extensions["timeout"] = httpx.Timeout(LIMIT_S, read=0.2).as_dict()
        with pytest.raises(httpx.ReadTimeout):
            self.client.send(request)

    def load(self, name: str, *flags: str) -> None:
        """Load a model, as `load gb pinned`."""
        body = {"model_name": name, **dict.fromkeys(flags, True)}
        assert self.client.post("/v1/load", json=body).status_code == 200

    def hold(self, name: str) -> None:
        """Let loads of a model take until it is freed."""
        self.script(json.dumps({"models": {name: {"load": "hang"}}}))

    def free(self, name: str) -> None:
        """Let a load that is held end."""
        self.script(json.dumps({"models": {name: {"load": "ok"}}}))

    def talk(self, name: str) -> None:
        """Let answers of a model go on until it is hushed, or killed."""
        self.script(
            json.dumps({"models": {name: {"chat_tokens": 100_000, "chat_token_delay_s": 0.1}}})
        )

    def hush(self, name: str) -> None:
        """Let answers of a model end with their next word."""
        self.script(json.dumps({"models": {name: {"chat_tokens": 1}}}))

    def script(self, changes: str) -> None:
        """Change the script, as `script {"offline":true}`."""
        self.lemond.script(**json.loads(changes))

    def kill(self, name: str) -> None:
        """Kill the backend of a model."""
        self.lemond.drop(name)

    def until(self, key: str, *wanted: str) -> None:
        """Wait until the server's own state is so, as `until loaded ga gb`."""

        def is_so() -> bool:
            value = self.lemond.state()[key]
            return [str(item) for item in (value if isinstance(value, list) else [value])] == [
                *wanted
            ]

        self._until(is_so)

    def download(self, key: str, value: str) -> None:
        """Wait until the newest download says so, as `download running false`."""

        def is_so() -> bool:
            job: dict[str, Any] = self.client.get("/v1/downloads").json()[-1]
            return bool(job[key]) is json.loads(value)

        self._until(is_so)

    def opened(self, name: str, times: str) -> None:
        """The backend of a model was started so often in this story."""
        lines = self.lemond.calls(phase="opened")[self._opened_before :]
        assert sum(line["model"] == name for line in lines) == int(times)

    def write(self, name: str) -> None:
        """Put a good file into the models folder."""
        write_tiny_gguf(self._file(name))

    def link(self, name: str) -> None:
        """Put a link to nowhere into the models folder."""
        self._file(name).symlink_to("nowhere.gguf")

    def folder(self, name: str) -> None:
        """Put a folder with a model's name into the models folder, in place of what is there."""
        self._file(name).unlink()
        self._file(name).mkdir()

    def remove(self, name: str) -> None:
        """Remove a file, from the models folder or from where the registered ones are."""
        for path in (self._file(name), self.folders.own / "v:1" / f"{name}.gguf"):
            if path.is_dir():
                path.rmdir()
            path.unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self.folders.extra / f"{name}.gguf"

    def _until(self, is_so: Callable[[], bool]) -> None:
        end = monotonic() + LIMIT_S
        while not is_so():
            assert monotonic() < end, "waited in vain"
            sleep(0.01)
