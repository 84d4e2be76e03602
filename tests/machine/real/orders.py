"""What operators, machines and users ask for."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, insert, update

from hal0.clock import utc_now
from hal0.errors import RequestError, SlotNotFound
from hal0.jobs.ledger.intake import Accepted, Wish, add_chain, machine_load
from hal0.jobs.ledger.rows import unfinished_jobs
from hal0.slots.queries import Slot, slot_named
from hal0.slots.transitions import Act, move
from hal0.states import Cause, JobKind, SlotState
from hal0.tables import leases, slots
from tests.ledger import IDLE, RESTORE
from tests.machine.real.home import Home
from tests.machine.reference.rows import Answer


class Orders(Home):
    """What operators, machines and users ask for."""

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
        def write(tx: Connection, slot: Slot) -> Accepted | None:
            wish = Wish(JobKind.LOAD, slot.wanted_model_id, slot.options)
            return machine_load(tx, slot, wish, RESTORE)

        return self._machines(name, write)

    def idle_unload(self, name: str) -> Answer:
        """As the idle scan will: it keeps quiet by itself (machines_quiet)."""

        def write(tx: Connection, slot: Slot) -> Accepted | None:
            guard = (slot.generation, slot.last_used_at)
            is_busy = bool(unfinished_jobs(tx, slot.id))
            return None if is_busy else add_chain(tx, slot, Wish(JobKind.UNLOAD, guard=guard), IDLE)

        return self._machines(name, write)

    def _machines(self, name: str, write: Callable[[Connection, Slot], Accepted | None]) -> Answer:
        try:
            accepted = self._write(lambda tx: write(tx, slot_named(tx, name)))
        except SlotNotFound:
            return Answer(404)
        return Answer(409) if accepted is None else Answer(202, None, accepted.job_ids)

    # -- requests of users ----------------------------------------------------------------------

    def serve(self, name: str) -> Answer:
        return self._used(name, SlotState.SERVING, Cause.REQUEST_STARTED)

    def served(self, name: str) -> Answer:
        return self._used(name, SlotState.READY, Cause.REQUESTS_DONE)

    def demote(self, name: str) -> Answer:
        return self._used(name, SlotState.IDLE, Cause.DEMOTED)

    def _used(self, name: str, to: SlotState, cause: Cause) -> Answer:
        def write(tx: Connection) -> None:
            slot = move(tx, slot_named(tx, name), to, cause, Act("dispatcher"))
            tx.execute(leases.delete().where(leases.c.slot_id == slot.id))
            if cause is not Cause.DEMOTED:
                now = utc_now()
                tx.execute(update(slots).where(slots.c.id == slot.id).values(last_used_at=now))
            if to is SlotState.SERVING:
                row = {"slot_id": slot.id, "generation": slot.generation, "owner_id": "api"}
                tx.execute(insert(leases).values(**row, in_flight=1, at=utc_now()))

        try:
            self._write(write)
        except RequestError as refusal:
            return Answer(refusal.status, refusal.code)
        return Answer(200)
