"""Mixed traffic of a few clients over the slots: loads above all, of good and of bad models."""

import random
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.chaos.client import LoggingClient
from tests.chaos.crowd import Crowd
from tests.chaos.evidence import Answer

OPTIONS: Final[Sequence[dict[str, Any]]] = ({}, {"ctx_size": 1024}, {"ctx_size": 2048})


@dataclass(kw_only=True)
class Traffic(Crowd):
    """Operators, each of whom logs what was asked and answered."""

    url: Callable[[], str]
    log: Path
    slots: Sequence[str]
    bad_model: str
    pause_s: tuple[float, float] = (0.05, 0.25)

    def be(self, number: int, dice: random.Random) -> None:
        """Ask for one thing after the other."""
        acts = [self._load, self._unload, self._validate, self._pull, self._retry, self._cancel]
        weights = [40, 18, 8, 8, 10, 6]
        with closing(LoggingClient(f"client-{number}", self.url, self.log)) as client:
            while not self.stopping.wait(dice.uniform(*self.pause_s)):
                dice.choices([*acts, self._look], [*weights, 10])[0](client, dice)

    def _load(self, client: LoggingClient, dice: random.Random) -> None:
        body: dict[str, Any] = {"options": dice.choice(OPTIONS)}
        slot = dice.choice(self.slots)
        if slot == self.slots[-1] and dice.random() < 0.5:
            body["model"] = self.bad_model
        elif dice.random() < 0.2:
            body["rehash"] = True
        headers = {"Idempotency-Key": uuid.UUID(int=dice.getrandbits(128)).hex}
        told = client.ask("POST", f"/api/v1/slots/{slot}/load", body, headers)
        if told.status is None:  # as a careful client does: the same request, the same key
            self.stopping.wait(0.5)
            client.ask("POST", f"/api/v1/slots/{slot}/load", body, headers)

    def _unload(self, client: LoggingClient, dice: random.Random) -> None:
        client.ask("POST", f"/api/v1/slots/{dice.choice(self.slots)}/unload", {})

    def _validate(self, client: LoggingClient, dice: random.Random) -> None:
        body = {"rehash": dice.random() < 0.5}
        client.ask("POST", f"/api/v1/slots/{dice.choice(self.slots)}/validate", body)

    def _pull(self, client: LoggingClient, dice: random.Random) -> None:
        body = {"again": dice.random() < 0.5}
        client.ask("POST", f"/api/v1/slots/{dice.choice(self.slots)}/pull", body)

    def _retry(self, client: LoggingClient, dice: random.Random) -> None:
        if dice.random() < 0.2:
            client.ask("POST", "/api/v1/jobs/retry", {"filter": {}, "dry_run": False})
            return
        failed = _ids(client.ask("GET", "/api/v1/jobs?state=failed&limit=20"))
        if failed:
            client.ask("POST", f"/api/v1/jobs/{dice.choice(failed)}/retry", {})

    def _cancel(self, client: LoggingClient, dice: random.Random) -> None:
        queued = _ids(client.ask("GET", "/api/v1/jobs?state=queued&limit=20"))
        if queued:
            client.ask("POST", f"/api/v1/jobs/{dice.choice(queued)}/cancel", {})

    def _look(self, client: LoggingClient, dice: random.Random) -> None:
        paths = ["/api/v1/slots", "/api/v1/transitions?limit=50", "/api/v1/jobs?limit=50"]
        client.ask("GET", dice.choice(paths))


def _ids(answer: Answer) -> list[int]:
    return [job["id"] for job in answer.body["items"]] if answer.is_success else []
