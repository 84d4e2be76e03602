"""Clients that talk to the slots' models through whoever of hal0 is up, in streams; some leave."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from tests.chaos.crowd import Crowd

CHAT: Final = "/v1/chat/completions"
LOADED: Final = ("ready", "serving", "idle")
WORDS: Final = (1, 5, 40)
TIMEOUT_S: Final = 30.0


@dataclass(kw_only=True)
class Talk(Crowd):
    """Clients of inference; `came_to` counts what became of their requests."""

    url: Callable[[], str]
    slots: Sequence[str]
    pause_s: tuple[float, float] = (0.02, 0.3)
    came_to: Counter[str] = field(default_factory=Counter)
    """`whole`; `left`; `cut`: its end was missing, or an error; `unmet`: nobody has answered; else
    the status of the refusal."""

    def be(self, number: int, dice: random.Random) -> None:
        """Ask, and hear the answer out, or leave."""
        with httpx.Client(timeout=TIMEOUT_S) as client:
            while not self.stopping.wait(dice.uniform(*self.pause_s)):
                self.came_to[self._ask(client, dice)] += 1

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
