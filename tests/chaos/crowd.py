"""Clients at work beside a campaign: each a thread, each with its own random choices."""

import random
import threading
from abc import abstractmethod
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Crowd:
    """Some clients; what one of them met that is a bug of the test is raised by `stop`."""

    seed: int
    stopping: threading.Event = field(default_factory=threading.Event)
    _bugs: list[Exception] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    @abstractmethod
    def be(self, number: int, dice: random.Random) -> None:
        """Be one client until `stopping` is set."""

    def start(self, clients: int) -> None:
        """Let so many clients begin."""
        for number in range(clients):
            thread = threading.Thread(target=self._run, args=(number,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End it; every client finishes what it is at."""
        self.stopping.set()
        for thread in self._threads:
            thread.join(60)
        if self._bugs:
            raise self._bugs[0]

    def _run(self, number: int) -> None:
        try:
            self.be(number, random.Random(f"{type(self).__name__} {self.seed} {number}"))
        except Exception as exc:  # noqa: BLE001 - raised by `stop`, in the thread of the test
            self._bugs.append(exc)
