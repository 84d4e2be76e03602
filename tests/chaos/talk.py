"""Clients that talk to the slots' models through whoever of hal0 is up, in streams; some leave."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

CHAT: Final = "/v1/chat/completions"
LOADED: Final = ("ready", "serving", "idle")
WORDS: Final = (1, 5, 40)
TIMEOUT_S: Final = 30.0


@dataclass
class Talk:
    """Clients in threads of their own; `came_to` counts what became of their requests."""

    url: Callable[[], str]
    slots: Sequence[str]
    seed: int
    pause_s: tuple[float, float] = (0.02, 0.3)
    stopping: threading.Event = field(default_factory=threading.Event)
    came_to: Counter[str] = field(default_factory=Counter)
    """`whole`; `left`; `cut`: its end was missing, or an error; `unmet`: nobody has answered; else
    the status of the refusal."""
    bugs: list[Exception] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, clients: int) -> None:
        """Let so many clients begin."""
        for number in range(clients):
            thread = threading.Thread(target=self._run, args=(number,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End it; every client hears its answer out."""
        self.stopping.set()
        for thread in self._threads:
            thread.join(60)
        if self.bugs:
            raise self.bugs[0]

    def _run(self, number: int) -> None:
        dice = random.Random(self.seed * 2000 + number)
        try:
            with httpx.Client(timeout=TIMEOUT_S) as client:
                while not self.stopping.wait(dice.uniform(*self.pause_s)):
                    self.came_to[self._ask(client, dice)] += 1
        except Exception as exc:  # noqa: BLE001 - raised by `stop`, in the thread of the test
            self.bugs.append(exc)

    def _ask(self, client: httpx.Client, dice: random.Random) -> str:
        said = [{"role": "user", "content": "hello"}]
        body: dict[str, Any] = {"max_tokens": dice.choice(WORDS), "stream": True, "messages": said}
        patience = dice.choice([3, 10**6])
        heard, is_met = b"", False
        try:
            body["model"] = dice.choice(self._worth_asking(client, dice))
            with client.stream("POST", self.url() + CHAT, json=body) as answer:
                is_met = True
                if answer.status_code != 200:
                    return str(answer.status_code)
                for number, chunk in enumerate(answer.iter_raw()):
                    if number == patience:
                        return "left"
                    heard += chunk
        except httpx.TransportError:
            self.stopping.wait(0 if is_met else 0.3)
            return "cut" if is_met else "unmet"
        return "whole" if heard.endswith(b"data: [DONE]\n\n") else "cut"

    def _worth_asking(self, client: httpx.Client, dice: random.Random) -> Sequence[str]:
        """Return any slots, or more often those that have their model: most have not."""
        if dice.random() < 0.2:
            return self.slots
        listed = client.get(f"{self.url()}/v1/models").json().get("data", [])
        loaded = [model["id"] for model in listed if model["state"] in LOADED]
        return loaded or self.slots
