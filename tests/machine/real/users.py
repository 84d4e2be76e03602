"""What API processes write for requests of users: they enter, are forwarded, and leave."""

from hal0.clock import utc_now
from hal0.dispatcher.edges import Entered, Entering, enter, leave, recount
from hal0.dispatcher.prospects import prospect
from hal0.errors import Hal0Error, RequestError, SlotDraining
from hal0.jobs.ledger.rows import By
from hal0.jobs.wakes import request_wake
from hal0.slots.leases import LeaseKey
from hal0.slots.queries import slot_by_id, slot_named
from hal0.states import Cause, Origin, SlotState
from tests.machine.real.home import Asked
from tests.machine.real.orders import Orders
from tests.machine.reference.rows import Answer

REQUEST = "request-of-a-user"


class Users(Orders):
    """Requests for inference."""

    def admit(self, name: str, api: str) -> Answer:
        owner_id = self.apis[api].id
        try:
            with self.db.soft() as tx:
                slot = slot_named(tx, name)
                lease = LeaseKey(slot.id, slot.generation, owner_id)
                running = sum(one.lease == lease for one in self.asked)
                wish = Entering(
                    slot_id=slot.id,
                    owner_id=owner_id,
                    request_id=REQUEST,
                    waiting=1,
                    running=running,
                    generation=slot.generation,
                )
                entered = enter(tx, wish, self.settings)
        except RequestError as refusal:
            return Answer(refusal.status, refusal.code)
        if isinstance(entered, SlotDraining):
            return Answer(entered.status, entered.code)
        if not isinstance(entered, Entered):
            return Answer(503)
        self.asked.append(Asked(lease))
        return Answer(200)

    def wake(self, name: str) -> Answer:
        """As the one task of an API process that looks for all who wait for a slot."""
        try:
            with self.db.read() as tx:
                seen = prospect(tx, slot_named(tx, name), None, self.settings)
            if seen.head is not None:
                return Answer(202, None, (seen.head.job.id,), "joined")
            if not seen.may_wake:
                return Answer(200)
            with self.db.write() as tx:
                woken = request_wake(tx, seen.slot, By("somebody", REQUEST, Origin.WAKE))
        except Hal0Error as refusal:
            return Answer(refusal.status, refusal.code)
        return Answer(202, None, woken.job_ids if woken else ())

    def forward(self, number: int) -> str:
        """Look at the slot as the watch of an API process does, and send what may be sent."""
        lease = self.asked[number].lease
        with self.db.read() as tx:
            slot = slot_by_id(tx, lease.slot_id)
        if slot.generation != lease.generation or not slot.is_dispatchable:
            self.leave(number)
            return "refused"
        model = str(slot.engine_model)
        if not self.engine.is_up or model not in self.engine.loaded:
            self.leave(number)
            return "lost"
        self.engine.use(model)
        return "forwarded"

    def leave(self, number: int) -> None:
        lease = self.asked.pop(number).lease
        rest = sum(one.lease == lease for one in self.asked)
        with self.db.soft() as tx:
            if rest:
                recount(tx, lease, in_flight=rest, ended_at=utc_now())
            else:
                leave(tx, lease, request_id=REQUEST, ended_at=utc_now())

    def kill_api(self, api: str) -> None:
        gone = self.apis[api]
        gone.close()
        self.asked = [one for one in self.asked if one.lease.owner_id != gone.id]
        self._start_api(api)

    def demote(self, name: str) -> Answer:
        return self._moved(name, SlotState.IDLE, Cause.DEMOTED)
