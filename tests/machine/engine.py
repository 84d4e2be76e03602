"""An engine in this process whose every answer a test decides, and bodies that wait for it.

A body runs in a thread of its own and stands still wherever it would speak to its engine:

    resolve   `validate` is about to ask which file the engine would open
    health    `load` is about to read what the engine has, before it sends, or while it watches;
              so is `unload` when its connection broke
    post      the mark is committed, the request is not sent
    sent      the engine has the request and has not answered

So an interleaving is a list of steps, the same in every run; and a `kill -9` is an exception that
no body can catch, raised where it stands. `fetch` is one more place, of the pull in `real.bodies`.
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from hal0.engines.base import EngineHealth, EngineModel, LoadedModel
from hal0.errors import EngineRefused, EngineUnreachable
from hal0.jobs.engine_room import Call as EngineCall
from hal0.jobs.engine_room import EngineRoom
from hal0.registry.roster import EngineRow

T = TypeVar("T")
LIMIT_S: Final = 30.0
LEAVE: Final = object()
"""The order to a body that waits for an answer: wait no longer, the request stays open."""

_this_thread = threading.local()


class Killed(BaseException):
    """The process of this body is gone."""


class Left(Exception):  # noqa: N818  (nothing failed)
    """The body leaves its request open."""


class SteppedBody:
    """One job's body; `at` says where it stands, `ended` when it is over."""

    def __init__(self, worker: str, run: Callable[[], None]) -> None:
        self.worker = worker
        self.at = "claimed"
        self.is_free = False
        """Stands nowhere any more: what is left has one end."""
        self._run = run
        self._orders: SimpleQueue[object] = SimpleQueue()
        self._stood = threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    def go(self, order: object = None, *, free: bool = False) -> None:
        """Let the body go on until it stands again or ends; an exception is raised in it."""
        self.is_free |= free
        if self._thread is None:
            self._thread = threading.Thread(target=self._to_the_end, daemon=True)
            self._thread.start()
        else:
            self._orders.put(order)
        assert self._stood.acquire(timeout=LIMIT_S), f"the body that stood at {self.at} hangs"

    def _to_the_end(self) -> None:
        _this_thread.body = self
        try:
            self._run()
        except Killed:
            pass
        finally:
            self.at = "ended"
            self._stood.release()

    def stand(self, at: str) -> object:
        """Stand still until told to go on; return the order."""
        if self.is_free:
            return None
        self.at = at
        self._stood.release()
        order = self._orders.get()
        if isinstance(order, BaseException):
            raise order
        return order


def here() -> SteppedBody | None:
    """Return the body that runs in this thread; None = nobody's, which stands nowhere."""
    return getattr(_this_thread, "body", None)


def _stand(at: str) -> object:
    body = here()
    return None if body is None else body.stand(at)


@dataclass(eq=False)
class Request:
    """A load or an unload that the engine has and has not answered."""

    kind: str
    model: str
    ctx_size: int
    body: SteppedBody | None
    """Who waits for the answer."""
    late: "Future[Any] | None" = None
    """Where the answer is read after the body left."""

    def forget(self) -> None:
        """Nobody reads the answer any more."""
        self.body = self.late = None


@dataclass(eq=False)
class ScriptedEngine:
    """What the engine has, and owes."""

    files: Callable[[str], str]
    """The file that it would open by a model's name."""
    max_models: int | None = None
    process: int = 1
    is_up: bool = True
    loaded: dict[str, int] = field(default_factory=dict)
    """Model to ctx_size."""
    requests: list[Request] = field(default_factory=list)
    posted: list[str] = field(default_factory=list)
    """Every request that it ever got, as `load m-one`."""
    on_unload: Callable[[], None] = lambda: None
    """Called before a model is unloaded for whoever settles."""
    on_health: Callable[[], None] = lambda: None
    """Called before it says what is loaded."""

    def ensure_up(self) -> None:
        """Raise EngineUnreachable when nobody listens."""
        if not self.is_up:
            raise EngineUnreachable("nobody listens", evidence={"nobody_listens": True})

    def load(self, model: str, ctx_size: int) -> None:
        """Load a model; the others go when there is no room for all."""
        if self.max_models == 1:
            self.loaded.clear()
        self.loaded[model] = ctx_size

    def health(self) -> EngineHealth:
        """Say what is loaded."""
        self.on_health()
        self.ensure_up()
        listed = tuple(LoadedModel(name, self.files(name), busy=False) for name in self.loaded)
        return EngineHealth(f"process-{self.process}", listed, self.max_models)


class _Client:
    """The adapter of one worker; its coroutines never wait, they stand."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self._engine = engine

    async def is_live(self) -> bool:
        return self._engine.is_up

    async def health(self) -> EngineHealth:
        _stand("health")
        return self._engine.health()

    async def resolve(self, name: str) -> EngineModel | None:
        _stand("resolve")
        self._engine.ensure_up()
        return EngineModel(name, self._engine.files(name), downloaded=True)

    async def load(
        self, name: str, options: Mapping[str, Any], on_sent: Callable[[], None]
    ) -> None:
        await self._send("load", name, options["ctx_size"], on_sent)

    async def unload(self, name: str, on_sent: Callable[[], None]) -> bool:
        body = here()
        if body is None or body.is_free:  # whoever settles waits for nothing
            self._engine.ensure_up()
            self._engine.posted.append(f"unload {name}")
            self._engine.on_unload()
            return self._engine.loaded.pop(name, None) is not None
        return bool(await self._send("unload", name, 0, on_sent))

    async def _send(
        self, kind: str, name: str, ctx_size: int, on_sent: Callable[[], None]
    ) -> object:
        _stand("post")
        self._engine.ensure_up()
        request = Request(kind, name, ctx_size, here())
        self._engine.requests.append(request)
        self._engine.posted.append(f"{kind} {name}")
        on_sent()
        answer = _stand("sent")
        if answer is LEAVE:
            raise Left(request)
        return answer

    async def answers(self, model: LoadedModel) -> bool:
        return model.name in self._engine.loaded

    async def close(self) -> None:
        pass


class SteppedRoom(EngineRoom):
    """A worker's room without a loop: a call is made in the thread that makes it."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self._client = _Client(engine)

    def ask(self, row: EngineRow, call: EngineCall[T], timeout_s: float) -> T:
        """Make a call."""
        steps = call(self._client).__await__()
        try:
            next(steps)
        except StopIteration as done:
            value: T = done.value
            return value
        raise AssertionError("an engine of tests never waits")

    def begin(self, row: EngineRow, call: EngineCall[T]) -> "Future[T]":
        """Make a call and return its answer, which is there unless the body left."""
        answer: Future[T] = Future()
        try:
            answer.set_result(self.ask(row, call, 0))
        except Left as left:
            left.args[0].late = answer
        except Exception as error:  # noqa: BLE001 - it belongs to whoever asked
            answer.set_exception(error)
        return answer

    def close(self) -> None:
        """Nothing to give up."""


def answer(request: Request, value: object) -> None:
    """Let the engine's answer, or an exception, reach whoever still reads it."""
    body, late = request.body, request.late
    request.forget()
    if body is not None and body.at == "sent":
        body.go(value, free=value is None or isinstance(value, bool | EngineRefused))
    elif late is not None and not late.done():
        _answer_late(late, value)


def _answer_late(answer: "Future[Any]", value: object) -> None:
    """Answer, and wait for the thread in which `jobs.settle` reads it."""
    before = set(threading.enumerate())
    if isinstance(value, BaseException):
        answer.set_exception(value)
    else:
        answer.set_result(value)
    for thread in set(threading.enumerate()) - before:
        thread.join(LIMIT_S)
        assert not thread.is_alive(), "a late answer is not settled"
