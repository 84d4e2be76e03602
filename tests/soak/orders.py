"""What an operator does meanwhile: loads, unloads, replaces, takes away by force, sets slots up."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.chaos.client import LoggingClient

PAUSE_S: Final = (0.3, 1.3)
ARGUMENTS: Final = "--threads 1 --parallel 4"
SIZES: Final = (4096, 6144)


@dataclass
class Orders:
    """One operator in a thread of its own; `models` are what each slot may hold."""

    url: Callable[[], str]
    log: Path
    models: Mapping[str, Sequence[str]]
    seed: int
    count: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._dice = random.Random(f"{self.seed}/orders")
        self._client = LoggingClient("orders", self.url, self.log)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to give orders."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Give no more."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """Close the log."""
        self._client.close()

    def _run(self) -> None:
        acts = (self._load, self._unload, self._take_away, self._replace, self._set_up, self._pin)
        weights = (10, 16, 16, 8, 10, 5)
        while not self._stopping.wait(self._dice.uniform(*PAUSE_S)):
            seen = self._client.ask("GET", "/api/v1/slots").body["items"]
            unwanted = [slot["name"] for slot in seen if slot["desired"] == "unloaded"]
            if unwanted and self._dice.random() < 0.6:
                self._load(self._dice.choice(unwanted))
            else:
                slot = self._dice.choice(sorted(self.models))
                self._dice.choices(acts, weights)[0](slot)

    def _load(self, slot: str) -> None:
        """Half of the loads ask for other options, and so for another process."""
        options = {"ctx_size": self._dice.choice(SIZES), "llamacpp_args": ARGUMENTS}
        self._ask("load", "POST", f"/api/v1/slots/{slot}/load", {"options": options})

    def _unload(self, slot: str) -> None:
        body = {"drain_timeout_s": self._dice.choice((0.5, 15)), "even_if_pinned": True}
        self._ask("unload", "POST", f"/api/v1/slots/{slot}/unload", body)

    def _take_away(self, slot: str) -> None:
        body = {"force": True, "even_if_pinned": self._dice.random() < 0.7}
        self._ask("forced unload", "POST", f"/api/v1/slots/{slot}/unload", body)

    def _replace(self, slot: str) -> None:
        model = self._dice.choice(self.models[slot])
        self._ask("load", "POST", f"/api/v1/slots/{slot}/load", {"model": model})

    def _set_up(self, slot: str) -> None:
        room = {"max_in_flight": self._dice.choice((None, 3)), "max_waiting": 3}
        change: dict[str, Any] = self._dice.choice((room, {"wake": "always"}, {"wake": "auto"}))
        self._ask("change", "PATCH", f"/api/v1/slots/{slot}", change)

    def _pin(self, slot: str) -> None:
        self._ask("pin", "PATCH", f"/api/v1/slots/{slot}", {"pinned": self._dice.random() < 0.5})

    def _ask(self, what: str, method: str, path: str, body: dict[str, Any]) -> None:
        self.count[what] += 1
        self._client.ask(method, path, body)
