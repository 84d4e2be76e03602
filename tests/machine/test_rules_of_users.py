"""The protocol's rules on requests of users, and what an unload owes to those that run."""

from tests.machine.arrivals import answer_last, to_idle, to_ready, to_serving
from tests.machine.play import Play
from tests.machine.rules import shows


def _unload_by_force(play: Play) -> None:
    play.do("unload", "one", True)
    play.bring("one", "sent")
    answer_last(play, "ok")


@shows("lease_generation")
def test_a_request_that_ends_leaves_the_lease_on_a_newer_load_alone(play: Play) -> None:
    to_serving(play, "one")
    _unload_by_force(play)
    to_serving(play, "one")
    assert play.now("one")["leases"] == {("north 1", 2): 1}
    play.do("leave", 0)
    assert (play.now("one")["state"], play.now("one")["leases"]) == ("serving", {("north 1", 2): 1})
    play.do("leave", 0)
    assert play.now("one")["history"][-1] == "serving>ready requests_done"
    play.drain()


@shows("lease_checked_before_forward")
def test_a_request_is_forwarded_only_to_what_it_was_let_in_to(play: Play) -> None:
    """A model that is not there would be loaded by its engine, past every check."""
    to_serving(play, "one")
    play.do("admit", "one", "south")
    play.do("unload", "one", True)
    body = play.bring("one", "post")
    assert play.do("forward", 1) == "refused", "the slot is about to be unloaded"
    play.do("go_on", *body)
    answer_last(play, "ok")
    to_ready(play, "one")
    assert play.do("forward", 0) == "refused", "another load than the one it was let in to"
    play.do("admit", "one", "north")
    assert play.do("forward", 0) == "forwarded"
    play.drain()


def test_an_unload_waits_for_the_requests_of_all_processes_and_admits_none(play: Play) -> None:
    to_serving(play, "one")
    play.do("admit", "one", "south")
    play.do("unload", "one")
    assert play.do("admit", "one", "south").code == "slot.draining"
    assert play.do("claim", play.workers[0]) is None
    play.do("leave", 0)
    assert play.do("claim", play.workers[0]) is None
    play.do("leave", 0)
    assert play.sql("SELECT state, attempt FROM jobs WHERE kind = 'unload' AND step = 2")[-1:] == [
        ("queued", 0)
    ]
    play.drain()
    assert play.now("one")["state"] == "offline"


def test_a_slot_drains_on_though_every_worker_dies(play: Play) -> None:
    to_serving(play, "one")
    play.do("unload", "one")
    for number in range(2):
        play.replace(number, "kill")
    play.do("rescue", play.workers[0])
    assert play.do("admit", "one", "north").code == "slot.draining"
    assert play.do("claim", play.workers[0]) is None
    play.drain()
    assert play.now("one")["history"][-1] == "unloading>offline unloaded"


def test_when_the_time_of_requests_is_over_the_model_stays_and_others_may_come(play: Play) -> None:
    to_serving(play, "one")
    (unload,) = play.do("unload", "one").jobs
    play.do("pass_time", 31_000)
    play.work_out()
    code = play.sql("SELECT state, error ->> '$.code' FROM jobs WHERE id = ?", unload)
    assert code == [("failed", "slot.drain_timeout")]
    assert play.do("admit", "one", "south").status == 200
    assert play.real.engine.posted == ["load m-one"]
    play.drain()


def test_who_dies_between_a_cut_and_its_unload_is_followed_by_one_request(play: Play) -> None:
    to_serving(play, "one")
    play.do("unload", "one", True)
    play.bring("one", "post")
    assert (play.now("one")["state"], play.now("one")["leases"]) == ("unloading", {})
    play.replace(0, "kill")
    play.do("rescue", play.workers[1])
    play.drain()
    assert play.now("one")["state"] == "offline"
    assert play.real.engine.posted == ["load m-one", "unload m-one"]


def test_a_request_that_comes_before_an_idle_unload_looks_is_not_cut(play: Play) -> None:
    """C16: nor one that comes while it looks."""
    to_idle(play, "one")
    play.do("idle_unload", "one")
    play.do("admit", "one", "north")
    play.work_out()
    assert play.now("one")["state"] == "serving"
    play.served("one")
    play.do("idle_unload", "one")
    body = play.bring("one", "health")
    play.do("admit", "one", "south")
    play.do("go_on", *body)
    assert play.now("one")["state"] == "serving"
    assert play.real.engine.posted == ["load m-one"]
    play.drain()


def test_the_requests_of_a_dead_process_hold_a_drain_up_until_they_are_cleared(play: Play) -> None:
    to_serving(play, "one")
    play.do("admit", "one", "south")
    play.do("unload", "one")
    play.do("kill_api", "north")
    play.do("rescue", play.workers[0])
    assert play.now("one")["leases"] == {("south 1", 1): 1}
    assert play.do("claim", play.workers[0]) is None
    play.do("kill_api", "south")
    assert play.do("claim", play.workers[0]) is None, "nobody has seen that it is dead"
    play.do("rescue", play.workers[0])
    assert play.now("one")["history"][-1] == "serving>ready leases_cleared"
    assert play.do("claim", play.workers[0]) is not None
    play.drain()
    assert play.now("one")["state"] == "offline"


def test_a_dead_process_leaves_a_slot_idle_that_nobody_used_for_long(play: Play) -> None:
    to_serving(play, "one")
    play.do("pass_time", 301_000)
    play.do("kill_api", "north")
    play.do("rescue", play.workers[0])
    assert play.now("one")["history"][-1] == "serving>idle leases_cleared"
    play.drain()
