"""An engine in this process whose every answer a test decides, and bodies that wait for it.

A body runs in a thread of its own and stands still wherever it would speak to its engine:

    resolve   `validate` is about to ask which file the engine would open
    health    `load` is about to read what the engine has: before it sends, while it watches, or to
              verify; so is `unload`, before it marks or when its connection broke
    post      the mark is committed, the request is not sent
    sent      the engine has the request and has not answered

So an interleaving is a list of steps, the same in every run; and a `kill -9` is an exception that
no body can catch, raised where it stands. `fetch` is one more place, of the pull in `real.bodies`.
"""

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from hal0.clock import monotonic_ms
from hal0.engines.base import LLM, EngineConfig, EngineHealth, EngineModel, LoadedModel
from hal0.errors import EngineRefused, EngineTimeout, EngineUnreachable
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

    def __init__(self, worker: str, kind: str, run: Callable[[], None]) -> None:
        self.worker = worker
        self.kind = kind
        self.at = "claimed"
        self.posts_since_ms = 0
        """When it came to where its request is not sent yet: its time to wait runs from then."""
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
        if at == "post":
            self.posts_since_ms = monotonic_ms()
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
    mood: str = "well"
    """How it answers a scan: `vague` tells no use, `mute` no list, `slow` nothing, and one that
    `hung` is not even live."""
    loaded: dict[str, int] = field(default_factory=dict)
    """Model to ctx_size."""
    uses: dict[str, int] = field(default_factory=dict)
    """Model to its last use."""
    busy: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    """Listed, with a backend that does not answer."""
    requests: list[Request] = field(default_factory=list)
    posted: list[str] = field(default_factory=list)
    """Every request that it ever got, as `load m-one`."""
    on_unload: Callable[[], None] = lambda: None
    """Called before a model is unloaded for whoever settles."""
    on_health: Callable[[], None] = lambda: None
    """Called before it says what is loaded."""
    _clock: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def ensure_up(self) -> None:
        """Raise EngineUnreachable when nobody listens."""
        if not self.is_up:
            raise EngineUnreachable("nobody listens", evidence={"nobody_listens": True})

    def use(self, model: str) -> None:
        """A request begins."""
        self.uses[model] = next(self._clock)

    def load(self, model: str, ctx_size: int) -> None:
        """Load a model; the others go when there is no room for all."""
        if self.max_models == 1:
            self.clear()
        self.unload(model)
        self.loaded[model] = ctx_size
        self.use(model)

    def unload(self, model: str) -> bool:
        """Tell whether it was loaded."""
        self.busy.discard(model)
        self.dead.discard(model)
        return self.loaded.pop(model, None) is not None

    def clear(self) -> None:
        """Unload everything."""
        for model in list(self.loaded):
            self.unload(model)

    def health(self) -> EngineHealth:
        """Say what is loaded."""
        self.on_health()
        self.ensure_up()
        if self.mood in ("slow", "hung"):
            raise EngineTimeout("no answer in time")
        listed = None if self.mood == "mute" else tuple(map(self._entry, self.loaded))
        limits = {} if self.max_models is None else {LLM: self.max_models}
        return EngineHealth(f"process-{self.process}", listed, limits)

    def _entry(self, model: str) -> LoadedModel:
        tells = self.mood != "vague"
        return LoadedModel(
            model,
            self.files(model),
            last_use=str(self.uses[model]) if tells else None,
            busy=model in self.busy if tells else None,
            options={"ctx_size": self.loaded[model]},
        )


class _Client:
    """The adapter of one worker; its coroutines never wait, they stand."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self._engine = engine

    unload_stops_load = False

    async def is_live(self) -> bool:
        return self._engine.is_up and self._engine.mood != "hung"

    async def health(self) -> EngineHealth:
        _stand("health")
        return self._engine.health()

    async def config(self) -> EngineConfig | None:
        return None

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
            return self._engine.unload(name)
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
        return model.name in self._engine.loaded and model.name not in self._engine.dead

    async def close(self) -> None:
        pass


class SteppedRoom(EngineRoom):
    """A worker's room without a loop: a call is made in the thread that makes it."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self._client = _Client(engine)
        self._stopping = threading.Event()

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


def answer(request: Request, value: object, *, is_believed: bool = False) -> None:
    """Let the engine's answer, or an exception, reach whoever still reads it.

    `is_believed`: to a load that is there and serves, and needs no second look.
    """
    body, late = request.body, request.late
    request.forget()
    if body is not None and body.at == "sent":
        is_its_end = request.kind == body.kind and isinstance(value, bool | EngineRefused)
        body.go(value, free=is_its_end or is_believed)
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
