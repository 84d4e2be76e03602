"""What operators and machines ask for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from hal0.errors import RequestError, SlotNotFound
from hal0.jobs.ledger.intake import machine_unload
from hal0.jobs.ledger.rows import Job, unfinished_jobs
from hal0.jobs.restore import load_again
from hal0.slots.queries import Slot, slot_named
from hal0.slots.transitions import Act, move
from hal0.states import Cause, SlotState
from tests.ledger import IDLE
from tests.machine.real.home import Home
from tests.machine.reference.rows import Answer


class Orders(Home):
    """What operators and machines ask for."""

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        response = self._api.request(method, f"/api/v1/{path}", json=body)
        said = response.json() if response.content else {}
        how = next((word for word in ("already", "deduplicated") if said.get(word)), "")
        jobs = said.get("jobs") or [id_ for item in said.get("items", ()) for id_ in item["jobs"]]
        return Answer(response.status_code, said.get("code"), tuple(jobs), how)

    def create(self, name: str) -> Answer:
        return self._ask("POST", "slots", {"name": name, "model": f"m-{name}"})

    def assign(self, name: str, model: str) -> Answer:
        return self._ask("PATCH", f"slots/{name}", {"model": model})

    def pin(self, name: str, pinned: bool) -> Answer:
        return self._ask("PATCH", f"slots/{name}", {"pinned": pinned})

    def set_wake(self, name: str, wake: str) -> Answer:
        return self._ask("PATCH", f"slots/{name}", {"wake": wake})

    def delete(self, name: str, force: bool) -> Answer:
        return self._ask("DELETE", f"slots/{name}{'?force=true' if force else ''}")

    def load(self, name: str, ctx_size: int) -> Answer:
        return self._ask("POST", f"slots/{name}/load", {"options": {"ctx_size": ctx_size}})

    def unload(self, name: str, force: bool = False, even_if_pinned: bool = False) -> Answer:
        body = {"force": force, "even_if_pinned": even_if_pinned}
        return self._ask("POST", f"slots/{name}/unload", body)

    def pull(self, name: str) -> Answer:
        return self._ask("POST", f"slots/{name}/pull")

    def validate(self, name: str) -> Answer:
        return self._ask("POST", f"slots/{name}/validate")

    def cancel(self, job_id: int) -> Answer:
        return self._ask("POST", f"jobs/{job_id}/cancel")

    def retry(self, job_id: int) -> Answer:
        return self._ask("POST", f"jobs/{job_id}/retry")

    def retry_all(self) -> Answer:
        return self._ask("POST", "jobs/retry", {})

    def machine_load(self, name: str) -> Answer:
        def write(tx: Connection, slot: Slot) -> Sequence[Job]:
            before = unfinished_jobs(tx, slot.id)
            load_again(tx, slot, Cause.EVICTED_BY_ENGINE, None)
            return () if before else unfinished_jobs(tx, slot.id)

        return self._machines(name, lambda tx, slot: tuple(job.id for job in write(tx, slot)))

    def idle_unload(self, name: str) -> Answer:
        def write(tx: Connection, slot: Slot) -> tuple[int, ...]:
            accepted = machine_unload(tx, slot, IDLE) if slot.is_dispatchable else None
            return () if accepted is None else accepted.job_ids

        return self._machines(name, write)

    def _machines(self, name: str, write: Callable[[Connection, Slot], tuple[int, ...]]) -> Answer:
        try:
            job_ids = self._write(lambda tx: write(tx, slot_named(tx, name)))
        except SlotNotFound:
            return Answer(404)
        return Answer(202, None, job_ids) if job_ids else Answer(409)

    def _moved(self, name: str, to: SlotState, cause: Cause) -> Answer:
        return self._answered(lambda tx: move(tx, slot_named(tx, name), to, cause, Act("scan")))

    def _answered(self, write: Callable[[Connection], object]) -> Answer:
        try:
            self._write(write)
        except RequestError as refusal:
            return Answer(refusal.status, refusal.code)
        return Answer(200)
